import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { blockGraph } from '../../../core/block/block.ts';
import type { BlockGraph } from '../../../core/block/graph.ts';
import { BlockOptions } from '../../../core/block/options.ts';
import { Qcow2Node } from '../../../core/block/qcow2/node.ts';
import { zstd } from '../../../core/host/zstd.ts';

/** Why the tests against QEMU's own tools cannot run; false where they can. */
export const noQemuImg: string | false =
  spawnSync('qemu-img', ['--version']).status === 0 ? false : 'qemu-img is not installed (Debian: qemu-utils)';

/** Why zstd images cannot be tested; false where they can. */
export const noZstd: string | false = unavailable(zstd);

function unavailable(library: () => unknown): string | false {
  try {
    library();
    return false;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** A folder for a test's images. */
export function imageFolder(): { readonly dir: string; file(name: string): string; remove(): void } {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'southbridge-block-'));
  return { dir, file: name => path.join(dir, name), remove: () => fs.rmSync(dir, { recursive: true, force: true }) };
}

export function qemuImg(...args: string[]): string {
  return execFileSync('qemu-img', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** What `qemu-img check` says: 0 clean, 2 corruption, 3 leaks. */
export function qemuCheck(file: string): { readonly status: number | null; readonly output: string } {
  const { status, stdout, stderr } = spawnSync('qemu-img', ['check', file], { encoding: 'utf8' });
  return { status, output: stdout + stderr };
}

/** A graph whose warnings are kept. */
export function quietGraph(): { readonly graph: BlockGraph; readonly warnings: string[] } {
  const graph = blockGraph();
  const warnings: string[] = [];
  const keep = (message: string): void => {
    warnings.push(message);
  };
  graph.warn = keep;
  graph.notice = keep;
  return { graph, warnings };
}

/** Opens an image as qcow2; discards go down to the file. */
export async function openQcow2(
  graph: BlockGraph,
  file: string,
  more: Record<string, string> = {},
): Promise<Qcow2Node> {
  const options = new BlockOptions([['driver', 'qcow2'], ...Object.entries(more)]);
  const node = await graph.openTree(file, options, { discard: true }, false);
  if (!(node instanceof Qcow2Node)) throw new Error('not a qcow2 image');
  return node;
}

/** Small random numbers that are the same in each run. */
export function randomNumbers(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return below => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}
