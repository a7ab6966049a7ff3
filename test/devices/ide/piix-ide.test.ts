import fs from 'node:fs';
import fc from 'fast-check';
import t from 'tap';
import { ideCd, ideHd } from '../../../devices/ide/ide-drive.ts';
import { piix3Ide } from '../../../devices/ide/piix-ide.ts';
import { COMMAND, REG, STATUS } from '../../../devices/ide/task-file.ts';
import { DISK_SECTORS, diskLab, SECTOR, settle } from './lab.ts';

const BASE = 0x1f0;
const CONTROL = 0x3f6;
const PRDT = 0x1000;
const DATA = 0x2000;
const LBA = 0x40;
const READY = STATUS.DRDY | STATUS.DSC;
const BM = { COMMAND: 0, STATUS: 2, TABLE: 4, START: 1, ACTIVE: 1, INTERRUPT: 4 } as const;

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
  const card = table.pci(piix3Ide);
  const [bus] = card.device.ideBuses;
  bus?.plug(cd ? ideCd : ideHd, { unit: '0' }, { drive: disk.backend, ...props });
  const { ports, memory } = table.machine;
  const master = card.port(4);
  const line = card.device.wires.get('channel0');
  const write = (register: number, value: number): void => ports.write(BASE + register, 1, value);
  return {
    ...disk,
    card,
    ports,
    memory,
    master,
    write,
    read: (register: number): number => ports.read(BASE + register, 1),
    irq: (): boolean => line?.level ?? false,
    /** Issues an LBA28 command; a disk that must be asked is waited for. */
    async command(command: number, lba = 0, count = 1, features = 0): Promise<void> {
      write(REG.DEVICE, LBA | (lba >> 24));
      write(REG.ERROR, features);
      write(REG.COUNT, count);
      write(REG.LBA_LOW, lba);
      write(REG.LBA_MID, lba >> 8);
      write(REG.LBA_HIGH, lba >> 16);
      write(REG.STATUS, command);
      await disk.idle();
    },
    /** Starts the engine, and waits for the disk. */
    async start(command: number): Promise<void> {
      master.write(BM.COMMAND, 1, command);
      await disk.idle();
    },
    /** Reads the data register; after the last word of a block the drive may fetch the next one. */
    async words(count: number): Promise<Buffer> {
      const bytes = Buffer.alloc(2 * count);
      for (let at = 0; at < count; at++) bytes.writeUInt16LE(ports.read(BASE, 2), 2 * at);
      await disk.idle();
      return bytes;
    },
    /** One region after the other, the last one marked. */
    regions(...list: (readonly [address: number, length: number])[]): void {
      list.forEach(([address, length], index) => {
        memory.write(PRDT + 8 * index, 4, address);
        memory.write(PRDT + 8 * index + 4, 4, (length & 0xffff) + (index === list.length - 1 ? 2 ** 31 : 0));
      });
      master.write(BM.COMMAND, 1, 0);
      master.write(BM.STATUS, 1, BM.INTERRUPT);
      master.write(BM.TABLE, 4, PRDT);
    },
  };
}

t.test('IDENTIFY tells who the drive is, and ends with one interrupt', async t => {
  const { command, words, irq, read } = await lab(t, { props: { serial: 'testdisk', ver: 'version' } });
  await command(COMMAND.IDENTIFY);
  t.equal(irq(), true);
  t.equal(read(REG.STATUS), READY | STATUS.DRQ);
  t.equal(irq(), false, 'reading Status acknowledges');
  const data = await words(256);
  t.equal(read(REG.STATUS), READY);
  const text = (word: number, length: number): string =>
    data
      .subarray(2 * word, 2 * word + length)
      .swap16()
      .toString('latin1')
      .trim();
  t.equal(text(10, 20), 'testdisk');
  t.equal(text(23, 8), 'version');
  t.equal(text(27, 40), 'QEMU HARDDISK');
  t.equal(data.readUInt32LE(120), DISK_SECTORS);
});

t.test('sectors are read one by one, by LBA and by CHS, and in groups', async t => {
  const { command, words, read, write, irq, idle } = await lab(t);
  await command(COMMAND.READ_SECTORS, 100, 2);
  for (const sector of [100, 101]) {
    t.equal(irq(), true);
    t.equal(read(REG.STATUS), READY | STATUS.DRQ);
    t.equal((await words(256)).readUInt32LE(0), sector);
  }
  t.equal(read(REG.STATUS), READY);
  await command(COMMAND.SET_MULTIPLE, 0, 8);
  await command(COMMAND.READ_MULTIPLE, 4, 12);
  t.equal((await words(8 * 256)).readUInt32LE(7 * SECTOR), 11);
  t.equal((await words(4 * 256)).readUInt32LE(3 * SECTOR), 15, 'the rest is a smaller group');
  t.equal(read(REG.STATUS), READY);
  // The geometry that is guessed for the size: 16 heads of 63 sectors.
  write(REG.DEVICE, 1);
  write(REG.COUNT, 1);
  write(REG.LBA_LOW, 3);
  write(REG.LBA_MID, 2);
  write(REG.LBA_HIGH, 0);
  write(REG.STATUS, COMMAND.READ_SECTORS);
  await idle();
  t.equal((await words(256)).readUInt32LE(0), (2 * 16 + 1) * 63 + 2);
  await command(COMMAND.READ_SECTORS, DISK_SECTORS, 1);
  t.equal(read(REG.STATUS), STATUS.DRDY | STATUS.ERR, 'nothing lies behind the end');
});

t.test('the bus master scatters and gathers, and tells where a table does not fit', async t => {
  const { command, start, regions, memory, master, read, irq, file } = await lab(t);
  regions([DATA, 512], [DATA + 0x1000, 1536]);
  await command(COMMAND.READ_DMA, 7, 4);
  t.equal(read(REG.STATUS), READY | STATUS.DRQ, 'the drive waits for the engine');
  await start(9);
  t.equal(master.read(BM.STATUS, 1), BM.INTERRUPT);
  t.equal(irq(), true);
  t.same(
    [DATA, DATA + 0x1000, DATA + 0x1400].map(at => memory.read(at, 4)),
    [7, 8, 10],
  );

  regions([DATA, 1024]);
  await command(COMMAND.READ_DMA, 7, 1);
  await start(9);
  t.equal(master.read(BM.STATUS, 1), BM.INTERRUPT | BM.ACTIVE, 'a table that is too long leaves the engine active');

  regions([DATA, 512]);
  read(REG.STATUS);
  await command(COMMAND.READ_DMA, 7, 2);
  await start(9);
  t.equal(master.read(BM.STATUS, 1), 0, 'one that is too short ends without an interrupt');
  t.equal(irq(), false);

  regions([DATA, 512]);
  memory.write(DATA, 4, 0xfeed_f00d);
  await command(COMMAND.WRITE_DMA, 9, 1);
  await start(1);
  t.equal(fs.readFileSync(file).readUInt32LE(9 * SECTOR), 0xfeed_f00d);
});

t.test('software reset clears the registers and shows the signature', async t => {
  const { command, ports, read } = await lab(t);
  await command(COMMAND.READ_SECTORS, 0x123456, 1);
  ports.write(CONTROL, 1, 4);
  ports.write(CONTROL, 1, 0);
  t.same([1, 2, 3, 4, 5, 6, 7].map(read), [1, 1, 1, 0, 0, 0xa0, READY]);
});

t.test('a failed write waits for the machine to go on', async t => {
  const rules = '[inject-error]\nevent = "write_aio"\nerrno = "28"\nonce = "on"\n';
  const { command, start, regions, master, memory, read, irq, events, card, table, file } = await lab(t, {
    debug: rules,
    props: { werror: 'stop' },
  });
  table.machine.start();
  regions([DATA, 512]);
  memory.write(DATA, 4, 0xabcd_ef01);
  await command(COMMAND.WRITE_DMA, 3, 1);
  await start(1);
  t.same(events, ['BLOCK_IO_ERROR']);
  t.equal(irq(), false, 'the guest hears nothing');
  table.machine.stop('io-error');
  const saved = card.device.save();
  card.device.reset();
  card.device.restore(saved);
  table.machine.start();
  await settle(() => irq());
  t.equal(read(REG.STATUS), READY);
  t.equal(master.read(BM.STATUS, 1), BM.INTERRUPT);
  t.equal(fs.readFileSync(file).readUInt32LE(3 * SECTOR), 0xabcd_ef01);
});

t.test('a transfer goes on after its state was saved and restored', async t => {
  const { command, words, read, card } = await lab(t);
  await command(COMMAND.READ_SECTORS, 5, 2);
  const first = await words(100);
  const saved = structuredClone(card.device.save());
  const rest = await words(156);
  card.device.reset();
  card.device.restore(saved);
  t.same(await words(156), rest);
  t.equal(first.readUInt32LE(0), 5);
  t.equal((await words(256)).readUInt32LE(0), 6);
  t.equal(read(REG.STATUS), READY);
});

t.test('a CD drive reports a new medium in steps', async t => {
  const { command, ports, words, read, events, backend, idle } = await lab(t, { cd: true });
  const packet = async (...bytes: number[]): Promise<void> => {
    await command(COMMAND.PACKET, 0xff00);
    for (let at = 0; at < 12; at += 2) ports.write(BASE, 2, (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8));
    await idle();
  };
  const sense = async (): Promise<number[]> => {
    await packet(0x03, 0, 0, 0, 18);
    const bytes = await words(9);
    return [bytes[2] ?? 0, bytes[12] ?? 0];
  };
  await command(COMMAND.IDENTIFY);
  t.same([read(REG.LBA_MID), read(REG.LBA_HIGH)], [0x14, 0xeb], 'a host that looks for a disk learns what it is');
  await packet(0x28, 0, 0, 0, 0, 3, 0, 0, 1);
  t.equal((await words(1024)).readUInt32LE(0), 12);
  await packet(0x1b, 0, 0, 0, 2);
  t.same(events, ['DEVICE_TRAY_MOVED']);
  await packet(0x00);
  t.equal(read(REG.ERROR), 0x20, 'not ready with the tray open');
  backend.device?.changeMedium?.(true);
  t.equal(events.length, 2);
  await packet(0x00);
  t.same(await sense(), [2, 0x3a]);
  await packet(0x00);
  t.same(await sense(), [6, 0x28]);
  await packet(0x00);
  t.equal(read(REG.STATUS), READY);
});

t.test('a part of a CD that the host reads without looking up is there as a whole', async t => {
  const { command, ports, words, read, irq, idle } = await lab(t, { cd: true });
  const LIMIT = 5120;
  for (const [size, cdb] of [
    [2048, [0x28, 0, 0, 0, 0, 7, 0, 0, 8]],
    [2352, [0xbe, 0, 0, 0, 0, 7, 0, 0, 8, 0xf8]],
  ] as const) {
    await command(COMMAND.PACKET, LIMIT << 8);
    for (let at = 0; at < 12; at += 2) ports.write(BASE, 2, (cdb[at] ?? 0) | ((cdb[at + 1] ?? 0) << 8));
    await idle();
    const parts: Buffer[] = [];
    for (let left = 8 * size; left > 0; left -= LIMIT) {
      t.equal(irq(), true);
      t.equal(read(REG.STATUS), READY | STATUS.DRQ);
      t.equal(read(REG.LBA_MID) | (read(REG.LBA_HIGH) << 8), Math.min(left, LIMIT));
      parts.push(await words(Math.min(left, LIMIT) / 2));
    }
    t.equal(read(REG.STATUS), READY);
    const data = Buffer.concat(parts);
    const head = size - 2048 === 0 ? 0 : 16;
    t.same(
      [0, 1, 2, 7].map(block => data.readUInt32LE(block * size + head)),
      [28, 32, 36, 56],
    );
    if (head !== 0) t.equal(data.toString('hex', 3 * size, 3 * size + 16), '00ffffffffffffffffffff0000020a01');
  }
});

t.test('no sequence of accesses throws, or hangs', { timeout: 60_000 }, async t => {
  const { ports, master, card, regions, idle } = await lab(t);
  regions([DATA, 0], [0xffff_0000, 0], [PRDT, 0]);
  const access = fc.record({
    port: fc.oneof(
      fc.integer({ min: 0, max: 7 }).map(at => BASE + at),
      fc.constant(CONTROL),
      fc.constant(-1),
    ),
    size: fc.constantFrom(1, 2, 4),
    value: fc.oneof(fc.integer({ min: 0, max: 255 }), fc.constantFrom(...Object.values(COMMAND))),
    write: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(access, { maxLength: 60 }), async list => {
      for (const { port, size, value, write } of list) {
        if (port < 0) master.write(value & 2, 1, value);
        else if (write) ports.write(port, size, value);
        else ports.read(port, size);
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
