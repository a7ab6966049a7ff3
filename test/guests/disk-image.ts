import { closeSync, fsyncSync, ftruncateSync, openSync, writeSync } from 'node:fs';

const BLOCK = 4096;
const CHUNK = 1 << 20;

/** The image that `disks32` and `disks64` expect: every block of 4 KiB begins with its number. `size` is in whole MiB. */
export function writeDiskImage(path: string, size: number): void {
  const chunk = Buffer.alloc(CHUNK);
  const fd = openSync(path, 'w');
  ftruncateSync(fd, size);
  for (let at = 0; at < size; at += CHUNK) {
    for (let block = 0; block < CHUNK; block += BLOCK) chunk.writeUInt32LE((at + block) / BLOCK, block);
    writeSync(fd, chunk, 0, CHUNK, at);
  }
  // Else the first writes of a guest would wait for these.
  fsyncSync(fd);
  closeSync(fd);
}
