import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { blockGraph } from '../../../core/block/block.ts';
import { Drives } from '../../../core/block/drives.ts';
import type { BlockNode } from '../../../core/block/node.ts';
import type { DriverPort } from '../../../core/register/register.ts';
import { bench } from '../../../core/testing/bench.ts';
import { lsi53c810, lsi53c895a } from '../../../devices/lsi53c895a/lsi53c895a.ts';
import { scsiHd } from '../../../devices/scsi/scsi-disk.ts';
import { until } from '../../until.ts';

t.setTimeout(300_000);

/** How long a busy host may take over a request. */
const BLOCK = 512;
const TARGET = 3;
const REG = { SCNTL1: 1, SCID: 4, SFBR: 8, DSTAT: 0x0c, DSA: 0x10, ISTAT0: 0x14, ISTAT1: 0x15, TEMP: 0x1c };
const REG2 = { DBC: 0x24, DNAD: 0x28, DSP: 0x2c, DSPS: 0x30, SCRATCHA: 0x34, DIEN: 0x39, DCNTL: 0x3b, SIEN0: 0x40 };
const REG3 = { SIST0: 0x42, SIST1: 0x43, CCNTL1: 0x57, SCRATCHB: 0x5c };
const SRUN = 0x02;
const SIR = 0x04;
const DONE = 0x600d;

// Memory: the program, its table of CDB, messages and status, and the data.
const SCRIPT = 0x1_0000;
const TABLE = 0x2_0000;
const CDB = TABLE;
const IDENTIFY = TABLE + 0x20;
const STATUS = TABLE + 0x30;
const MESSAGE = TABLE + 0x38;
const DATA = 0x3_0000;

/** Phases as instructions have them. */
const PHASE = { OUT: 0, IN: 1, COMMAND: 2, STATUS: 3, MESSAGE_OUT: 6, MESSAGE_IN: 7 };
const move = (phase: number, count: number, address: number): number[] => [(phase << 24) | count, address];
const select = (target: number, otherwise: number): number[] => [0x4100_0000 | (target << 16), otherwise];
const interrupt = (code: number): number[] => [0x9808_0000, code];
const jump = (to: number): number[] => [0x8008_0000, to];
/** Jumps where the phase is (or is not) the one given. */
const jumpIf = (phase: number, to: number, sense = true): number[] => [
  (0x8002_0000 | (sense ? 1 << 19 : 0) | (phase << 24)) >>> 0,
  to,
];
const waitReselect = (otherwise: number): number[] => [0x5000_0000, otherwise];
const clearAck = [0x6000_0040, 0];
const disconnect = [0x4800_0000, 0];

interface Chip {
  readonly lab: ReturnType<typeof bench>;
  readonly port: DriverPort;
  readonly device: { save(): unknown; restore(saved: never): void };
  readonly drives: Drives;
  readonly ram: Uint8Array;
  readonly view: DataView;
  image(): Buffer;
  intx(): boolean;
  /** Puts a program into memory and starts it. */
  run(program: readonly number[]): void;
  reg(offset: number, size?: 1 | 2 | 4): number;
}

async function chip(t: Test, type = lsi53c895a): Promise<Chip> {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-lsi-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'disk.img');
  const image = Buffer.alloc(1024 * BLOCK);
  for (let block = 0; block < 1024; block++) image.fill(block % 253, block * BLOCK, (block + 1) * BLOCK);
  writeFileSync(file, image);
  const drives = new Drives(blockGraph());
  await drives.add(
    [
      ['id', 'd'],
      ['file', file],
      ['format', 'raw'],
      ['if', 'none'],
    ],
    { interface: 'none' },
  );
  const lab = bench({ backends: { find: (_kind, id) => drives.graph.backend(id) } });
  t.teardown(() => lab.dispose());
  lab.machine.start();
  const probe = lab.pci(type);
  const [bus] = probe.device.buses;
  bus?.plug(scsiHd, { 'scsi-id': TARGET }, { drive: 'd' });
  const port = probe.port(1);
  const { bytes, view } = lab.ram;
  return {
    lab,
    port,
    device: probe.device,
    drives,
    ram: bytes,
    view,
    image: () => readFileSync(file),
    intx: () => probe.intx.level,
    run(program) {
      for (const [index, word] of program.entries()) view.setUint32(SCRIPT + 4 * index, word >>> 0, true);
      port.write(REG2.DIEN, 1, SIR);
      port.write(REG2.DSP, 4, SCRIPT);
    },
    reg: (offset, size = 1) => port.read(offset, size),
  };
}

/** A whole command: selection, identification, CDB, data, status, end; targets may leave and come back meanwhile. */
function command(phase: number, bytes: number): number[] {
  const start = [...select(TARGET, SCRIPT + 0x400), ...move(PHASE.MESSAGE_OUT, 1, IDENTIFY)];
  const cdb = move(PHASE.COMMAND, 10, CDB);
  const at = (words: number): number => SCRIPT + 4 * words;
  const body = start.length + cdb.length;
  // Dispatch by phase: 4 jumps, then the pieces.
  const data = body + 8;
  const status = data + 4;
  const message = status + 4;
  const finish = message + 10;
  return [
    ...start,
    ...cdb,
    ...jumpIf(phase, at(data)),
    ...jumpIf(PHASE.STATUS, at(status)),
    ...jumpIf(PHASE.MESSAGE_IN, at(message)),
    ...interrupt(0xbad),
    ...move(phase, bytes, DATA),
    ...jump(at(body)),
    ...move(PHASE.STATUS, 1, STATUS),
    ...jump(at(message)),
    ...move(PHASE.MESSAGE_IN, 1, MESSAGE),
    // COMMAND COMPLETE ends; SAVE DATA POINTER and DISCONNECT wait for the target to come back; IDENTIFY is it.
    ...[0x800c_0000, at(finish)],
    ...[0x800c_0004, at(finish + 4)],
    ...clearAck,
    ...jump(at(body)),
    ...disconnect,
    ...interrupt(DONE),
    ...disconnect,
    ...waitReselect(SCRIPT + 0x400),
    ...jump(at(body)),
  ];
}

function read10(c: Chip, lba: number, blocks: number): void {
  c.ram.set([0x28, 0, 0, 0, lba >>> 8, lba & 0xff, 0, blocks >>> 8, blocks & 0xff, 0], CDB);
  c.ram[IDENTIFY] = 0x80;
  c.ram[STATUS] = 0xff;
  c.ram[MESSAGE] = 0xff;
}

/** Waits for the chip's interrupt. */
async function interrupted(c: Chip): Promise<void> {
  await until(() => c.intx());
}

/** Runs a command to its end, through the unit attention of the reset if there is one. */
async function complete(c: Chip, program: readonly number[]): Promise<number> {
  c.run(program);
  await interrupted(c);
  if (c.reg(REG2.DSPS, 4) !== DONE) {
    throw new Error(`stopped at ${c.reg(REG2.DSP, 4).toString(16)}, SIST ${c.reg(REG3.SIST0, 2).toString(16)}`);
  }
  if ((c.reg(REG.DSTAT) & SIR) === 0) throw new Error('no interrupt of the program');
  return c.ram[STATUS] ?? 0xff;
}

/** TEST UNIT READY until it is. */
async function ready(c: Chip): Promise<void> {
  read10(c, 0, 0);
  c.ram.fill(0, CDB, CDB + 10);
  while ((await complete(c, command(PHASE.IN, 1))) !== 0) c.ram[STATUS] = 0xff;
}

t.test('registers: identities, reset values, and a software reset', async t => {
  const c = await chip(t);
  t.equal(c.reg(0x0c, 4) & 0xe2f0_fffd, 0x0200_0080, 'what drivers look for');
  t.same([c.reg(0), c.reg(REG.SCID), c.reg(0x4a), c.reg(0x52), c.reg(0x60)], [0xc0, 7, 0x80, 0xe0, 0]);
  c.port.write(REG2.SCRATCHA, 4, 0x1234_5678);
  c.port.write(REG2.SCRATCHA + 1, 1, 0xab);
  t.equal(c.reg(REG2.SCRATCHA, 4), 0x1234_ab78);
  c.port.write(0x9c, 4, 0xdead_beef);
  t.equal(c.reg(0x9c, 4), 0xdead_beef, 'the last scratch register');
  c.port.write(REG.ISTAT0, 1, 0x40);
  t.equal(c.reg(REG2.SCRATCHA, 4), 0);
  t.equal(c.reg(0xe8), 0xff, 'nothing is there');
  t.equal(bench().pci(lsi53c810).readConfig(2, 2), 1);
});

t.test('the processor: arithmetic, calls, moves, loads and stores', async t => {
  const c = await chip(t);
  const at = (words: number): number => SCRIPT + 4 * words;
  c.view.setUint32(DATA, 0x0403_0201, true);
  c.port.write(REG.DSA, 4, DATA);
  c.run([
    ...[0x7834_ff00, 0], // SCRATCHA0 = 0xff
    ...[0x7e34_0200, 0], // + 2, which carries
    ...[0x7f35_0000, 0], // SCRATCHA1 += carry
    ...[0x7a36_f000, 0], // SCRATCHA2 |= 0xf0
    ...[0x7936_0000, 0], // and left by one, with no carry
    ...[0x8808_0000, at(20)], // call
    ...[0xe15c_0004, DATA], // load SCRATCHB
    ...[0xe05c_0004, DATA + 8], // store it
    ...interrupt(1),
    ...[0, 0],
    ...[0xc000_0008, DATA, DATA + 16], // memory move
    ...[0x9008_0000, 0], // return
  ]);
  t.equal(c.reg(REG2.DSPS, 4), 1);
  t.equal(c.reg(REG2.SCRATCHA, 4), 0x00e0_0101);
  t.equal(c.view.getUint32(DATA + 8, true), 0x0403_0201);
  t.equal(c.view.getUint32(DATA + 16, true), 0x0403_0201);
  t.equal(c.reg(REG.ISTAT1) & SRUN, 0);
  t.equal(c.intx(), true);
  c.reg(REG.DSTAT);
  t.equal(c.intx(), false);
});

t.test('single steps, illegal instructions, and a program without end', async t => {
  const c = await chip(t);
  c.port.write(REG2.DCNTL, 1, 0x10);
  c.run([...[0x7834_0100, 0], ...[0x7834_0200, 0], ...interrupt(2)]);
  t.equal(c.reg(REG2.SCRATCHA), 1);
  t.equal(c.reg(REG.DSTAT) & 0x08, 0x08, 'SSI');
  c.port.write(REG2.DCNTL, 1, 0x14);
  t.equal(c.reg(REG2.SCRATCHA), 2);
  c.port.write(REG2.DCNTL, 1, 0);
  c.run([0xb808_0000, 0]);
  t.equal(c.reg(REG.DSTAT) & 0x01, 0x01, 'IID');
  c.run([...jump(SCRIPT)]);
  t.equal(c.reg(REG3.SIST0) & 0x04, 0x04, 'unexpected disconnect');
});

t.test('a target that is not there does not answer', async t => {
  const c = await chip(t);
  c.run([...select(5, SCRIPT + 0x400), ...move(PHASE.MESSAGE_OUT, 1, IDENTIFY)]);
  t.equal(c.reg(REG3.SIST1) & 0x04, 0x04, 'selection timeout');
  t.equal(c.reg(REG.SCNTL1) & 0x10, 0, 'not connected');
});

t.test('reads and writes', async t => {
  const c = await chip(t);
  await ready(c);
  read10(c, 300, 500);
  t.equal(await complete(c, command(PHASE.IN, 500 * BLOCK)), 0);
  t.same(Buffer.from(c.ram.subarray(DATA, DATA + 500 * BLOCK)), c.image().subarray(300 * BLOCK, 800 * BLOCK));
  t.equal(c.ram[MESSAGE], 0, 'COMMAND COMPLETE');
  c.ram.fill(0xa5, DATA, DATA + 400 * BLOCK);
  read10(c, 7, 400);
  c.ram[CDB] = 0x2a;
  t.equal(await complete(c, command(PHASE.OUT, 400 * BLOCK)), 0);
  t.ok(
    c
      .image()
      .subarray(7 * BLOCK, 407 * BLOCK)
      .every(byte => byte === 0xa5),
  );
  t.equal(c.image()[407 * BLOCK], 407 % 253);
});

t.test('a target that takes its time leaves the bus, and comes back with data or with an error', async t => {
  const c = await chip(t);
  await ready(c);
  const node = c.drives.graph.backend('d')?.root as BlockNode;
  const { readv } = node;
  node.readv = async (...args) => {
    await new Promise(resolve => setImmediate(resolve));
    await readv.apply(node, args);
  };
  read10(c, 20, 600);
  t.equal(await complete(c, command(PHASE.IN, 600 * BLOCK)), 0);
  t.same(Buffer.from(c.ram.subarray(DATA, DATA + 600 * BLOCK)), c.image().subarray(20 * BLOCK, 620 * BLOCK));
  node.readv = async () => {
    await new Promise(resolve => setImmediate(resolve));
    throw new Error('no luck');
  };
  read10(c, 20, 1);
  t.equal(await complete(c, command(PHASE.IN, BLOCK)), 2, 'CHECK CONDITION');
  node.readv = readv;
});

t.test('a command that waits for its data is saved and goes on', async t => {
  const c = await chip(t);
  await ready(c);
  const node = c.drives.graph.backend('d')?.root as BlockNode;
  const { readv } = node;
  node.readv = () => new Promise(() => {});
  read10(c, 20, 2);
  c.run(command(PHASE.IN, 2 * BLOCK));
  t.equal(c.intx(), false);
  const devices = [...c.lab.machine.devices()];
  const saved = devices.map(device => device.save());
  node.readv = readv;
  c.lab.machine.stop();
  for (const [index, device] of devices.entries()) device.restore(saved[index] ?? null);
  c.lab.machine.start();
  await interrupted(c);
  t.equal(c.reg(REG2.DSPS, 4), DONE);
  t.equal(c.ram[STATUS], 0);
  t.same(Buffer.from(c.ram.subarray(DATA, DATA + 2 * BLOCK)), c.image().subarray(20 * BLOCK, 22 * BLOCK));
});

t.test('a bus reset takes commands away', async t => {
  const c = await chip(t);
  await ready(c);
  const node = c.drives.graph.backend('d')?.root as BlockNode;
  const { readv } = node;
  node.readv = () => new Promise(() => {});
  read10(c, 20, 1);
  c.run(command(PHASE.IN, BLOCK));
  c.port.write(REG.SCNTL1, 1, 0x08);
  t.equal(c.reg(REG3.SIST0) & 0x02, 0x02, 'RST');
  c.port.write(REG.SCNTL1, 1, 0);
  c.port.write(REG.ISTAT0, 1, 0x40);
  node.readv = readv;
  read10(c, 20, 1);
  t.equal(await complete(c, command(PHASE.IN, BLOCK)), 2, 'the reset is told of');
});

t.test('no program and no access throws, or goes on for ever', async t => {
  const c = await chip(t);
  const word = fc.oneof(
    fc.nat(0xffff_ffff),
    fc.constantFrom(
      ...select(TARGET, SCRIPT),
      ...move(PHASE.MESSAGE_OUT, 3, IDENTIFY),
      ...move(PHASE.COMMAND, 10, CDB),
    ),
    fc.constantFrom(
      ...move(PHASE.IN, 512, DATA),
      ...move(PHASE.STATUS, 1, STATUS),
      ...move(PHASE.MESSAGE_IN, 1, MESSAGE),
    ),
    fc.constantFrom(0xc0ff_ffff, 0xe110_0004, 0x4800_0000, 0x5000_0000, 0x5800_0008, 0x6000_0448, SCRIPT, DATA, 0),
  );
  const access = fc.record({ offset: fc.nat(0xff), size: fc.constantFrom(1, 2, 4), value: fc.nat(0xffff_ffff) });
  fc.assert(
    fc.property(
      fc.array(word, { minLength: 2, maxLength: 40 }),
      fc.array(access, { maxLength: 12 }),
      fc.uint8Array({ minLength: 16, maxLength: 16 }),
      (program, accesses, table) => {
        c.ram.set(table, CDB);
        c.ram.set(table, IDENTIFY);
        c.run(program);
        for (const { offset, size, value } of accesses) {
          c.port.read(offset, size as 1);
          c.port.write(offset, size as 1, value);
        }
        c.port.write(REG.ISTAT0, 1, 0x40);
      },
    ),
    { numRuns: 120 },
  );
  await ready(c);
  read10(c, 1, 1);
  t.equal(await complete(c, command(PHASE.IN, BLOCK)), 0, 'after a reset all is well');
});
