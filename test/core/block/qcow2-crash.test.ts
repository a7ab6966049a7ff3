import fs from 'node:fs';
import t from 'tap';
import { IoVector } from '../../../core/block/io-vector.ts';
import { BlockOptions } from '../../../core/block/options.ts';
import { start, startFor } from '../../../core/block/pending.ts';
import { checkImage } from '../../../core/block/qcow2/driver.ts';
import { Qcow2Node } from '../../../core/block/qcow2/node.ts';
import { writeFlag } from '../../../core/block/requests.ts';
import { CrashDisk } from './crash-disk.ts';
import { imageFolder, noQemuImg, noZstd, openQcow2, qemuCheck, qemuImg, quietGraph, randomNumbers } from './images.ts';

const folder = imageFolder();
t.teardown(() => folder.remove());
t.setTimeout(300_000);

const SIZE = 2 << 20;
const SETTINGS = {
  readOnly: false,
  autoReadOnly: false,
  direct: false,
  noFlush: false,
  discard: true,
  forceShare: false,
  detectZeroes: 'off',
} as const;

/** What a sector may hold: what was there at the last acknowledged flush, or anything that was written since. */
class Expected {
  readonly #possible: number[][] = Array.from({ length: SIZE / 512 }, () => [0]);
  readonly #current = new Uint8Array(SIZE / 512);
  /** At which operation of the disk each state began. */
  readonly history: { readonly from: number; readonly allowed: readonly (readonly number[])[] }[] = [];

  write(offset: number, bytes: number, value: number): void {
    for (let sector = offset / 512; sector < (offset + bytes) / 512; sector++) {
      this.#possible[sector]?.push(value);
      this.#current[sector] = value;
    }
  }

  flushed(at: number): void {
    for (const [sector, possible] of this.#possible.entries()) {
      possible.length = 0;
      possible.push(this.#current[sector] ?? 0);
    }
    this.mark(at);
  }

  mark(at: number): void {
    this.history.push({ from: at, allowed: this.#possible.map(possible => [...possible]) });
  }
}

for (const variant of [
  'cluster_size=4k',
  'cluster_size=512,refcount_bits=8',
  'lazy_refcounts=on,cluster_size=4k',
  'cluster_size=64k',
  'extended_l2=on,cluster_size=16k',
  'compression_type=zstd,cluster_size=4k',
]) {
  const skip = noQemuImg || (variant.includes('zstd') && noZstd);
  t.test(`the power may fail at any moment: ${variant}`, { skip }, async t => {
    const file = folder.file('crash.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', '-o', variant, file, String(SIZE));
    const { graph } = quietGraph();
    const disk = new CrashDisk(graph, { ...SETTINGS }, fs.readFileSync(file));
    graph.adopt(disk, 'disk');
    const node = await graph.openTree(
      undefined,
      new BlockOptions([
        ['driver', 'qcow2'],
        ['file', 'disk'],
      ]),
      { discard: true },
      false,
    );
    if (!(node instanceof Qcow2Node)) throw new Error('not a qcow2 image');
    const random = randomNumbers(variant.length);
    const expected = new Expected();
    expected.mark(disk.log.length);
    for (let step = 0; step < 60; step++) {
      // Several requests at a time, that do not touch the same sectors.
      const batch: (Promise<void> | undefined)[] = [];
      const lane = SIZE / 4;
      for (let request = 0; request < 4; request++) {
        const offset = request * lane + random(lane / 512 - 40) * 512;
        const bytes = (1 + random(40)) * 512;
        const value = 1 + random(255);
        const what = random(12);
        if (what < 8) {
          expected.write(offset, bytes, value);
          batch.push(node.writev(offset, bytes, IoVector.of(Buffer.alloc(bytes, value))));
        } else if (what < 11) {
          expected.write(offset, bytes, 0);
          batch.push(node.writeZeroes(offset, bytes, random(2) === 0 ? writeFlag.MAY_UNMAP : 0));
        } else {
          const { clusterSize } = node;
          const cluster = offset - (offset % clusterSize);
          expected.write(cluster, clusterSize, value);
          batch.push(
            node.writev(cluster, clusterSize, IoVector.of(Buffer.alloc(clusterSize, value)), 0, writeFlag.COMPRESSED),
          );
        }
      }
      await Promise.all(batch);
      const before = disk.log.length;
      if (random(5) === 0) {
        await node.flush();
        expected.flushed(disk.log.length);
      } else {
        expected.mark(before);
      }
      if (step === 30) {
        await startFor(
          node.exclusively(
            node.snapshots.create({ name: 's', vmStateSize: 0, dateSeconds: 0, dateNanoseconds: 0, vmClockNs: 0 }),
          ),
        );
        expected.mark(disk.log.length);
      }
      if (step === 45) {
        const [snapshot] = node.snapshots.list;
        if (snapshot !== undefined) await start(node.exclusively(node.snapshots.remove(snapshot)));
        expected.mark(disk.log.length);
      }
    }
    let lost = 0;
    let damaged = 0;
    for (let crash = 0; crash < 30; crash++) {
      const end = 2 + random(disk.log.length - 2);
      fs.writeFileSync(file, disk.after(end, random));
      const lazy = variant.startsWith('lazy');
      if (crash % 6 === 0 && !lazy) {
        const { status, output } = qemuCheck(file);
        // Marks that lag behind while a snapshot is made or removed are no damage.
        const errors = output
          .split('\n')
          .filter(line => line.startsWith('ERROR') && !line.startsWith('ERROR OFLAG_COPIED'));
        if ((status !== 0 && status !== 3 && status !== 2) || errors.length > 0) {
          damaged++;
          t.comment(`${end}: ${errors.slice(0, 4).join('; ')}`);
        }
      }
      const after = quietGraph().graph;
      const image = await openQcow2(after, file);
      const { corruptions } = await checkImage(image, false);
      if (corruptions > 0) damaged++;
      const content = Buffer.alloc(SIZE);
      await image.readv(0, SIZE, IoVector.of(content));
      await after.close();
      // A request that was under way may show or not: the state after it allows both.
      const index = expected.history.findIndex(({ from }) => from >= end);
      const earlier = expected.history[Math.max(0, (index < 0 ? expected.history.length : index) - 1)];
      const later = expected.history[index < 0 ? expected.history.length - 1 : index];
      for (let sector = 0; sector < SIZE / 512; sector++) {
        const value = content[sector * 512] ?? -1;
        if (!(earlier?.allowed[sector]?.includes(value) || later?.allowed[sector]?.includes(value))) lost++;
      }
    }
    t.equal(damaged, 0, 'no crash damages the image');
    t.equal(lost, 0, 'what was flushed is there');
    await graph.close();
  });
}
