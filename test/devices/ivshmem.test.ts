/** Shared memory between machines, with a server of our own at the other end of the socket. */
import { closeSync } from 'node:fs';
import t from 'tap';
import { FdSocket } from '../../core/char/fd-socket.ts';
import { SocketChardev } from '../../core/char/socket.ts';
import { EventFd } from '../../core/host/event-fd.ts';
import { createMemfd } from '../../core/host/files.ts';
import { sendFds, socketPair } from '../../core/host/sockets.ts';
import { SharedRam } from '../../core/memory/guest-ram.ts';
import { MappedRam } from '../../core/memory/mapped-ram.ts';
import { Bench } from '../../core/testing/bench.ts';
import { ivshmemDoorbell, ivshmemPlain, ivshmemRegisters } from '../../devices/ivshmem/ivshmem.ts';
import { until } from '../until.ts';

const SIZE = 65536;
const turn = (): Promise<void> => new Promise(resolve => setTimeout(resolve, 1));

/** The server's end: it only speaks. */
class Server {
  readonly chardev: SocketChardev;
  readonly #socket: number;

  constructor() {
    const [ours, theirs] = socketPair();
    this.#socket = ours;
    this.chardev = new SocketChardev('server', {
      address: { type: 'fd', fd: theirs },
      server: false,
      wait: false,
      telnet: false,
      nodelay: false,
      reconnect: 0,
      upgrade: FdSocket.adopt,
    });
  }

  say(value: number, fd?: number): void {
    const message = Buffer.alloc(8);
    message.writeBigInt64LE(BigInt(value));
    sendFds(this.#socket, message, fd === undefined ? [] : [fd]);
  }

  /** A part of a message: a stream has no borders. */
  mumble(bytes: Uint8Array): void {
    sendFds(this.#socket, bytes, []);
  }

  close(): void {
    closeSync(this.#socket);
  }
}

interface Machine {
  readonly lab: Bench;
  readonly card: ReturnType<Bench['pci']>;
}

async function doorbell(server: Server, properties: Readonly<Record<string, unknown>> = {}): Promise<Machine> {
  await server.chardev.open();
  const lab = new Bench({ backends: { find: () => server.chardev } });
  t.teardown(() => {
    lab.machine.dispose();
    server.chardev.dispose();
  });
  return { lab, card: lab.pci(ivshmemDoorbell, { chardev: 'server', vectors: 2, ...properties }) };
}

/** What a promise is rejected with. */
const refusal = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => undefined,
    (error: unknown) => error,
  );

t.test('memory of a backend, and registers that do nothing more', async t => {
  const ram = new SharedRam('m', SIZE);
  const backend = {
    id: 'm',
    size: SIZE,
    path: '/objects/m',
    mapped: false,
    claim: () => () => {},
    contents: () => [ram],
  };
  const lab = new Bench({ backends: { find: () => backend } });
  const card = lab.pci(ivshmemPlain, { memdev: 'm', master: 'on' });
  const regs = card.bar(0, ivshmemRegisters);
  t.equal(card.readConfig(8, 4), 0x0500_0001, 'RAM, revision 1');
  regs.INTRSTATUS.value = 5;
  t.equal(regs.INTRSTATUS.value, 5);
  t.equal(regs.INTRSTATUS.value, 0, 'reading clears');
  regs.IVPOSITION.value = 9;
  t.equal(regs.IVPOSITION.value, 0);
  regs.DOORBELL.value = 0x0001_0000;
  card.port(2).write(0x100, 4, 0xcafe_f00d);
  t.equal(ram.view.getUint32(0x100, true), 0xcafe_f00d);

  const odd = { ...backend, contents: () => [new SharedRam('odd', SIZE + 4096)] };
  t.throws(() => new Bench({ backends: { find: () => odd } }).pci(ivshmemPlain, { memdev: 'm' }), {
    code: 'ERR_IVSHMEM',
  });
  t.throws(() => lab.pci(ivshmemPlain, {}), { message: "You must specify a 'memdev'" });
  const peer = new Bench({ backends: { find: () => backend } }).pci(ivshmemPlain, { memdev: 'm' });
  t.throws(() => peer.device.save(), { message: /Migration is disabled when using feature 'peer mode'/ });
  t.doesNotThrow(() => card.device.save());
});

t.test('two machines share memory and ring each other', async t => {
  const memfd = createMemfd('shared', SIZE);
  const bells = Array.from({ length: 4 }, () => new EventFd());
  t.teardown(() => {
    closeSync(memfd);
    for (const bell of bells) bell.close();
  });
  const servers = [new Server(), new Server()];
  for (const [id, server] of servers.entries()) {
    server.say(0);
    server.say(id);
    server.say(-1, memfd);
    // The other one may already be there.
    const own = bells.slice(id * 2, id * 2 + 2);
    const others = bells.slice((1 - id) * 2, (1 - id) * 2 + 2);
    for (const bell of others) server.say(1 - id, bell.fd);
    for (const bell of own) server.say(id, bell.fd);
  }
  const [first, second] = await Promise.all(servers.map(server => doorbell(server)));
  if (first === undefined || second === undefined) throw new Error('two servers, two machines');
  t.equal(first.card.bar(0, ivshmemRegisters).IVPOSITION.value, 0);
  t.equal(second.card.bar(0, ivshmemRegisters).IVPOSITION.value, 1);
  first.card.port(2).write(SIZE - 4, 4, 0x1234_5678);
  t.equal(second.card.port(2).read(SIZE - 4, 4), 0x1234_5678);
  t.equal(
    new MappedRam('test', memfd, { offset: 0, size: SIZE }, { shared: true }).view.getUint32(SIZE - 4, true),
    0x1234_5678,
  );

  first.card.enableMsix();
  // All that the server has said has arrived once the last of its bells rings.
  while (first.lab.messageCount(0x41) === 0) {
    second.card.bar(0, ivshmemRegisters).DOORBELL.value = 1;
    await turn();
  }
  t.equal(first.lab.messageCount(0x40), 0, 'of the vector that was rung');
  const regs = second.card.bar(0, ivshmemRegisters);
  regs.DOORBELL.value = 2;
  regs.DOORBELL.value = 0x0007_0000;
  regs.DOORBELL.value = 0;
  await until(() => first.lab.messageCount(0x40) > 0);
  t.equal(first.lab.messages.length, first.lab.messageCount(0x40) + first.lab.messageCount(0x41), 'nobody else rings');

  servers[1]?.say(0);
  servers[1]?.say(3);
  servers[1]?.say(0x1_0000);
  servers[1]?.mumble(Uint8Array.of(1, 2, 3));
  const before = first.lab.messages.length;
  let gone = false;
  for (let round = 0; round < 1000 && !gone; round++) {
    regs.DOORBELL.value = 0;
    await turn();
    await turn();
    gone = first.lab.messages.length === before + round;
  }
  t.ok(gone, 'a peer that has gone is not rung any more');
  for (const server of servers) server.close();
});

t.test('a server that makes no sense is refused by name', async t => {
  const memfd = createMemfd('shared', SIZE);
  t.teardown(() => closeSync(memfd));
  const refusals: readonly (readonly [
    (server: Server) => void,
    { readonly message?: string; readonly code?: string },
  ])[] = [
    [server => server.say(1), { message: 'server sent version 1, expecting 0' }],
    [server => server.say(0, memfd), { message: 'server sent invalid version message' }],
    [server => (server.say(0), server.say(0x1_0000)), { message: 'server sent invalid ID message' }],
    [server => (server.say(0), server.say(-1)), { message: 'server sent invalid ID message' }],
    [server => (server.say(0), server.say(0), server.say(-2)), { message: 'server sent invalid message -2' }],
    [server => (server.say(0), server.say(0), server.say(-1)), { message: 'server sent no shared memory' }],
    [server => (server.say(0), server.say(0), server.say(5)), { message: 'invalid peer 5' }],
    [server => (server.say(0), server.mumble(Uint8Array.of(1))), { code: 'ERR_CHARDEV' }],
    [() => {}, { code: 'ERR_CHARDEV' }],
  ];
  for (const [speech, expected] of refusals) {
    const server = new Server();
    speech(server);
    server.close();
    t.match(await refusal(doorbell(server)), expected);
  }
  const late = new Server();
  for (const [value, fd] of [[0], [4], [-1, memfd]] as const) late.say(value, fd);
  t.match(await refusal(doorbell(late, { master: 'on' })), {
    message: 'master must connect to the server before any peers',
  });
  late.close();
});
