import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { blockGraph } from '../../../core/block/block.ts';
import { Drives } from '../../../core/block/drives.ts';
import type { BlockNode } from '../../../core/block/node.ts';
import type { Registers } from '../../../core/register/register.ts';
import { ScsiBus } from '../../../core/scsi/scsi-bus.ts';
import { type Bench, bench } from '../../../core/testing/bench.ts';
import { pvscsi } from '../../../devices/pvscsi/pvscsi.ts';
import { COMMAND, COMMAND_STATUS, HOST_STATUS, pvscsiRegisters } from '../../../devices/pvscsi/registers.ts';
import { scsiHd } from '../../../devices/scsi/scsi-disk.ts';
import { until } from '../../until.ts';

t.setTimeout(300_000);

const BLOCK = 512;
const BLOCKS = 2048;
const TARGET = 2;
const PAGE = 4096;
const [STATE, REQUESTS, COMPLETIONS, MESSAGES, LIST, SENSE, DATA] = [
  ...[0x1000, 0x2000, 0x3000, 0x4000, 0x8000],
  ...[0xc000, 0x1_0000],
] as const;
const FLAG = { SG: 1, TO_HOST: 8, TO_DEVICE: 16 } as const;
const CHAIN = 1;

interface Request {
  readonly cdb: readonly number[];
  readonly address?: number;
  readonly length?: number;
  readonly flags?: number;
}

interface Completion {
  readonly context: number;
  readonly length: number;
  readonly host: number;
  readonly scsi: number;
}

/** A pvscsi with a disk on the bench, and its driver. */
class Lab {
  readonly bench: Bench;
  readonly drives: Drives;
  readonly regs: Registers<typeof pvscsiRegisters>;
  readonly view: DataView;
  readonly bus: ScsiBus;
  readonly intx: () => boolean;
  readonly image: () => Buffer;
  #sent = 0;
  #seen = 0;

  private constructor(t: Test, drives: Drives, file: string, props: Readonly<Record<string, string>>) {
    this.drives = drives;
    this.bench = bench({ backends: { find: (_kind, id) => drives.graph.backend(id) } });
    t.teardown(() => this.bench.dispose());
    this.bench.machine.start();
    const probe = this.bench.pci(pvscsi, props);
    const [bus] = probe.device.buses;
    if (!(bus instanceof ScsiBus)) throw new TypeError('the adapter has no bus');
    this.bus = bus;
    bus.plug(scsiHd, { 'scsi-id': TARGET }, { drive: 'd' });
    this.regs = probe.bar(0, pvscsiRegisters);
    const { bytes } = this.bench.ram;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.intx = () => probe.intx.level;
    this.image = () => readFileSync(file);
  }

  static async make(t: Test, props: Readonly<Record<string, string>> = {}): Promise<Lab> {
    const folder = mkdtempSync(join(tmpdir(), 'southbridge-pvscsi-'));
    t.teardown(() => rmSync(folder, { recursive: true }));
    const drives = new Drives(blockGraph());
    for (const id of ['d', 'late', 'later']) {
      const image = Buffer.alloc(BLOCKS * BLOCK);
      for (let block = 0; block < BLOCKS; block++) image.fill(block % 253, block * BLOCK, (block + 1) * BLOCK);
      writeFileSync(join(folder, id), image);
      const options: [string, string][] = [
        ['id', id],
        ['file', join(folder, id)],
        ['format', 'raw'],
        ['if', 'none'],
      ];
      await drives.add(options, { interface: 'none' });
    }
    const lab = new Lab(t, drives, join(folder, 'd'), props);
    lab.setup();
    await lab.run({ cdb: [0, 0, 0, 0, 0, 0] });
    return lab;
  }

  command(command: number, ...words: readonly number[]): number {
    this.regs.COMMAND.value = command;
    for (const word of words) this.regs.COMMAND_DATA.value = word;
    return this.regs.COMMAND_STATUS.value;
  }

  setup(): void {
    const pages = (at: number): number[] => [at / PAGE, 0, ...new Array<number>(62).fill(0)];
    this.command(COMMAND.SETUP_RINGS, 1, 1, STATE / PAGE, 0, ...pages(REQUESTS), ...pages(COMPLETIONS));
    this.regs.INTR_MASK.value = 0xf;
    this.#sent = 0;
    this.#seen = 0;
  }

  setupMessages(): number {
    return this.command(COMMAND.SETUP_MSG_RING, 1, 0, MESSAGES / PAGE, ...new Array<number>(31).fill(0));
  }

  list(elements: readonly (readonly [address: number, length: number, flags?: number])[], at: number = LIST): void {
    for (const [index, [address, length, flags = 0]] of elements.entries()) {
      for (const [word, value] of [address, 0, length, flags].entries())
        this.view.setUint32(at + 16 * index + 4 * word, value, true);
    }
  }

  /** Returns the request's context. */
  start({ cdb, address = DATA, length = 0, flags = FLAG.TO_HOST }: Request): number {
    const { view } = this;
    const at = REQUESTS + 128 * (this.#sent % 32);
    this.#sent++;
    for (let byte = 0; byte < 128; byte++) view.setUint8(at + byte, 0);
    view.setUint32(at, this.#sent, true);
    view.setUint32(at + 8, address, true);
    view.setUint32(at + 16, length, true);
    view.setUint32(at + 24, SENSE, true);
    view.setUint32(at + 32, 18, true);
    view.setUint32(at + 36, flags, true);
    for (const [index, byte] of cdb.entries()) view.setUint8(at + 40 + index, byte);
    view.setUint8(at + 56, cdb.length);
    view.setUint8(at + 67, TARGET);
    view.setUint32(STATE, this.#sent, true);
    this.regs.KICK_RW_IO.value = 0;
    return this.#sent;
  }

  get completions(): number {
    return this.view.getUint32(STATE + 12, true) - this.#seen;
  }

  async completion(): Promise<Completion> {
    await until(() => this.completions > 0);
    const at = COMPLETIONS + 32 * (this.#seen % 128);
    this.#seen++;
    const { view } = this;
    return {
      context: view.getUint32(at, true),
      length: view.getUint32(at + 8, true),
      host: view.getUint16(at + 20, true),
      scsi: view.getUint16(at + 22, true),
    };
  }

  async run(request: Request): Promise<Omit<Completion, 'context'>> {
    const context = this.start(request);
    const { context: answered, ...rest } = await this.completion();
    if (answered !== context) throw new Error(`request ${context} was answered by ${answered}`);
    return rest;
  }

  /** Keeps reads of the disk from ending; the result lets them. */
  hold(): () => void {
    const node = this.drives.graph.backend('d')?.root as BlockNode;
    const { readv } = node;
    let release = (): void => {};
    const held = new Promise<void>(resolve => {
      release = resolve;
    });
    node.readv = async (...args) => {
      await held;
      await readv.apply(node, args);
    };
    return () => {
      node.readv = readv;
      release();
    };
  }

  bytes(at: number, length: number): Buffer {
    return Buffer.from(this.bench.ram.bytes.slice(at, at + length));
  }
}

const read = (block: number, blocks: number): number[] => [0x28, 0, 0, 0, block >>> 8, block & 0xff, 0, 0, blocks, 0];
const write = (block: number, blocks: number): number[] => [0x2a, ...read(block, blocks).slice(1)];
const good = (length: number) => ({ length, host: HOST_STATUS.SUCCESS, scsi: 0 });
const turns = async (): Promise<void> => {
  for (let turn = 0; turn < 10; turn++) await new Promise(resolve => setImmediate(resolve));
};

t.test('blocks are read and written; how many bytes there were is said', async t => {
  const lab = await Lab.make(t);
  t.same(await lab.run({ cdb: read(77, 3), length: 3 * BLOCK }), good(3 * BLOCK));
  t.ok(lab.bytes(DATA, 3 * BLOCK).equals(lab.image().subarray(77 * BLOCK, 80 * BLOCK)));
  t.equal(lab.intx(), true);
  lab.regs.INTR_STATUS.value = 1;
  t.equal(lab.intx(), false);
  lab.bench.ram.bytes.fill(0x6b, DATA, DATA + 2 * BLOCK);
  t.same(await lab.run({ cdb: write(5, 2), length: 2 * BLOCK, flags: FLAG.TO_DEVICE }), good(2 * BLOCK));
  t.ok(
    lab
      .image()
      .subarray(5 * BLOCK, 7 * BLOCK)
      .equals(Buffer.alloc(2 * BLOCK, 0x6b)),
  );
  const units = await lab.run({ cdb: [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], length: 64 });
  t.same(units, { length: 16, host: HOST_STATUS.DATA_RUN, scsi: 0 });
});

t.test('lists are chained, and end', async t => {
  const lab = await Lab.make(t);
  const flags = FLAG.SG | FLAG.TO_HOST;
  lab.list([
    [DATA, BLOCK],
    [LIST + 0x800, 0, CHAIN],
  ]);
  lab.list([[DATA + 0x1000, 2 * BLOCK]], LIST + 0x800);
  t.same(await lab.run({ cdb: read(9, 3), address: LIST, length: 3 * BLOCK, flags }), good(3 * BLOCK));
  const got = Buffer.concat([lab.bytes(DATA, BLOCK), lab.bytes(DATA + 0x1000, 2 * BLOCK)]);
  t.ok(got.equals(lab.image().subarray(9 * BLOCK, 12 * BLOCK)));
  lab.list([[LIST, 0, CHAIN]]);
  const loop = await lab.run({ cdb: read(9, 3), address: LIST, length: 3 * BLOCK, flags });
  t.equal(loop.host, HOST_STATUS.DATA_RUN, 'a chain that is a loop of nothing');
  lab.list([
    [DATA, 1],
    [LIST, 0, CHAIN],
  ]);
  const bytes = await lab.run({ cdb: read(9, 3), address: LIST, length: 3 * BLOCK, flags });
  t.same(bytes, { length: 1024, host: HOST_STATUS.DATA_RUN, scsi: 0 }, 'a loop of bytes, as far as elements go');
  const wide = await lab.run({ cdb: read(9, 1), address: LIST, length: BLOCK, flags });
  t.same(wide, good(BLOCK), 'a loop that is long enough');
});

t.test('what the driver did not give does not reach the disk', async t => {
  const lab = await Lab.make(t);
  const before = lab.image();
  const short = await lab.run({ cdb: write(5, 2), length: BLOCK, flags: FLAG.TO_DEVICE });
  t.same(short, { length: 0, host: HOST_STATUS.DATA_RUN, scsi: 0 });
  const otherWay = await lab.run({ cdb: write(5, 2), length: 2 * BLOCK, flags: FLAG.TO_HOST });
  t.same(otherWay, { length: 0, host: HOST_STATUS.BAD_MESSAGE, scsi: 0 });
  t.equal((await lab.run({ cdb: read(5, 2), length: BLOCK, flags: FLAG.TO_DEVICE })).host, HOST_STATUS.BAD_MESSAGE);
  t.ok(lab.image().equals(before));
  t.same(await lab.run({ cdb: read(5, 1), length: BLOCK }), good(BLOCK));
});

t.test('messages tell which disks come and go', async t => {
  const lab = await Lab.make(t);
  t.equal(lab.setupMessages(), 34);
  lab.regs.INTR_STATUS.value = 0xf;
  const message = (index: number): number[] =>
    [0, 4, 8, 12, 16].map(at => lab.view.getUint32(MESSAGES + 128 * index + at, true));
  const disk = lab.bus.plug(scsiHd, { 'scsi-id': 7 }, { drive: 'late' });
  t.same([message(0), lab.view.getUint32(STATE + 128, true)], [[0, 0, 7, 0, 0], 1]);
  t.same([lab.regs.INTR_STATUS.value, lab.intx()], [4, true]);
  lab.bus.unplug(disk);
  t.same([message(1), lab.view.getUint32(STATE + 128, true)], [[1, 0, 7, 0, 0], 2]);
  lab.regs.INTR_STATUS.value = 4;
  t.equal(lab.intx(), false);
  lab.view.setUint32(STATE + 132, 2 - 32, true);
  lab.bus.plug(scsiHd, { 'scsi-id': 8 }, { drive: 'later' });
  t.same([lab.view.getUint32(STATE + 128, true), lab.intx()], [2, false], 'no room');
});

t.test('without messages there is nothing to set up', async t => {
  const lab = await Lab.make(t, { use_msg: '0' });
  t.equal(lab.command(COMMAND.SETUP_MSG_RING), COMMAND_STATUS.FAILED);
  t.equal(lab.setupMessages(), COMMAND_STATUS.FAILED);
});

t.test('a command is aborted when nothing of it goes on any more', async t => {
  const lab = await Lab.make(t);
  const release = lab.hold();
  const context = lab.start({ cdb: read(5, 1), length: BLOCK });
  lab.command(COMMAND.ABORT_CMD, context + 1, 0, TARGET, 0);
  lab.command(COMMAND.ABORT_CMD, context, 1, TARGET, 0);
  lab.command(COMMAND.ABORT_CMD, context, 0, TARGET, 0);
  await turns();
  t.equal(lab.completions, 0);
  release();
  t.same(await lab.completion(), { context, length: 0, host: HOST_STATUS.ABORT_QUEUE, scsi: 0 });
  t.same(await lab.run({ cdb: read(5, 1), length: BLOCK }), good(BLOCK));
});

for (const [name, reset] of [
  ['the bus', (lab: Lab) => lab.command(COMMAND.RESET_BUS)],
  ['the disk', (lab: Lab) => lab.command(COMMAND.RESET_DEVICE, TARGET, 0, 0)],
] as const) {
  t.test(`a reset of ${name} ends what is under way, once`, async t => {
    const lab = await Lab.make(t);
    const release = lab.hold();
    const context = lab.start({ cdb: read(5, 1), length: BLOCK });
    t.equal(reset(lab), COMMAND_STATUS.SUCCEEDED);
    t.equal(lab.completions, 1);
    t.same(await lab.completion(), { context, length: 0, host: HOST_STATUS.BUS_RESET, scsi: 0 });
    release();
    await turns();
    t.equal(lab.completions, 0);
    t.equal((await lab.run({ cdb: read(5, 1), length: BLOCK })).scsi, 2, 'the reset is told of');
  });
}

t.test('after a reset of the adapter nobody hears of what was under way', async t => {
  const lab = await Lab.make(t);
  const release = lab.hold();
  lab.start({ cdb: read(5, 1), length: BLOCK });
  lab.command(COMMAND.ADAPTER_RESET);
  t.same([lab.regs.INTR_STATUS.value, lab.intx()], [0, false]);
  lab.setup();
  release();
  await turns();
  t.equal(lab.completions, 0);
  await lab.run({ cdb: [0, 0, 0, 0, 0, 0] });
  t.same(await lab.run({ cdb: read(5, 1), length: BLOCK }), good(BLOCK));
});

t.test('a request that is under way is saved, and goes on after a restore', async t => {
  const lab = await Lab.make(t);
  lab.setupMessages();
  const release = lab.hold();
  lab.list([
    [DATA, 700],
    [DATA + 0x1000, 2 * BLOCK - 700],
  ]);
  const flags = FLAG.SG | FLAG.TO_HOST;
  const context = lab.start({ cdb: read(20, 2), address: LIST, length: 2 * BLOCK, flags });
  const saved = [...lab.bench.machine.devices()].map(device => [device, device.save()] as const);
  lab.command(COMMAND.ADAPTER_RESET);
  lab.bench.machine.stop();
  lab.view.setUint32(STATE + 12, 1, true);
  for (const [device, state] of saved) device.restore(state);
  release();
  await turns();
  t.equal(lab.completions, 0, 'what was under way before does not answer');
  lab.bench.machine.start();
  t.same(await lab.completion(), { context, ...good(2 * BLOCK) });
  const got = Buffer.concat([lab.bytes(DATA, 700), lab.bytes(DATA + 0x1000, 2 * BLOCK - 700)]);
  t.ok(got.equals(lab.image().subarray(20 * BLOCK, 22 * BLOCK)));
  t.same(await lab.run({ cdb: read(5, 1), length: BLOCK }), good(BLOCK), 'the rings are what they were');
});

t.test('no ring, no request and no list harms it', async t => {
  const lab = await Lab.make(t);
  const { view, regs } = lab;
  const word = fc.oneof(fc.nat(0xffff_ffff), fc.constantFrom(0, 1, 3, 32, 33, STATE / PAGE, REQUESTS / PAGE));
  const cdb = fc.oneof(
    fc.constantFrom(read(5, 1), write(5, 1), read(5, 200), [0x12, 0, 0, 0, 36, 0], [0x15, 0x10, 0, 0, 24, 0]),
    fc.array(fc.nat(255), { minLength: 6, maxLength: 16 }),
  );
  const length = fc.oneof(fc.nat(0xffff_ffff), fc.constantFrom(0, 36, BLOCK));
  const elements = fc.array(fc.tuple(fc.constantFrom(DATA, LIST, 0xf000_0000), length, fc.nat(3)), { maxLength: 20 });
  fc.assert(
    fc.property(
      fc.constantFrom(...Object.values(COMMAND)),
      fc.array(word, { maxLength: 140 }),
      cdb,
      length,
      elements,
      word,
      (command, words, cdb, length, elements, producer) => {
        lab.command(command, ...words);
        view.setUint32(STATE, producer, true);
        regs.KICK_NON_RW_IO.value = producer;
        lab.setup();
        lab.list(elements);
        for (const flags of [FLAG.TO_HOST, FLAG.TO_DEVICE, FLAG.SG, 0])
          lab.start({ cdb, address: (flags & FLAG.SG) !== 0 ? LIST : DATA, length, flags });
      },
    ),
    { numRuns: 200 },
  );
  lab.command(COMMAND.ADAPTER_RESET);
  lab.setup();
  await lab.run({ cdb: [0, 0, 0, 0, 0, 0] });
  t.same(await lab.run({ cdb: read(5, 1), length: BLOCK }), good(BLOCK));
});
