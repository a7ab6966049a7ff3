import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { blockGraph } from '../../../core/block/block.ts';
import { Drives } from '../../../core/block/drives.ts';
import type { DeviceType } from '../../../core/device/device-type.ts';
import type { DriverPort } from '../../../core/register/register.ts';
import { type Bench, bench } from '../../../core/testing/bench.ts';
import { megasas, megasasGen2 } from '../../../devices/megasas/megasas.ts';
import { scsiHd } from '../../../devices/scsi/scsi-disk.ts';
import { until } from '../../until.ts';

t.setTimeout(300_000);

/** How long a busy host may take over a request. */
const BLOCK = 512;
const BLOCKS = 2048;
const TARGET = 2;
const REG = {
  STATE: 0xb0,
  IDB: 0x20,
  OSTS: 0x30,
  OMSK: 0x34,
  IQP: 0x40,
  ODCR: 0xa0,
  IQPL: 0xc0,
  IQPH: 0xc4,
  DIAG: 0xf8,
  SEQ: 0xfc,
};
const QUEUES = 0x1000;
const REPLY = 0x2000;
const PRODUCER = 0x3000;
const CONSUMER = 0x3010;
const FRAME = 0x4000;
const SENSE = 0x6000;
const DATA = 0x1_0000;
const READY = 0xb;
const OPERATIONAL = 0xc;
const NO_ANSWER = 0xff;

interface FrameFields {
  readonly command: number;
  readonly target?: number;
  readonly cdb?: readonly number[];
  readonly opcode?: number;
  readonly mailbox?: number;
  readonly length?: number;
  readonly lba?: number;
  readonly flags?: number;
  readonly pieces?: readonly (readonly [address: number, length: number])[];
}

interface Lab {
  readonly bench: Bench;
  readonly port: DriverPort;
  readonly view: DataView;
  readonly intx: () => boolean;
  image(): Buffer;
}

async function lab(t: Test, type: DeviceType = megasas, props: Readonly<Record<string, string>> = {}): Promise<Lab> {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-megasas-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'disk.img');
  const image = Buffer.alloc(BLOCKS * BLOCK);
  for (let block = 0; block < BLOCKS; block++) image.fill(block % 253, block * BLOCK, (block + 1) * BLOCK);
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
  const probe = made.pci(type, props);
  probe.device.buses[0]?.plug(scsiHd, { 'scsi-id': TARGET }, { drive: 'd' });
  const { ram } = made;
  return {
    bench: made,
    port: probe.port(type === megasas ? 0 : 1),
    view: new DataView(ram.bytes.buffer, ram.bytes.byteOffset, ram.bytes.length),
    intx: () => probe.intx.level,
    image: () => readFileSync(file),
  };
}

/** Writes a frame, gives it to the adapter, and returns how it ended. */
async function give({ port, view }: Lab, fields: FrameFields, at = FRAME): Promise<{ status: number; scsi: number }> {
  put(view, fields, at);
  port.write(REG.IQP, 4, at);
  await until(() => view.getUint8(at + 2) !== NO_ANSWER);
  return { status: view.getUint8(at + 2), scsi: view.getUint8(at + 3) };
}

function put(view: DataView, fields: FrameFields, at: number): void {
  const { command, target = TARGET, cdb, opcode, mailbox = 0, length = 0, lba = 0, flags = 0, pieces = [] } = fields;
  for (let byte = 0; byte < 256; byte++) view.setUint8(at + byte, 0);
  view.setUint8(at, command);
  view.setUint8(at + 1, 18);
  view.setUint8(at + 2, NO_ANSWER);
  view.setUint8(at + 4, target);
  view.setUint8(at + 6, cdb?.length ?? 0);
  view.setUint8(at + 7, pieces.length);
  view.setUint32(at + 8, at, true);
  view.setUint16(at + 16, flags, true);
  view.setUint32(at + 20, length, true);
  view.setUint32(at + 24, opcode ?? SENSE, true);
  if (opcode !== undefined) view.setUint16(at + 28, mailbox, true);
  else view.setUint32(at + 32, lba, true);
  for (const [index, byte] of (cdb ?? []).entries()) view.setUint8(at + 32 + index, byte);
  let entry = at + (cdb === undefined ? 40 : 48);
  for (const [address, size] of pieces) {
    view.setUint32(entry, address, true);
    if ((flags & 2) !== 0 || (flags & 0x20) !== 0) entry += 4;
    view.setUint32(entry + 4, size, true);
    entry += (flags & 0x20) !== 0 ? 12 : 8;
  }
}

async function start(made: Lab): Promise<void> {
  const { port, view } = made;
  for (const [at, value] of [
    [QUEUES + 4, 64],
    [QUEUES + 8, REPLY],
    [QUEUES + 16, PRODUCER],
    [QUEUES + 24, CONSUMER],
  ] as const) {
    view.setUint32(at, value, true);
  }
  port.write(REG.OMSK, 4, 0);
  view.setUint32(PRODUCER, 0, true);
  put(view, { command: 0, flags: 1 }, FRAME);
  view.setUint32(FRAME + 24, QUEUES, true);
  port.write(REG.IQP, 4, FRAME);
}

/** After the command that is told of the reset. */
async function ready(made: Lab): Promise<void> {
  await start(made);
  await give(made, { command: 4, cdb: [0, 0, 0, 0, 0, 0], flags: 1 });
}

const state = ({ port }: Lab): number => port.read(REG.STATE, 4) >>> 28;

t.test('the firmware becomes ready, operational, and ready again', async t => {
  const made = await lab(t);
  const { port } = made;
  t.equal(port.read(REG.STATE, 4) & 0x0fff_ffff, 0x0400_0000 | (80 << 16) | 1000, 'MSI-X, elements, commands');
  t.equal(state(made), READY);
  await start(made);
  t.equal(made.view.getUint8(FRAME + 2), 0);
  t.equal(state(made), OPERATIONAL);
  port.write(REG.IDB, 4, 2);
  t.equal(state(made), READY);
  port.write(REG.IDB, 4, 0x20);
  t.equal(state(made), 0xf, 'stopped');
  for (const key of [0, 4, 0xb, 2, 7, 0xd]) port.write(REG.SEQ, 4, key);
  t.equal(port.read(REG.DIAG, 4), 0x80, 'unlocked');
  port.write(REG.DIAG, 4, 4);
  t.same([state(made), port.read(REG.DIAG, 4)], [READY, 0]);
  for (const key of [0, 4, 0xb, 2, 9, 0xd]) port.write(REG.SEQ, 4, key);
  t.equal(port.read(REG.DIAG, 4), 0, 'a wrong key');
});

t.test('replies, and the interrupt for them', async t => {
  const made = await lab(t);
  const { port, view, intx } = made;
  await start(made);
  t.same(await give(made, { command: 4, cdb: [0, 0, 0, 0, 0, 0] }), { status: 0x2d, scsi: 2 }, 'the reset is told of');
  t.same([view.getUint8(SENSE + 2), view.getUint8(SENSE + 12)], [6, 0x29], 'by its sense data');
  t.same([view.getUint32(REPLY, true), view.getUint32(PRODUCER, true)], [FRAME, 1]);
  t.same([intx(), port.read(REG.OSTS, 4)], [true, 0x8000_0001]);
  port.write(REG.ODCR, 4, 1);
  t.same([intx(), port.read(REG.OSTS, 4)], [false, 0]);
  t.same(await give(made, { command: 4, cdb: [0, 0, 0, 0, 0, 0], flags: 1 }), { status: 0, scsi: 0 });
  t.same([view.getUint32(PRODUCER, true), intx()], [1, false], 'none for who looks at the frame');
});

for (const [name, flags] of [
  ['32 bits', 0],
  ['64 bits', 2],
  ['IEEE', 0x20],
] as const) {
  t.test(`blocks are read and written through lists of ${name}`, async t => {
    const made = await lab(t, megasasGen2);
    await ready(made);
    const { ram } = made.bench;
    const pieces = [
      [DATA, 3 * BLOCK],
      [DATA + 0x8000, 5 * BLOCK],
    ] as const;
    t.same(await give(made, { command: 1, length: 8, lba: 77, flags, pieces }), { status: 0, scsi: 0 });
    const read = Buffer.concat(pieces.map(([at, length]) => ram.bytes.slice(at, at + length)));
    t.same(read, made.image().subarray(77 * BLOCK, 85 * BLOCK));
    ram.bytes.fill(0x6b, DATA, DATA + 3 * BLOCK).fill(0x6c, DATA + 0x8000, DATA + 0x8000 + 5 * BLOCK);
    const expected = made
      .image()
      .fill(0x6b, 5 * BLOCK, 8 * BLOCK)
      .fill(0x6c, 8 * BLOCK, 13 * BLOCK);
    t.same(await give(made, { command: 2, length: 8, lba: 5, flags, pieces }), { status: 0, scsi: 0 });
    t.equal(made.image().compare(expected), 0);
    const halves = [
      [DATA, 10],
      [DATA + 0x100, 26],
    ] as const;
    const inquiry = { command: 3, cdb: [0x12, 0, 0, 0, 36, 0], length: 36, flags, pieces: halves };
    t.same(await give(made, inquiry), { status: 0, scsi: 0 });
    t.equal(Buffer.from(ram.bytes.subarray(DATA + 0x100 + 11, DATA + 0x100 + 19)).toString('latin1'), 'HARDDISK');
  });
}

t.test('what is wrong with a frame', async t => {
  const made = await lab(t);
  await ready(made);
  const pieces = [[DATA, 8 * BLOCK]] as const;
  t.equal((await give(made, { command: 9 })).status, 0x01, 'an unknown command');
  t.equal((await give(made, { command: 1, target: 9, length: 8, pieces })).status, 0x0c, 'no such drive');
  t.equal(
    (await give(made, { command: 3, target: 70, cdb: [0, 0, 0, 0, 0, 0] })).status,
    0x0c,
    'no such logical drive',
  );
  t.same(await give(made, { command: 1, length: 9, pieces }), { status: 0x2d, scsi: 2 }, 'too little memory');
  t.same(
    await give(made, { command: 1, length: 8, pieces: [[0, 8 * BLOCK]] }),
    { status: 0x2d, scsi: 2 },
    'no address',
  );
  t.same(
    await give(made, { command: 1, length: 8, lba: BLOCKS - 3, pieces }),
    { status: 0x2d, scsi: 2 },
    'behind the end',
  );
  t.same([made.view.getUint8(SENSE + 2), made.view.getUint8(SENSE + 12)], [5, 0x21]);
  t.equal((await give(made, { command: 5, opcode: 0x0101_0000, pieces: [[DATA, 100]] })).status, 0x03, 'no room');
  t.equal((await give(made, { command: 5, opcode: 0x0101_0000, pieces: [...pieces, ...pieces] })).status, 0x20);
});

t.test('direct commands tell of the adapter and its drives', async t => {
  const made = await lab(t);
  await ready(made);
  const { view } = made;
  const { bytes } = made.bench.ram;
  const ask = async (opcode: number, length: number, mailbox = 0): Promise<number> => {
    bytes.fill(0, DATA, DATA + 0x2000);
    return (await give(made, { command: 5, opcode, mailbox, pieces: [[DATA, length]] })).status;
  };
  const text = (at: number, length: number): string =>
    Buffer.from(bytes.subarray(DATA + at, DATA + at + length))
      .toString('latin1')
      .replace(/\0.*/s, '');
  t.equal(await ask(0x0101_0000, 0x800), 0);
  t.same([view.getUint16(DATA, true), view.getUint16(DATA + 2, true)], [0x1000, 0x0060]);
  t.same([text(1344, 80), text(1424, 32)], ['LSI MegaRAID SAS 8708EM2', 'QEMU123456']);
  t.same([view.getUint16(DATA + 1472, true), view.getUint16(DATA + 1478, true)], [1, 1]);
  t.equal(await ask(0x0201_0000, 0x1000), 0);
  t.same([view.getUint32(DATA, true), view.getUint32(DATA + 4, true), view.getUint16(DATA + 8, true)], [32, 1, TARGET]);
  t.equal(await ask(0x0202_0000, 512, TARGET), 0);
  t.equal(text(4 + 16, 13), 'QEMU HARDDISK');
  t.same([view.getUint32(DATA + 232, true), view.getUint16(DATA + 184, true)], [BLOCKS, 0x18]);
  t.equal(await ask(0x0202_0000, 512, TARGET + 1), 0x0c);
  t.equal(await ask(0x0301_0000, 1032), 0);
  t.same([view.getUint32(DATA, true), view.getUint8(DATA + 8), view.getUint32(DATA + 16, true)], [1, TARGET, BLOCKS]);
  t.equal(await ask(0x0301_0100, 75), 0);
  t.same([view.getUint32(DATA + 4, true), view.getUint8(DATA + 11)], [1, TARGET]);
  t.equal(await ask(0x0302_0000, 384, TARGET), 0);
  t.same([view.getUint8(DATA), view.getUint32(DATA + 256, true)], [TARGET, BLOCKS]);
  t.equal(await ask(0x0401_0000, 4096), 0);
  t.equal(view.getUint32(DATA, true), 32 + 288 + 256);
  bytes.fill(7, DATA, DATA + 64);
  t.equal((await give(made, { command: 5, opcode: 0x0102_0200, pieces: [[DATA, 64]] })).status, 0);
  t.equal(await ask(0x0102_0100, 64), 0);
  t.equal(view.getUint8(DATA + 8), 7, 'properties are kept');
  t.equal((await give(made, { command: 5, opcode: 0x0110_1000 })).status, 0, 'all caches are flushed');
  t.equal((await give(made, { command: 5, opcode: 0x0105_0000 })).status, 0);
  t.equal(state(made), READY, 'shut down');
});

t.test('drives in JBOD mode are no logical drives', async t => {
  const made = await lab(t, megasasGen2, { use_jbod: 'on' });
  await start(made);
  t.equal(
    (await give(made, { command: 3, cdb: [0x12, 0, 0, 0, 36, 0], length: 36, pieces: [[DATA, 36]] })).status,
    0x0c,
  );
  t.equal((await give(made, { command: 4, cdb: [0x12, 0, 0, 0, 36, 0], length: 36, pieces: [[DATA, 36]] })).status, 0);
  t.equal((await give(made, { command: 5, opcode: 0x0301_0000, pieces: [[DATA, 1032]] })).status, 0);
  t.equal(made.view.getUint32(DATA, true), 0);
});

t.test('an event is waited for, comes, and can be given up', async t => {
  const made = await lab(t);
  await start(made);
  const { view, port } = made;
  const wait = FRAME + 0x1000;
  put(view, { command: 5, opcode: 0x0104_0500, pieces: [[DATA, 256]] }, wait);
  port.write(REG.IQP, 4, wait);
  t.equal(view.getUint8(wait + 2), NO_ANSWER);
  put(view, { command: 6 }, FRAME);
  view.setUint32(FRAME + 24, wait, true);
  view.setUint32(FRAME + 32, wait, true);
  port.write(REG.IQP, 4, FRAME);
  t.same([view.getUint8(FRAME + 2), view.getUint8(wait + 2)], [0, 0x2e], 'aborted');
});

t.test('no frame and no register harms it', async t => {
  const made = await lab(t);
  const { port, view } = made;
  const { bytes } = made.bench.ram;
  await start(made);
  fc.assert(
    fc.property(
      fc.constantFrom(...Object.values(REG)),
      fc.nat(0xffff_ffff),
      fc.uint8Array({ minLength: 64, maxLength: 256 }),
      (register, value, frame) => {
        bytes.set(frame, FRAME);
        view.setUint8(FRAME, (frame[0] ?? 0) % 8);
        port.write(register, 4, register === REG.IQP ? FRAME : value >>> 0);
        port.write(REG.IQP, 4, FRAME);
        port.write(REG.IQP, 4, value >>> 0);
      },
    ),
    { numRuns: 300 },
  );
  port.write(REG.IDB, 4, 2);
  await start(made);
  t.equal(state(made), OPERATIONAL);
});
