import fs from 'node:fs';
import fc from 'fast-check';
import t from 'tap';
import { ich9Ahci } from '../../../devices/ahci/ahci.ts';
import {
  FIS,
  HBA,
  INTERRUPT,
  PORT,
  COMMAND as PORT_COMMAND,
  PORTS_AT,
  QUEUED,
  RECEIVED,
} from '../../../devices/ahci/registers.ts';
import { ideCd, ideHd } from '../../../devices/ide/ide-drive.ts';
import { COMMAND, STATUS } from '../../../devices/ide/task-file.ts';
import { DISK_SECTORS, diskLab, SECTOR, settle } from './lab.ts';

const LIST = 0x1000;
const RECEIVE = 0x2000;
const TABLES = 0x4000;
const TABLE_SIZE = 0x400;
const DATA = 0x2_0000;
const READY = STATUS.DRDY | STATUS.DSC;
const ENABLED = 0x7d40_003f & ~0x30;

interface Options {
  readonly cd?: boolean;
  readonly debug?: string;
  readonly props?: Readonly<Record<string, string>>;
}

async function lab(
  tap: { teardown(handler: () => Promise<void>): unknown },
  { cd = false, debug, props = {} }: Options = {},
) {
  const disk = await diskLab(debug, cd);
  tap.teardown(() => disk.dispose());
  const { table } = disk;
  const card = table.pci(ich9Ahci);
  card.device.ideBuses[0]?.plug(cd ? ideCd : ideHd, {}, { drive: disk.backend, ...props });
  const bar = card.port(5);
  const { memory } = table.machine;
  const port = {
    read: (register: number): number => bar.read(PORTS_AT + register, 4),
    write: (register: number, value: number): void => bar.write(PORTS_AT + register, 4, value),
  };
  bar.write(HBA.GHC, 4, 2);
  port.write(PORT.CLB, LIST);
  port.write(PORT.FB, RECEIVE);
  port.write(PORT.CMD, PORT_COMMAND.FRE);
  port.write(PORT.CMD, PORT_COMMAND.FRE | PORT_COMMAND.ST);
  port.write(PORT.IS, 0xffff_ffff);
  port.write(PORT.IE, ENABLED);
  return {
    ...disk,
    card,
    bar,
    memory,
    port,
    /** Builds the command of a slot: a register FIS, and regions for its data. */
    prepare(
      slot: number,
      fis: readonly number[],
      regions: readonly (readonly [number, number])[],
      options = 0,
      packet: readonly number[] = [],
    ): void {
      const at = TABLES + slot * TABLE_SIZE;
      const header = LIST + slot * 32;
      memory.write(header, 4, 5 | options | (regions.length << 16));
      memory.write(header + 4, 4, 0);
      memory.write(header + 8, 4, at);
      memory.write(header + 12, 4, 0);
      for (let byte = 0; byte < 20; byte++) memory.write(at + byte, 1, fis[byte] ?? 0);
      packet.forEach((byte, index) => memory.write(at + 0x40 + index, 1, byte));
      regions.forEach(([address, length], index) => {
        memory.write(at + 0x80 + 16 * index, 4, address);
        memory.write(at + 0x84 + 16 * index, 4, 0);
        memory.write(at + 0x8c + 16 * index, 4, length - 1);
      });
    },
    /** Starts the commands of the slots in `mask`, and waits until the disk has nothing to do. */
    async issue(mask: number): Promise<void> {
      port.write(PORT.CI, mask);
      await disk.idle();
    },
    transferred: (slot: number): number => memory.read(LIST + slot * 32 + 4, 4),
  };
}

const low = (lba: number): number[] => [lba & 0xff, (lba >> 8) & 0xff, (lba >> 16) & 0xff];
const command = (code: number, lba = 0, count = 0, features = 0): number[] => [
  FIS.REGISTER_TO_DEVICE,
  0x80,
  code,
  features,
  ...low(lba),
  0x40,
  0,
  0,
  0,
  0,
  count & 0xff,
  count >> 8,
];
const queued = (code: number, tag: number, lba: number, count: number): number[] => [
  FIS.REGISTER_TO_DEVICE,
  0x80,
  code,
  count & 0xff,
  ...low(lba),
  0x40,
  0,
  0,
  0,
  count >> 8,
  tag << 3,
];

t.test('the device sends its signature, and PIO and DMA commands end with the right FIS', async t => {
  const { port, prepare, issue, memory, transferred, card } = await lab(t);
  t.equal(port.read(PORT.SIG), 0x0000_0101);
  t.equal(port.read(PORT.SSTS), 0x113);
  prepare(0, command(COMMAND.IDENTIFY), [[DATA, SECTOR]]);
  await issue(1);
  t.equal(port.read(PORT.CI), 0);
  t.equal(memory.read(DATA + 120, 4), DISK_SECTORS);
  t.equal(memory.read(DATA + 150, 2), 31, 'queue depth');
  t.equal(transferred(0), SECTOR);
  t.equal(port.read(PORT.IS), INTERRUPT.PSS | INTERRUPT.DHRS);
  t.equal(card.intx.level, true);
  port.write(PORT.IS, 0xffff_ffff);
  t.equal(card.intx.level, false);
  t.equal(memory.read(RECEIVE + RECEIVED.PIO_SETUP, 1), FIS.PIO_SETUP);

  prepare(3, command(COMMAND.READ_DMA_EXT, 20, 8), [
    [DATA, 1000],
    [DATA + 0x2000, 3096],
  ]);
  await issue(1 << 3);
  t.same([memory.read(DATA, 4), memory.read(DATA + 0x2000 + 24, 4)], [20, 22]);
  t.equal(transferred(3), 8 * SECTOR);
  t.equal(port.read(PORT.IS), INTERRUPT.DHRS);
  t.equal(port.read(PORT.TFD), READY);
  t.equal(memory.read(RECEIVE + RECEIVED.REGISTER, 1), FIS.REGISTER_TO_HOST);

  prepare(0, command(COMMAND.READ_DMA_EXT, DISK_SECTORS, 1), [[DATA, SECTOR]]);
  await issue(1);
  t.equal(port.read(PORT.CI), 0, 'a command that failed leaves its slot, as in QEMU 7.2');
  t.equal(port.read(PORT.IS) & INTERRUPT.TFES, INTERRUPT.TFES);
});

t.test('queued commands are told of by their tags', async t => {
  const { port, prepare, issue, memory, file } = await lab(t);
  memory.write(DATA, 4, 0x1234_5678);
  prepare(2, queued(QUEUED.WRITE, 2, 50, 1), [[DATA, SECTOR]]);
  prepare(5, queued(QUEUED.READ, 5, 60, 600), [[DATA + 0x1000, 600 * SECTOR]]);
  port.write(PORT.SACT, (1 << 2) | (1 << 5));
  await issue((1 << 2) | (1 << 5));
  t.equal(port.read(PORT.CI), 0);
  t.equal(port.read(PORT.SACT), 0);
  t.equal(port.read(PORT.IS) & INTERRUPT.SDBS, INTERRUPT.SDBS);
  t.equal(fs.readFileSync(file).readUInt32LE(50 * SECTOR), 0x1234_5678);
  t.same([memory.read(DATA + 0x1000, 4), memory.read(DATA + 0x1000 + 599 * SECTOR, 4)], [60, 659]);
  prepare(1, queued(QUEUED.READ, 1, 0, 2), [[DATA, SECTOR]]);
  port.write(PORT.SACT, 1 << 1);
  await issue(1 << 1);
  t.equal(port.read(PORT.IS) & INTERRUPT.OFS, INTERRUPT.OFS, 'too few regions');
});

t.test('a queued command that failed is tried again, from a snapshot as well', async t => {
  const rules = '[inject-error]\nevent = "write_aio"\nerrno = "5"\nonce = "on"\n';
  const { port, prepare, issue, memory, events, card, table, file } = await lab(t, {
    debug: rules,
    props: { werror: 'stop' },
  });
  table.machine.start();
  memory.write(DATA, 4, 0xcafe_0009);
  prepare(4, queued(QUEUED.WRITE, 4, 9, 1), [[DATA, SECTOR]]);
  port.write(PORT.SACT, 1 << 4);
  await issue(1 << 4);
  t.same(events, ['BLOCK_IO_ERROR']);
  t.equal(port.read(PORT.SACT), 1 << 4, 'the guest hears nothing');
  table.machine.stop('io-error');
  const saved = card.device.save();
  card.device.reset();
  card.device.restore(saved);
  table.machine.start();
  await settle(() => port.read(PORT.SACT) === 0);
  t.equal(port.read(PORT.SACT), 0);
  t.equal(fs.readFileSync(file).readUInt32LE(9 * SECTOR), 0xcafe_0009);
});

t.test('a CD is read by packets, with DMA and without', async t => {
  const { port, prepare, issue, memory, transferred } = await lab(t, { cd: true });
  t.equal(port.read(PORT.SIG), 0xeb14_0101);
  const ATAPI = 1 << 5;
  const read = [0x28, 0, 0, 0, 0, 8, 0, 0, 2, 0];
  for (const features of [1, 0]) {
    memory.write(DATA, 4, 0);
    const fis = command(COMMAND.PACKET, 0xf8_0000, 0, features);
    prepare(0, fis, [[DATA, 4096]], ATAPI, read);
    await issue(1);
    t.equal(port.read(PORT.CI), 0);
    t.same([memory.read(DATA, 4), memory.read(DATA + 2048, 4)], [32, 36], features === 1 ? 'DMA' : 'PIO');
    t.equal(transferred(0), 4096);
  }
});

t.test('MSI sends a message for each event', async t => {
  const { prepare, issue, card, table } = await lab(t);
  card.writeConfig(0x84, 4, 0xfee0_0000);
  card.writeConfig(0x8c, 2, 0x4041);
  card.writeConfig(0x82, 2, 1);
  table.messages.length = 0;
  prepare(0, command(COMMAND.READ_DMA_EXT, 1, 1), [[DATA, SECTOR]]);
  await issue(1);
  t.same(table.messages.at(-1), { address: 0xfee0_0000, data: 0x4041 });
});

t.test('no registers, commands or descriptors throw, or hang', { timeout: 60_000 }, async t => {
  const { bar, memory, card, idle } = await lab(t);
  const word = fc.oneof(
    fc.integer({ min: 0, max: 0xff }),
    fc.integer({ min: 0, max: 0xffff_ffff }),
    fc.constantFrom(LIST, TABLES, DATA, 0xe000_0000),
  );
  const step = fc.record({
    where: fc.constantFrom<'register' | 'memory' | 'start'>('register', 'memory', 'start'),
    offset: fc.integer({ min: 0, max: 0x3ff }),
    value: word,
    code: fc.constantFrom(...Object.values(COMMAND), QUEUED.READ, QUEUED.WRITE, 0x63),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async steps => {
      for (const { where, offset, value, code } of steps) {
        if (where === 'register') bar.write(offset & ~3, 4, value);
        else if (where === 'memory') memory.write((offset & 1 ? LIST : TABLES) + (offset & 0xfc), 4, value);
        else {
          memory.write(TABLES, 4, FIS.REGISTER_TO_DEVICE | 0x8000 | (code << 16) | (value << 24));
          memory.write(LIST, 4, (value & 0xff00_0060) | 5 | 0x1_0000);
          memory.write(LIST + 8, 4, TABLES);
          bar.write(PORTS_AT + PORT.CMD, 4, PORT_COMMAND.FRE | PORT_COMMAND.ST);
          bar.write(PORTS_AT + PORT.CI, 4, value | 1);
        }
        bar.read(offset, 4);
      }
      await idle();
      const saved = card.device.save();
      card.device.restore(saved);
      t.same(card.device.save(), saved);
      await idle();
    }),
    { numRuns: 60 },
  );
});
