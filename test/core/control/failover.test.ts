import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { until } from '../../until.ts';
import { RunningProgram } from './program.ts';

t.setTimeout(180_000);

// Two cards with one address behind root ports. hubport backends need nothing of the host.
const PORTS = ['root0', 'root1'].flatMap((id, index) => [
  '-device',
  `pcie-root-port,id=${id},addr=${index + 1},bus=pcie.0,chassis=${index + 1}`,
]);
const CARDS = [
  ...['-netdev', 'hubport,id=h0,hubid=0', '-netdev', 'hubport,id=h1,hubid=1'],
  ...['-device', 'virtio-net-pci,bus=root0,id=standby0,failover=on,netdev=h0,mac=52:54:00:00:00:01'],
  ...['-device', 'virtio-net-pci,bus=root1,id=primary0,failover_pair_id=standby0,netdev=h1,mac=52:54:00:00:00:01'],
];
const MACHINE = ['-machine', 'q35', '-m', '16', '-nodefaults', ...PORTS, ...CARDS];

/** docs/specs/acpi_pci_hotplug: bus 0 of those that take part is that of the last root port. */
const EJECT = 'outl 0xcc8 1';

async function present(program: RunningProgram): Promise<boolean> {
  const { return: children } = (await program.execute('qom-list', { path: '/machine/peripheral' })) as {
    return: { name: string }[];
  };
  return children.some(({ name }) => name === 'primary0');
}

const status = async (program: RunningProgram): Promise<string | undefined> =>
  ((await program.execute('query-migrate')) as { return: { status?: string } }).return.status;

/** The standby's driver accepts VIRTIO_NET_F_STANDBY (virtio 1.2, section 3.1.1); its registers are in BAR 4. */
async function negotiate(program: RunningProgram): Promise<void> {
  const BAR = 0xe000_0000;
  const config = async (bus: number, slot: number, offset: number, value: number): Promise<void> => {
    await program.command(`outl 0xcf8 ${(0x8000_0000 | (bus << 16) | (slot << 11) | offset) >>> 0}`);
    await program.command(`outl 0xcfc ${value}`);
  };
  await config(0, 1, 0x18, 0x0001_0100); // bus numbers
  await config(0, 1, 0x20, 0xe000_e000); // memory window
  await config(0, 1, 0x04, 6);
  await config(1, 0, 0x20, BAR);
  await config(1, 0, 0x24, 0);
  await config(1, 0, 0x04, 6);
  const [FEATURE_SELECT, FEATURE, STATUS] = [BAR + 0x08, BAR + 0x0c, BAR + 0x14];
  await program.command(`writeb ${STATUS} 3`); // ACKNOWLEDGE, DRIVER
  await program.command(`writel ${FEATURE_SELECT} 1`);
  await program.command(`writel ${FEATURE} 0x40000001`); // STANDBY, VERSION_1
  await program.command(`writeb ${STATUS} 0x0b`); // FEATURES_OK
}

const count = (program: RunningProgram, name: string): number =>
  program.events.filter(({ event }) => event === name).length;

t.test(
  'a machine leaves without its primary card, gets it back when it stays, and finds one where it goes',
  async t => {
    const folder = mkdtempSync(join(tmpdir(), 'southbridge-failover-'));
    t.teardown(() => rmSync(folder, { recursive: true, force: true }));
    const file = join(folder, 'state');

    const source = await RunningProgram.start(...MACHINE);
    await source.execute('qmp_capabilities');
    t.notOk(await present(source), 'hidden from a guest that cannot have both');
    await negotiate(source);
    await until(() => present(source));
    t.equal(count(source, 'FAILOVER_NEGOTIATED'), 1);

    await source.execute('migrate', { uri: `exec:cat > ${file}` });
    await until(async () => (await status(source)) === 'wait-unplug');
    t.match(
      source.events.find(({ event }) => event === 'UNPLUG_PRIMARY'),
      { data: { 'device-id': 'primary0' } },
    );
    t.match(await source.execute('migrate', { uri: `exec:cat > ${file}` }), {
      error: { desc: "There's a migration process in progress" },
    });
    t.ok(await present(source), 'the guest has not let it go');
    await source.execute('migrate_cancel');
    t.equal(await status(source), 'cancelling', 'as long as the guest is at it');
    await source.command(EJECT);
    await until(async () => (await status(source)) === 'cancelled');
    t.ok(await present(source), 'back');
    t.equal(count(source, 'DEVICE_DELETED'), 0, 'nobody has deleted it');

    await source.execute('migrate', { uri: `exec:cat > ${file}` });
    await until(async () => (await status(source)) === 'wait-unplug');
    await source.command(EJECT);
    await until(async () => (await status(source)) === 'completed');
    t.equal(count(source, 'UNPLUG_PRIMARY'), 2);
    await source.stop();

    const target = await RunningProgram.start(...MACHINE, '-incoming', 'defer');
    await target.execute('qmp_capabilities');
    t.notOk(await present(target));
    await target.execute('migrate-incoming', { uri: `exec:cat ${file}` });
    await until(async () => (await status(target)) === 'completed');
    t.equal(count(target, 'FAILOVER_NEGOTIATED'), 1);
    await until(() => present(target));
    t.match(
      target.events.find(({ event }) => event === 'MIGRATION'),
      { data: { status: 'setup' } },
    );
    await target.stop();
  },
);
