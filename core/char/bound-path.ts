import { readFileSync, readlinkSync } from 'node:fs';

/** The path that a listening unix socket is bound to, which Node does not tell of one that it was handed; undefined where it has none. */
export function boundPath(fd: number): string | undefined {
  try {
    const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/self/fd/${fd}`))?.[1];
    // proc(5): Num RefCount Protocol Flags Type St Inode Path
    for (const line of readFileSync('/proc/net/unix', 'utf8').split('\n')) {
      const found = /^(?:\S+ +){6}(?<inode>\d+) (?<path>.+)$/.exec(line)?.groups;
      if (found !== undefined && found['inode'] === inode) return found['path'];
    }
  } catch {
    // No /proc here.
  }
  return undefined;
}
