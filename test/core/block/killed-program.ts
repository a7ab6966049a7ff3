import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { IoVector } from '../../../core/block/io-vector.ts';
import type { BlockNode } from '../../../core/block/node.ts';
import { BlockOptions } from '../../../core/block/options.ts';
import { qemuImg, quietGraph, randomNumbers } from './images.ts';

const PROGRAM = fileURLToPath(new URL('../../../southbridge.js', import.meta.url));
const SIZE = 8 << 20;
const SECTOR = 512;
const WORKERS = 4;
const LANE = SIZE / WORKERS;

/**
 * An image that the program serves by NBD, to be written to from here until the program is killed. What each sector may
 * hold then is known: what was there at the last flush that was answered, or anything that was written since.
 */
export class Victim {
  readonly file: string;
  readonly #folder: string;
  readonly #possible: number[][] = Array.from({ length: SIZE / SECTOR }, () => [0]);
  readonly #random: (below: number) => number;
  #value = 0;

  constructor(folder: string, options: string, seed: number) {
    this.#folder = folder;
    this.file = `${folder}/victim.qcow2`;
    this.#random = randomNumbers(seed);
    const external = `${folder}/victim.raw`;
    for (const old of [this.file, external]) fs.rmSync(old, { force: true });
    const given = options.replace(/\bdata_file\b/, `data_file=${external}`);
    qemuImg('create', '-q', '-f', 'qcow2', '-o', given, this.file, String(SIZE));
  }

  /** Has the program write, and kills it after `ms` milliseconds. @returns how many flushes it had answered */
  async kill(ms: number): Promise<number> {
    const socket = `${this.#folder}/nbd`;
    fs.rmSync(socket, { force: true });
    const child = spawn(
      process.execPath,
      [
        PROGRAM,
        ...['-accel', 'qtest', '-machine', 'none', '-display', 'none', '-qmp', 'stdio', '-blockdev'],
        `driver=qcow2,node-name=disk,discard=unmap,file.driver=file,file.filename=${this.file}`,
      ],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    );
    const gone = once(child, 'exit');
    const answers = createInterface(child.stdout)[Symbol.asyncIterator]();
    const ask = async (execute: string, args: object = {}): Promise<void> => {
      child.stdin.write(`${JSON.stringify({ execute, arguments: args })}\n`);
      const { value } = await answers.next();
      if (!String(value).startsWith('{"return"')) throw new Error(`${execute}: ${value}`);
    };
    await answers.next();
    await ask('qmp_capabilities');
    await ask('block-dirty-bitmap-add', { node: 'disk', name: `b${this.#random(1e9)}`, persistent: true });
    await ask('nbd-server-start', { addr: { type: 'unix', data: { path: socket } } });
    await ask('block-export-add', { type: 'nbd', id: 'e', 'node-name': 'disk', name: 'disk', writable: true });
    const { graph } = quietGraph();
    const disk = await graph.openTree(
      undefined,
      new BlockOptions([
        ['driver', 'nbd'],
        ['server.type', 'unix'],
        ['server.path', socket],
        ['export', 'disk'],
      ]),
      { discard: true },
      false,
    );
    let flushes = 0;
    const workers = Array.from({ length: WORKERS }, async (_, lane) => {
      for (;;) {
        for (let step = this.#random(12); step >= 0; step--) await this.#step(disk, lane * LANE);
        await disk.flush();
        flushes++;
        for (let sector = (lane * LANE) / SECTOR; sector < ((lane + 1) * LANE) / SECTOR; sector++)
          this.#possible[sector]?.splice(0, (this.#possible[sector]?.length ?? 1) - 1);
      }
    });
    const ended = Promise.allSettled(workers);
    await new Promise(resolve => setTimeout(resolve, ms));
    child.kill('SIGKILL');
    await gone;
    await ended;
    await graph.close();
    return flushes;
  }

  /** One request somewhere in the lane. */
  async #step(disk: BlockNode, lane: number): Promise<void> {
    const offset = lane + this.#random(LANE / SECTOR - 64) * SECTOR;
    const bytes = (1 + this.#random(64)) * SECTOR;
    const zero = this.#random(5) === 0;
    const value = zero ? 0 : ++this.#value;
    for (let sector = offset / SECTOR; sector < (offset + bytes) / SECTOR; sector++)
      this.#possible[sector]?.push(value);
    if (zero) {
      await disk.writeZeroes(offset, bytes, this.#random(2) === 0 ? 0 : 2);
      return;
    }
    const data = new Uint32Array(bytes / 4).fill(value);
    await disk.writev(offset, bytes, IoVector.of(new Uint8Array(data.buffer)));
  }

  /** Reads the image with qemu-img. @returns the sectors that hold what they cannot hold; what they hold is the start for more */
  wrongSectors(): number[] {
    const copy = `${this.#folder}/copy.raw`;
    qemuImg('convert', '-f', 'qcow2', '-O', 'raw', this.file, copy);
    const content = fs.readFileSync(copy);
    const wrong: number[] = [];
    for (const [sector, possible] of this.#possible.entries()) {
      const at = sector * SECTOR;
      const value = content.readUInt32LE(at);
      const whole = content.subarray(at, at + SECTOR).every((byte, index) => byte === content[at + (index % 4)]);
      if (!whole || !possible.includes(value)) wrong.push(sector);
      possible.splice(0, possible.length, value);
    }
    return wrong;
  }
}

/** The options of images that are worth killing their writer. */
export const VICTIMS: readonly string[] = [
  'cluster_size=4k',
  'extended_l2=on,cluster_size=16k',
  'data_file,cluster_size=4k',
  'lazy_refcounts=on',
  'compression_type=zstd,refcount_bits=64,cluster_size=512',
  'extended_l2=on,data_file',
];
