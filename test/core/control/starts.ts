import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const PROGRAM = fileURLToPath(new URL('../../../southbridge.js', import.meta.url));

/** Processes whose command line names `folder`. */
function processesOf(folder: string): string[] {
  return readdirSync('/proc')
    .filter(name => /^[0-9]+$/.test(name))
    .filter(pid => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(folder);
      } catch {
        return false;
      }
    });
}

/**
 * Starts the program `count` times in a row, with sockets, a pid file and memory of every kind, and ends it by turns through QMP and by
 * a signal. Returns what is left in the end: processes, files in its working and temporary folders, shared memory of its own.
 */
export async function leftBehind(count: number): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-starts-'));
  const temporary = join(folder, 'tmp');
  mkdirSync(temporary);
  const socket = (name: string): string => `unix:${join(folder, name)},server=on,wait=off`;
  const options = [
    ...['-machine', 'pc', '-accel', 'qtest', '-nodefaults', '-display', 'none', '-pidfile', join(folder, 'pid')],
    ...['-qmp', 'stdio', '-monitor', socket('hmp'), '-gdb', socket('gdb'), '-qtest', socket('qtest')],
    ...[
      '-vnc',
      `unix:${join(folder, 'vnc')}`,
      '-object',
      `memory-backend-file,id=f,mem-path=${temporary},size=1M,share=on`,
    ],
    ...['-object', 'memory-backend-memfd,id=m,size=1M', '-device', 'ivshmem-plain,memdev=f', '-device', 'edu'],
  ];
  const shared = new Set<string>();
  try {
    for (let start = 0; start < count; start++) {
      const child = spawn(process.execPath, [PROGRAM, ...options], {
        cwd: folder,
        env: { ...process.env, TMPDIR: temporary },
        stdio: ['pipe', 'pipe', 'ignore'],
      });
      shared.add(String(child.pid));
      const exited = once(child, 'exit');
      await Promise.race([once(child.stdout, 'data'), exited]);
      if (start % 2 === 0) child.stdin.write('{"execute":"qmp_capabilities"}{"execute":"quit"}');
      else child.kill('SIGTERM');
      const [code] = (await exited) as [number | null];
      if (code !== 0) return [`start ${start + 1} ended with status ${code}`];
    }
    return [
      ...processesOf(folder).map(pid => `process ${pid}`),
      ...readdirSync(folder).filter(name => name !== 'tmp'),
      ...readdirSync(temporary),
      ...readdirSync('/dev/shm').filter(name => [...shared].some(pid => name.includes(pid))),
    ];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
