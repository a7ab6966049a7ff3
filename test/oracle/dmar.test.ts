/** The DMAR table is QEMU's, byte for byte, whatever is on the buses. */
import t from 'tap';
import { findQemu, type Player, play, southbridge } from './qtest-player.ts';
import { RegisterScript } from './register-script.ts';

const qemu = findQemu();
const SELECTOR = 0x510;
const DATA = 0x511;
const DIRECTORY = 0x19;
const ENTRY = 64;
const MAX_FILES = 48;
/** More than the tables before it need. */
const TABLES = 0x5000;

async function item(player: Player, machine: readonly string[], key: number, length: number): Promise<Buffer> {
  const script = new RegisterScript('fw_cfg', machine).out16(SELECTOR, key);
  for (let at = 0; at < length; at++) script.in8(DATA);
  const answers = await play(player, script);
  return Buffer.from(answers.slice(1).map(answer => Number(answer.split(' ')[1])));
}

async function dmar(player: Player, machine: readonly string[]): Promise<string> {
  const directory = await item(player, machine, DIRECTORY, 4 + MAX_FILES * ENTRY);
  for (let at = 4; at + ENTRY <= directory.length; at += ENTRY) {
    if (directory.toString('latin1', at + 8, at + ENTRY).replace(/\0.*$/s, '') !== 'etc/acpi/tables') continue;
    const tables = await item(player, machine, directory.readUInt16BE(at + 4), TABLES);
    const start = tables.indexOf('DMAR');
    return start < 0 ? 'none' : tables.toString('hex', start, start + tables.readUInt32LE(start + 4));
  }
  throw new Error(`${player.name} has no tables`);
}

const CARDS = ['-device', 'e1000,addr=3', '-device', 'edu,addr=7,multifunction=on', '-device', 'edu,addr=7.1'];
const BRIDGES = [
  ...['-device', 'pcie-root-port,id=r1,chassis=1', '-device', 'virtio-rng-pci,bus=r1'],
  ...['-device', 'i82801b11-bridge,id=b,addr=1e.0', '-device', 'edu,bus=b,addr=4'],
];
const EXPANDER = ['-device', 'pxb-pcie,bus_nr=64,id=x', '-device', 'pcie-root-port,bus=x,chassis=2'];

for (const [name, iommu, more] of [
  ['alone', 'intremap=off', []],
  ['48 bits, device TLBs', 'intremap=off,aw-bits=48,device-iotlb=on', CARDS],
  ['bridges, interrupts', 'intremap=auto', BRIDGES],
  ['an expander', 'intremap=off', EXPANDER],
  ['nothing that it translates for', 'intremap=off', ['-machine', 'default-bus-bypass-iommu=on', ...EXPANDER]],
] as const)
  t.test(
    name,
    { skip: qemu === undefined ? 'qemu-system-x86_64 is not installed' : false, timeout: 60_000 },
    async t => {
      if (qemu === undefined) return;
      const machine = ['-machine', 'q35', '-m', '64M', '-nodefaults', '-device', `intel-iommu,${iommu}`, ...more];
      const [ours, theirs] = await Promise.all([dmar(southbridge, machine), dmar(qemu, machine)]);
      t.match(ours, /^444d4152/);
      t.equal(ours, theirs);
    },
  );
