import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { BlockBackend } from '../../../core/block/backend.ts';
import { blockGraph } from '../../../core/block/block.ts';
import { BlockOptions } from '../../../core/block/options.ts';
import { type Bench, bench } from '../../../core/testing/bench.ts';

export const SECTOR = 512;
export const DISK_SECTORS = 4096;

export interface DiskLab {
  readonly table: Bench;
  readonly backend: BlockBackend;
  readonly file: string;
  /** The events of the block layer, in QEMU's names. */
  readonly events: string[];
  /** Waits for the requests under way, and for those that a device begins when they end. */
  idle(): Promise<void>;
  dispose(): Promise<void>;
}

/** A bench with a disk of 2 MiB whose sectors begin with their numbers; `debug` are rules for blkdebug. */
export async function diskLab(debug?: string, readOnly = false): Promise<DiskLab> {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'southbridge-ide-'));
  const file = path.join(dir, 'disk.raw');
  const contents = Buffer.alloc(DISK_SECTORS * SECTOR);
  for (let sector = 0; sector < DISK_SECTORS; sector++) contents.writeUInt32LE(sector, sector * SECTOR);
  fs.writeFileSync(file, contents);
  let name = file;
  if (debug !== undefined) {
    fs.writeFileSync(path.join(dir, 'rules'), debug);
    name = `blkdebug:${path.join(dir, 'rules')}:${file}`;
  }
  const graph = blockGraph();
  const events: string[] = [];
  graph.onEvent(event => events.push(event.event));
  const backend = new BlockBackend(graph);
  backend.name = 'disk0';
  backend.insert(await graph.openTree(name, new BlockOptions().set('driver', 'raw'), { readOnly }, false));
  const table = bench({ backends: { find: () => backend } });
  return {
    table,
    backend,
    file,
    events,
    async idle() {
      do await turn();
      while (backend.inFlight > 0);
    },
    async dispose() {
      table.dispose();
      await graph.close();
      fs.rmSync(dir, { recursive: true });
    },
  };
}

const turn = (): Promise<void> => new Promise(resolve => setImmediate(resolve));

/** Lets the event loop turn until something is so; where it never is, the test's timeout tells. */
export async function settle(done: () => boolean): Promise<void> {
  while (!done()) await turn();
}
