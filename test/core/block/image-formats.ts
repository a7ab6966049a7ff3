/** What the tests of the image formats of other programs have in common: the same, ours against QEMU's, both ways. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import t, { type Test } from 'tap';
import type { BlockGraph } from '../../../core/block/graph.ts';
import { imageInfo } from '../../../core/block/info.ts';
import { IoVector } from '../../../core/block/io-vector.ts';
import type { BlockNode } from '../../../core/block/node.ts';
import { BlockOptions, type OptionScalar } from '../../../core/block/options.ts';
import { CrashDisk } from './crash-disk.ts';
import { imageFolder, qemuCheck, qemuImg, quietGraph, randomNumbers } from './images.ts';

export const folder = imageFolder();
t.teardown(() => folder.remove());
t.setTimeout(300_000);

type Random = (below: number) => number;
export type Options = Readonly<Record<string, OptionScalar>>;

export interface Variant {
  readonly format: string;
  /** As `qemu-img create -o` takes them. */
  readonly options: string;
  readonly size: number;
  /** How fine writes may be. */
  readonly unit?: number;
}

/** Runs commands of qemu-io. */
export function qemuIo(file: string, format: string, ...commands: string[]): void {
  const args = commands.flatMap(command => ['-c', command]);
  const { status, stdout, stderr } = spawnSync('qemu-io', ['-f', format, ...args, file], { encoding: 'utf8' });
  if (status !== 0 || /fail|error/i.test(stdout)) throw new Error(stdout + stderr);
}

/** What qemu-img says of an image that it does not open. */
export function complaintOfQemu(file: string, format: string): string {
  return spawnSync('qemu-img', ['info', '-f', format, file], { encoding: 'utf8' }).stderr;
}

export function createByQemu(file: string, { format, options, size }: Variant, ...more: string[]): void {
  qemuImg('create', '-q', '-f', format, ...(options === '' ? [] : ['-o', options]), ...more, file, String(size));
}

/** Makes an image by `blockdev-create`'s options. */
export async function createByUs(file: string, format: string, options: Options, graph?: BlockGraph): Promise<void> {
  const own = graph ?? quietGraph().graph;
  fs.writeFileSync(file, '');
  const target = await own.openTree(file, new BlockOptions(), {}, true);
  const given = new BlockOptions([['file', target.nodeName], ...Object.entries(options)]);
  try {
    await own.driver(format).create?.(own, given);
    t.same(given.keys(), [], 'every option was understood');
  } finally {
    await own.released(target);
    if (graph === undefined) await own.close();
  }
}

/** Opens an image, whose format the drivers must tell. */
export async function opened<T>(
  file: string,
  use: (node: BlockNode, graph: BlockGraph) => Promise<T>,
  options: Options = {},
): Promise<T> {
  const { graph } = quietGraph();
  try {
    const node = await graph.openTree(file, new BlockOptions(Object.entries(options)), { discard: true }, false);
    const result = await use(node, graph);
    await graph.released(node);
    return result;
  } finally {
    await graph.close();
  }
}

export async function contentOf(node: BlockNode): Promise<Buffer> {
  const content = Buffer.alloc(node.length, 0xaa);
  await node.readv(0, content.length, IoVector.of(content));
  return content;
}

/** Somewhere in the image, near the borders of blocks more often than not. */
function somewhere(random: Random, size: number, unit: number): { offset: number; bytes: number } {
  const near = random(2) === 0 ? random(size / 65536) * 65536 - random(4) * unit : random(size);
  const offset = Math.min(size - unit, Math.max(0, near - (near % unit)));
  const bytes = Math.min(size - offset, unit * (1 + random(random(3) === 0 ? 600_000 / unit : 20_000 / unit)));
  return { offset, bytes };
}

export function fillByQemuIo(file: string, { format, size }: Variant, model: Buffer, random: Random): void {
  const commands: string[] = [];
  for (let step = 0; step < 20; step++) {
    const { offset, bytes } = somewhere(random, size, 512);
    const value = 1 + random(255);
    commands.push(`write -P ${value} ${offset} ${bytes}`);
    model.fill(value, offset, offset + bytes);
  }
  qemuIo(file, format, ...commands);
}

export async function fillByUs(node: BlockNode, model: Buffer, random: Random, unit = 1): Promise<void> {
  for (let step = 0; step < 40; step++) {
    const { offset, bytes } = somewhere(random, model.length, unit);
    if (random(5) === 0) {
      await node.writeZeroes(offset, bytes);
      model.fill(0, offset, offset + bytes);
    } else {
      const data = Buffer.alloc(bytes, 1 + random(255));
      await node.writev(offset, bytes, IoVector.of(data));
      data.copy(model, offset);
    }
    if (random(6) === 0) await node.flush();
  }
  // And several at once, to the same blocks.
  const lanes = Array.from({ length: 8 }, (_, lane) => ({
    offset: Math.floor(((model.length / 8) * lane) / 512) * 512 + 512,
    data: Buffer.alloc(3072, 0x40 + lane),
  }));
  await Promise.all(lanes.map(async ({ offset, data }) => node.writev(offset, data.length, IoVector.of(data))));
  for (const { offset, data } of lanes) data.copy(model, offset);
}

/** @throws Error where qemu-img reads anything else */
export function compareByQemu(file: string, format: string, model: Buffer): void {
  fs.writeFileSync(folder.file('model.raw'), model);
  qemuImg('compare', '-f', 'raw', '-F', format, folder.file('model.raw'), file);
}

/** Both ways: QEMU writes, we read and write, QEMU reads, checks and writes, we read. */
export async function bothWays(
  t: Test,
  file: string,
  variant: Variant,
  checks: boolean,
  given: Options = {},
): Promise<void> {
  const { format, options, size } = variant;
  const model = Buffer.alloc(size);
  const random = randomNumbers(options.length + 3);
  fillByQemuIo(file, variant, model, random);
  await opened(
    file,
    async node => {
      t.equal(node.driver.name, format, 'its format is told');
      t.equal(node.length, size);
      t.equal((await contentOf(node)).compare(model), 0, 'what qemu-io wrote is read, bit for bit');
      await fillByUs(node, model, random, variant.unit);
      t.equal((await contentOf(node)).compare(model), 0, 'and so is what we wrote');
    },
    given,
  );
  compareByQemu(file, format, model);
  if (checks) {
    const { status, output } = qemuCheck(file);
    t.equal(status, 0, output);
  }
  fillByQemuIo(file, variant, model, random);
  await opened(
    file,
    async node => {
      t.equal((await contentOf(node)).compare(model), 0, 'and QEMU writes on where we stopped');
      t.match(imageInfo(node, false), { format, 'virtual-size': size });
    },
    given,
  );
}

/** Opens images with damaged bytes, and uses those that open: errors are ours, and nothing stays open. */
export async function hostile(
  t: Test,
  file: string,
  format: string,
  areas: readonly (readonly [offset: number, bytes: number])[],
  repair: (image: Buffer, random: Random) => void = () => {},
): Promise<void> {
  const good = fs.readFileSync(file);
  const { graph } = quietGraph();
  const random = randomNumbers(11);
  let refused = 0;
  for (let round = 0; round < 100; round++) {
    const bad = Buffer.from(good);
    for (let flips = 1 + random(3); flips > 0; flips--) {
      const [offset, bytes] = areas[random(areas.length)] ?? [0, bad.length];
      bad[offset + random(bytes)] = random(3) === 0 ? 0xff : random(256);
    }
    repair(bad, random);
    fs.writeFileSync(file, bad);
    try {
      const node = await graph.openTree(file, new BlockOptions([['driver', format]]), {}, false);
      try {
        await node.writev(512, 4096, IoVector.of(Buffer.alloc(4096, 1)));
        await node.readv(0, 65536, IoVector.of(Buffer.alloc(65536)));
        await node.flush();
      } catch (error) {
        t.match(error, { code: /^ERR_/ }, 'an I/O error is one of ours');
      }
      await graph.released(node);
    } catch (error) {
      refused++;
      if (!(error instanceof Error && 'code' in error && String(error.code).startsWith('ERR_'))) throw error;
    }
  }
  fs.writeFileSync(file, good);
  t.ok(refused > 0, 'some are refused');
  t.same(graph.nodes(), [], 'and nothing stays open');
  await graph.close();
}

const SETTINGS = {
  readOnly: false,
  autoReadOnly: false,
  direct: false,
  noFlush: false,
  discard: true,
  forceShare: false,
  detectZeroes: 'off',
} as const;

/** What a sector may hold after the power failed: what was flushed, or anything that was written since. */
class Expected {
  readonly #possible: Set<number>[];
  readonly #current: Uint8Array;
  readonly history: { readonly from: number; readonly allowed: readonly ReadonlySet<number>[] }[] = [];

  constructor(size: number) {
    this.#possible = Array.from({ length: size / 512 }, () => new Set([0]));
    this.#current = new Uint8Array(size / 512);
  }

  write(offset: number, bytes: number, value: number): void {
    for (let sector = offset / 512; sector < (offset + bytes) / 512; sector++) {
      this.#possible[sector]?.add(value);
      this.#current[sector] = value;
    }
  }

  flushed(at: number): void {
    for (const [sector, possible] of this.#possible.entries()) {
      possible.clear();
      possible.add(this.#current[sector] ?? 0);
    }
    this.mark(at);
  }

  mark(at: number): void {
    this.history.push({ from: at, allowed: this.#possible.map(possible => new Set(possible)) });
  }

  /** The sectors of an image that hold what they cannot. */
  wrong(content: Buffer, end: number): number[] {
    const allowed = this.history.findLast(({ from }) => from <= end)?.allowed ?? [];
    return [...allowed.keys()].filter(sector => {
      const part = content.subarray(sector * 512, sector * 512 + 512);
      const value = part[0] ?? 0;
      return !part.equals(Buffer.alloc(512, value)) || allowed[sector]?.has(value) !== true;
    });
  }
}

/**
 * Writes to an image on a disk that remembers, and looks at what any power failure would have left.
 *
 * @param dataOffset what lies before it in the file are tables
 */
export async function powerFailures(
  t: Test,
  file: string,
  format: string,
  dataOffset: number,
  look: (file: string, end: number) => void = () => {},
): Promise<void> {
  const { graph } = quietGraph();
  const disk = new CrashDisk(graph, { ...SETTINGS }, fs.readFileSync(file));
  graph.adopt(disk, 'disk');
  const given = new BlockOptions([
    ['driver', format],
    ['file', 'disk'],
  ]);
  const node = await graph.openTree(undefined, given, { discard: true }, false);
  const random = randomNumbers(5);
  const expected = new Expected(node.length);
  expected.mark(disk.log.length);
  for (let step = 0; step < 30; step++) {
    const batch: Promise<void>[] = [];
    for (let request = 0; request < 3; request++) {
      const lane = node.length / 3;
      const offset = Math.floor((request * lane) / 512 + random(lane / 512 - 24)) * 512;
      const bytes = (1 + random(20)) * 512;
      const value = 1 + random(255);
      expected.write(offset, bytes, value);
      expected.mark(disk.log.length);
      batch.push(Promise.resolve(node.writev(offset, bytes, IoVector.of(Buffer.alloc(bytes, value)))));
    }
    await Promise.all(batch);
    if (random(3) !== 0) continue;
    await node.flush();
    expected.flushed(disk.log.length);
  }
  await graph.released(node);
  expected.flushed(disk.log.length);
  const moments = [...disk.log.entries()].flatMap(([index, operation]) =>
    index > 1 && operation.kind === 'write' && operation.offset < dataOffset ? [index, index + 1, index + 2] : [],
  );
  for (let round = 0; round < 24; round++) {
    // Mostly when the tables are being written.
    const moment = round % 3 === 0 ? undefined : moments[random(moments.length)];
    const end = Math.min(disk.log.length, moment ?? 2 + random(disk.log.length - 1));
    const broken = folder.file('broken.img');
    fs.writeFileSync(broken, disk.after(end, random));
    look(broken, end);
    await opened(broken, async image => {
      t.same(expected.wrong(await contentOf(image), end), [], `after ${end} operations`);
      await image.writev(0, 512, IoVector.of(Buffer.alloc(512, 1)));
    });
  }
  await graph.close();
}
