/**
 * What a request costs between the device and the host's file, one at a time and 32 at a time, beside `qemu-img bench` on
 * the same image: the block layers alone, without a guest. Then the same as a guest sees it: `guest-disks.ts`.
 *
 *   node dist/test/bench/block.js
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { BlockBackend } from '../../core/block/backend.ts';
import { blockGraph } from '../../core/block/block.ts';
import { IoVector } from '../../core/block/io-vector.ts';
import { BlockOptions } from '../../core/block/options.ts';
import { benchGuestDisks } from './guest-disks.ts';

const SIZE = 128 << 20;
const PRIME = 7919;
const folder = mkdtempSync(join(tmpdir(), 'southbridge-bench-'));
const raw = join(folder, 'image.raw');
const qcow2 = join(folder, 'image.qcow2');
const ram = new Uint8Array(new WebAssembly.Memory({ initial: 64, maximum: 64, shared: true }).buffer);

interface Load {
  readonly format: 'raw' | 'qcow2';
  readonly write: boolean;
  readonly bytes: number;
  readonly depth: number;
  readonly count: number;
}

/** Microseconds a request. */
async function ours({ format, write, bytes, depth, count }: Load): Promise<number> {
  const graph = blockGraph();
  const backend = new BlockBackend(graph);
  const file = format === 'raw' ? raw : qcow2;
  backend.insert(await graph.openTree(file, new BlockOptions().set('driver', format), {}, false));
  const slots = SIZE / bytes;
  let next = 0;
  const lane = async (iov: IoVector): Promise<void> => {
    while (next < count) {
      const offset = ((next++ * PRIME) % slots) * bytes;
      const result = write ? backend.writev(offset, iov) : backend.readv(offset, iov);
      const error = typeof result === 'number' ? result : await result;
      if (error !== 0) throw new Error(`errno ${error}`);
    }
  };
  const started = performance.now();
  await Promise.all(
    Array.from({ length: depth }, (_, index) => lane(new IoVector().add(ram, (index % 16) * bytes, bytes))),
  );
  const elapsed = performance.now() - started;
  await backend.close();
  await graph.close();
  return (elapsed * 1000) / count;
}

/** The same by QEMU's block layer; undefined without its tools. */
function theirs({ format, write, bytes, depth, count }: Load): number | undefined {
  const file = format === 'raw' ? raw : qcow2;
  const step = (PRIME * bytes) % SIZE;
  const args = [
    'bench',
    ...(write ? ['-w'] : []),
    '-f',
    format,
    '-c',
    `${count}`,
    '-d',
    `${depth}`,
    '-s',
    `${bytes}`,
    '-S',
    `${step}`,
    file,
  ];
  const { stdout } = spawnSync('qemu-img', args, { encoding: 'utf8' });
  const seconds = /completed in ([0-9.]+) seconds/.exec(stdout ?? '')?.[1];
  return seconds === undefined ? undefined : (Number(seconds) * 1e6) / count;
}

try {
  writeFileSync(raw, Buffer.alloc(SIZE, 3));
  const converted = spawnSync('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, qcow2]).status === 0;
  console.log("The block layers alone; the ratio is ours as a share of QEMU's time, the less the better");
  console.log('format  op     bytes   depth    ours µs   qemu µs   ratio');
  for (const format of converted ? (['raw', 'qcow2'] as const) : (['raw'] as const)) {
    for (const write of [false, true]) {
      for (const bytes of [4096, 131072]) {
        for (const depth of [1, 32]) {
          const load = { format, write, bytes, depth, count: bytes === 4096 ? 10_000 : 1000 };
          // In turn, and the better of several: the host's writeback disturbs both.
          let mine = Number.POSITIVE_INFINITY;
          let qemus: number | undefined;
          for (let round = 0; round < 3; round++) {
            mine = Math.min(mine, await ours(load));
            const measured = theirs(load);
            if (measured !== undefined) qemus = Math.min(qemus ?? measured, measured);
          }
          const [left, right] = qemus === undefined ? ['-', '-'] : [qemus.toFixed(1), (mine / qemus).toFixed(2)];
          console.log(
            `${format.padEnd(7)} ${(write ? 'write' : 'read').padEnd(6)} ${String(bytes).padEnd(7)} ${String(depth).padEnd(5)} ${mine.toFixed(1).padStart(10)} ${left.padStart(9)} ${right.padStart(7)}`,
          );
        }
      }
    }
  }
  await benchGuestDisks(folder);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
