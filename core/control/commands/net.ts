import type { ReceiveFilterInfo } from '../../net/net-cards.ts';
import { formatMac, type NetCard } from '../../net/net-cards.ts';
import type { Program } from '../program.ts';
import { QmpError } from '../qapi/error.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

/** Network backends and cards. */
export const netCommands = (program: Program): Handlers<QmpSession> => ({
  netdev_add: async spec => {
    await (await program.nets()).add(spec);
  },
  netdev_del: async ({ id }) => (await program.nets()).remove(id),
  set_link: async ({ name, up }) => (await program.nets()).setLink(name, up),
  'query-rx-filter': async ({ name }) => receiveFilters(program, name),
  'announce-self': async ({ id, initial, max, rounds, step, interfaces }) =>
    (await program.nets()).announce(id ?? '', {
      initial: Number(initial),
      max: Number(max),
      rounds: Number(rounds),
      step: Number(step),
      interfaces,
    }),
});

async function receiveFilters(program: Program, name: string | undefined) {
  const cards = [...program.machine.services.netCards.all];
  if (name === undefined) return cards.flatMap(card => describe(card) ?? []);
  const card = cards.find(({ client }) => client.name === name);
  if (card === undefined) {
    const known = (await program.nets()).get(name) !== undefined;
    throw new QmpError(known ? `net client(${name}) isn't a NIC` : `invalid net client name: ${name}`);
  }
  const info = describe(card);
  if (info === undefined) throw new QmpError(`net client(${name}) doesn't support rx-filter querying`);
  return [info];
}

function describe({ client, receiver }: NetCard) {
  const info: ReceiveFilterInfo | undefined = receiver.receiveFilter?.();
  return (
    info && {
      name: client.name,
      promiscuous: info.promiscuous,
      multicast: info.multicast,
      unicast: info.unicast,
      vlan: info.vlan,
      'broadcast-allowed': info.broadcastAllowed,
      'multicast-overflow': info.multicastOverflow,
      'unicast-overflow': info.unicastOverflow,
      'main-mac': formatMac(info.mainMac),
      'vlan-table': [...info.vlanTable],
      'unicast-table': info.unicastTable.map(formatMac),
      'multicast-table': info.multicastTable.map(formatMac),
    }
  );
}
