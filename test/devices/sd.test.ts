import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { blockGraph } from '../../core/block/block.ts';
import { Drives } from '../../core/block/drives.ts';
import type { DriverPort } from '../../core/register/register.ts';
import { type Bench, bench } from '../../core/testing/bench.ts';
import { crc7, identification, specificData } from '../../devices/sd/card-registers.ts';
import { sdCard } from '../../devices/sd/sd-card.ts';
import { sdhciPci } from '../../devices/sd/sdhci.ts';
import { until } from '../until.ts';

t.setTimeout(300_000);

/** How long a busy host may take over a request. */
const BLOCK = 512;
const BLOCKS = 8192;
const TABLE = 0x1000;
const DATA = 0x1_0000;
const ALL = 0x01ff;
const TRANSFER = 2;
const ERRORS = 0xffff;
/** Command register: response of 48 bits, of 136, with busy, and none; with data. */
const R1 = 0x1a;
const R2 = 0x09;
const R3 = 0x02;
const R1B = 0x1b;
const NONE = 0;
const DATA_PRESENT = 0x20;
const MODE = { DMA: 1, COUNT: 2, AUTO12: 4, READ: 0x10, MULTI: 0x20 };

interface Lab {
  readonly bench: Bench;
  readonly port: DriverPort;
  readonly drives: Drives;
  readonly intx: () => boolean;
  image(): Buffer;
}

async function lab(
  t: Test,
  host: Readonly<Record<string, string>> = {},
  card: Readonly<Record<string, string>> = {},
): Promise<Lab> {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-sd-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'card.img');
  const image = Buffer.alloc(BLOCKS * BLOCK);
  for (let block = 0; block < BLOCKS; block++) image.fill(1 + (block % 251), block * BLOCK, (block + 1) * BLOCK);
  writeFileSync(file, image);
  const drives = new Drives(blockGraph());
  const options: [string, string][] = [
    ['id', 'd'],
    ['file', file],
    ['format', 'raw'],
    ['if', 'none'],
  ];
  await drives.add(options, { interface: 'none' });
  const made = bench({ backends: { find: (_kind, id) => drives.graph.backend(id) } });
  t.teardown(() => made.dispose());
  made.machine.start();
  const probe = made.pci(sdhciPci, host);
  probe.device.buses[0]?.plug(sdCard, {}, { drive: 'd', ...card });
  const port = probe.port(0);
  port.write(0x2f, 1, 1);
  port.write(0x2c, 2, 1);
  port.write(0x2c, 2, 7);
  port.write(0x29, 1, 0xf);
  port.write(0x34, 2, ALL);
  port.write(0x36, 2, ERRORS);
  port.write(0x38, 2, ALL);
  return { bench: made, port, drives, intx: () => probe.intx.level, image: () => readFileSync(file) };
}

/** Gives a command. Returns the first word of the response, or undefined where the card did not answer. */
function command({ port }: Lab, index: number, argument = 0, kind = R1, mode = 0): number | undefined {
  port.write(0x30, 4, 0xffff_ffff);
  port.write(0x08, 4, argument >>> 0);
  port.write(0x0c, 4, ((((index << 8) | kind) << 16) | mode) >>> 0);
  return (port.read(0x32, 2) & 1) !== 0 ? undefined : port.read(0x10, 4);
}

function application(made: Lab, address: number, index: number, argument = 0, kind = R1, mode = 0): number | undefined {
  command(made, 55, address << 16);
  return command(made, index, argument, kind, mode);
}

/** The slot's clock and power go with the card. */
function powerUp({ port }: Lab): void {
  port.write(0x2c, 2, 7);
  port.write(0x29, 1, 0xf);
}

/** As a driver does it, up to the transfer state. Returns the card's address. */
function identify(made: Lab): number {
  command(made, 0, 0, NONE);
  command(made, 8, 0x1aa);
  application(made, 0, 41, 0x40ff_8000, R3);
  command(made, 2, 0, R2);
  const address = (command(made, 3) ?? 0) >>> 16;
  command(made, 7, address << 16, R1B);
  command(made, 16, BLOCK);
  return address;
}

async function finished({ port }: Lab): Promise<{ readonly normal: number; readonly error: number }> {
  await until(() => (port.read(0x30, 2) & (TRANSFER | 0x8000)) !== 0);
  return { normal: port.read(0x30, 2), error: port.read(0x32, 2) };
}

function descriptors(
  { bench: { ram } }: Lab,
  list: readonly (readonly [at: number, length: number, bits: number])[],
): void {
  const view = new DataView(ram.bytes.buffer, ram.bytes.byteOffset, ram.bytes.length);
  for (const [index, [at, length, bits]] of list.entries()) {
    view.setUint32(TABLE + 8 * index, (length << 16) | bits, true);
    view.setUint32(TABLE + 8 * index + 4, at, true);
  }
}

t.test('registers of cards carry their checksums, and say how large a card is', t => {
  t.equal(crc7(Uint8Array.of(0x40, 0, 0, 0, 0), 5), 0x4a, 'CMD0, as in section 4.5');
  const cid = identification();
  t.equal(cid[15], (crc7(cid, 15) << 1) | 1);
  const bits = (csd: Uint8Array, high: number, low: number): number => {
    let value = 0;
    for (let bit = high; bit >= low; bit--) value = value * 2 + (((csd[15 - (bit >> 3)] ?? 0) >> (bit & 7)) & 1);
    return value;
  };
  for (const size of [2 ** 22, 2 ** 27, 2 ** 31]) {
    const csd = specificData(size);
    const multiplier = 2 ** (bits(csd, 49, 47) + 2);
    t.equal((bits(csd, 73, 62) + 1) * multiplier * 2 ** bits(csd, 83, 80), size, `${size} bytes`);
  }
  t.equal((bits(specificData(2 ** 35), 69, 48) + 1) * 512 * 1024, 2 ** 35, 'high capacity');
  t.end();
});

t.test('a card is identified, and answers only in its states', async t => {
  const made = await lab(t);
  const { port } = made;
  t.equal(port.read(0x24, 4) & 0x10_0000 ? 1 : 0, 1);
  t.equal(port.read(0xfe, 2), 0x2401);
  command(made, 0, 0, NONE);
  t.equal(command(made, 8, 0x1aa), 0x1aa);
  t.equal(command(made, 8, 0x3aa), undefined, 'two voltages at once');
  t.equal(command(made, 17, 0, R1 | DATA_PRESENT), undefined, 'no data while it is idle');
  t.equal((application(made, 0, 41, 0, R3) ?? 0) >>> 0, 0x00ff_8000, 'an enquiry: not powered up');
  made.bench.clock.advance(1e6);
  t.equal((application(made, 0, 41, 0x40ff_8000, R3) ?? 0) >>> 0, 0x80ff_8000);
  command(made, 2, 0, R2);
  const cid = [12, 8, 4, 0]
    .map(at =>
      port
        .read(0x10 + at, 4)
        .toString(16)
        .padStart(8, '0'),
    )
    .join('');
  t.equal(Buffer.from(cid, 'hex').subarray(2, 9).toString('latin1'), 'XYQEMU!');
  t.equal((command(made, 3) ?? 0) >>> 16, 0x4567);
  t.equal(command(made, 7, 0x1234_0000, R1B), undefined, 'another card');
  t.equal(((command(made, 7, 0x4567_0000, R1B) ?? 0) >> 9) & 15, 3, 'it was standing by');
  t.equal(((command(made, 13, 0x4567_0000) ?? 0) >> 9) & 15, 4, 'and transfers now');
  t.equal(command(made, 5, 0, R1), undefined, 'no SDIO card');
  t.equal((command(made, 13, 0x4567_0000) ?? 0) & (1 << 22), 1 << 22, 'which was an illegal command');
  t.equal((command(made, 13, 0x4567_0000) ?? 0) & (1 << 22), 0, 'and is told once');
  command(made, 16, 513);
  t.equal((command(made, 16, 512) ?? 0) >>> 0, 0x900, 'the length was refused, and told of then');
});

t.test('blocks go by the buffer port, SDMA and ADMA2', async t => {
  const made = await lab(t);
  const { port, bench: host } = made;
  const { bytes } = host.ram;
  identify(made);
  port.write(0x04, 4, (1 << 16) | BLOCK);
  command(made, 17, 5 * BLOCK, R1 | DATA_PRESENT, MODE.READ);
  const words = Array.from({ length: BLOCK / 4 }, () => port.read(0x20, 4));
  t.ok(words.every(word => word === 0x0606_0606));
  t.equal((await finished(made)).normal & TRANSFER, TRANSFER, 'by the port');
  port.write(0x04, 4, (1 << 16) | BLOCK);
  command(made, 24, 6 * BLOCK, R1 | DATA_PRESENT, 0);
  for (let word = 0; word < BLOCK / 4; word++) port.write(0x20, 4, 0x7b7b_7b7b);
  t.equal((await finished(made)).normal & TRANSFER, TRANSFER);
  t.equal(made.image()[6 * BLOCK + 511], 0x7b);

  port.write(0x00, 4, DATA);
  port.write(0x04, 4, (12 << 16) | BLOCK);
  command(made, 18, 16 * BLOCK, R1 | DATA_PRESENT, MODE.DMA | MODE.COUNT | MODE.READ | MODE.MULTI | MODE.AUTO12);
  t.equal(port.read(0x30, 2) & 0xa, 8, 'the engine stops at the boundary of 4 KiB');
  t.equal(made.intx(), true);
  port.write(0x30, 2, 8);
  port.write(0x00, 4, DATA + 8 * BLOCK);
  t.equal((await finished(made)).normal & TRANSFER, TRANSFER, 'by SDMA');
  t.same(Buffer.from(bytes.subarray(DATA, DATA + 12 * BLOCK)), made.image().subarray(16 * BLOCK, 28 * BLOCK));

  port.write(0x28, 1, 0x10);
  port.write(0x58, 4, TABLE);
  bytes.fill(0x31, DATA, DATA + 700).fill(0x32, DATA + 0x2000, DATA + 0x2000 + 3 * BLOCK - 700);
  descriptors(made, [
    [DATA, 700, 0x21],
    [TABLE + 24, 0, 0x31],
    [0, 0, 0],
    [DATA + 0x2000, 3 * BLOCK - 700, 0x23],
  ]);
  port.write(0x04, 4, (3 << 16) | BLOCK);
  command(made, 25, 40 * BLOCK, R1 | DATA_PRESENT, MODE.DMA | MODE.COUNT | MODE.MULTI | MODE.AUTO12);
  t.same(await finished(made).then(({ error }) => error), 0, 'by ADMA2, over a link');
  const expected = Buffer.alloc(3 * BLOCK, 0x32).fill(0x31, 0, 700);
  t.same(made.image().subarray(40 * BLOCK, 43 * BLOCK), expected);
  t.equal(((command(made, 13, 0x4567_0000) ?? 0) >> 9) & 15, 4, 'Auto CMD12 has ended it');
});

t.test('what goes wrong', async t => {
  const made = await lab(t);
  const { port } = made;
  identify(made);
  port.write(0x04, 4, (1 << 16) | BLOCK);
  t.equal((command(made, 17, BLOCKS * BLOCK, R1 | DATA_PRESENT, MODE.READ) ?? 0) >>> 30, 1, 'behind the end');
  port.write(0x2f, 1, 4);
  command(made, 28, 2 ** 21, R1B);
  t.equal(((command(made, 24, 2 ** 21 + BLOCK, R1 | DATA_PRESENT, 0) ?? 0) >>> 26) & 1, 1, 'a protected group');
  port.write(0x2f, 1, 4);
  command(made, 12, 0, R1B);
  port.write(0x04, 4, (1 << 16) | 4);
  command(made, 30, 0, R1 | DATA_PRESENT, MODE.READ);
  t.equal(port.read(0x20, 4), 0x0200_0000, 'of which CMD30 tells');
  command(made, 29, 2 ** 21, R1B);
  t.equal(((command(made, 38, 0, R1B) ?? 0) >>> 28) & 1, 1, 'nothing to erase was named');
  port.write(0x28, 1, 0x10);
  port.write(0x58, 4, TABLE);
  descriptors(made, [[DATA, BLOCK, 0x20]]);
  port.write(0x04, 4, (1 << 16) | BLOCK);
  command(made, 17, 0, R1 | DATA_PRESENT, MODE.DMA | MODE.READ);
  t.same([port.read(0x32, 2), port.read(0x54, 1)], [0x200, 1], 'a descriptor that is not valid');
});

t.test('blocks are erased to zeroes', async t => {
  const made = await lab(t);
  const address = identify(made);
  command(made, 32, 100 * BLOCK);
  command(made, 33, 109 * BLOCK);
  command(made, 38, 0, R1B);
  await finished(made);
  t.equal(((command(made, 13, address << 16) ?? 0) >>> 19) & 1, 0);
  const image = made.image();
  t.ok(image.subarray(100 * BLOCK, 110 * BLOCK).every(byte => byte === 0));
  t.same([image[99 * BLOCK], image[110 * BLOCK]], [1 + 99, 1 + 110], 'and nothing else');
});

t.test('a card can be locked with a password', async t => {
  const made = await lab(t);
  const { port } = made;
  const address = identify(made);
  const lock = (mode: number, password: string): boolean => {
    command(made, 16, 6);
    port.write(0x04, 4, (1 << 16) | 6);
    command(made, 42, 0, R1 | DATA_PRESENT, 0);
    const bytes = [mode, password.length, ...Buffer.from(password, 'latin1')];
    for (let at = 0; at < 6; at++) port.write(0x20 + (at & 3), 1, bytes[at] ?? 0);
    return (((command(made, 13, address << 16) ?? 0) >>> 24) & 1) === 0;
  };
  t.equal(lock(5, 'abcd'), true);
  t.equal(((command(made, 13, address << 16) ?? 0) >>> 25) & 1, 1);
  t.equal(command(made, 17, 0, R1), undefined, 'no blocks while it is locked');
  t.equal(lock(0, 'abce'), false, 'another password');
  t.equal(lock(0, 'abcd'), true);
  t.equal(((command(made, 13, address << 16) ?? 0) >>> 25) & 1, 0);
});

t.test('a card is taken out, and another put in', async t => {
  const made = await lab(t);
  const { port, drives } = made;
  const backend = drives.graph.backend('d');
  const node = backend?.root;
  if (backend === undefined || node === undefined) throw new TypeError('there is no card');
  node.monitorOwned = true;
  identify(made);
  port.write(0x30, 4, 0xffff_ffff);
  await backend.remove();
  backend.device?.changeMedium?.(false);
  t.same([port.read(0x24, 4) & 0x3_0000, port.read(0x30, 2) & 0xc0, made.intx()], [0x2_0000, 0x80, true]);
  powerUp(made);
  t.equal(command(made, 13, 0x4567_0000), undefined);
  backend.insert(node);
  backend.device?.changeMedium?.(true);
  t.equal(port.read(0x30, 2) & 0x40, 0x40);
  powerUp(made);
  t.equal(identify(made), 0x4567);
});

t.test('no register harms it', async t => {
  const made = await lab(t);
  const { port } = made;
  identify(made);
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(0x3f), fc.constantFrom(1, 2, 4), fc.nat(0xffff_ffff)), { maxLength: 40 }),
      writes => {
        for (const [word, size, value] of writes) port.write((word * 4) & ~(size - 1), size, value % 2 ** (8 * size));
        for (let at = 0; at < 0x100; at += 4) port.read(at, 4);
      },
    ),
    { numRuns: 300 },
  );
  port.write(0x2f, 1, 1);
  port.write(0x2c, 2, 7);
  port.write(0x34, 4, 0xffff_ffff);
  t.ok(identify(made) > 0);
});
