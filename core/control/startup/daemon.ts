import { spawn } from 'node:child_process';
import { closeSync, writeSync } from 'node:fs';

/** Set in the process that goes on in the background: the descriptor on which its parent waits to hear that it is ready. */
const READY_VARIABLE = 'SOUTHBRIDGE_READY_FD';

/** Numbers of inherited file descriptors that the options name. */
function namedFds(args: readonly string[]): number[] {
  const fds = new Set<number>();
  for (const arg of args) {
    for (const match of arg.matchAll(/"?fds?"?\s*[=:]\s*"?([0-9]+(?::[0-9]+)*)/g)) {
      for (const fd of (match[1] ?? '').split(':')) fds.add(Number(fd));
    }
  }
  return [...fds].filter(fd => fd > 2 && fd < 4096);
}

/**
 * `-daemonize`: starts this program once more in the background and waits until it is ready, passing on what it has to
 * say. Returns false in the background process itself.
 */
export function becomeDaemon(args: readonly string[]): Promise<boolean> {
  if (process.env[READY_VARIABLE] !== undefined) return Promise.resolve(false);
  return new Promise(resolve => {
    const inherited = namedFds(args);
    const readyFd = Math.max(2, ...inherited) + 1;
    const stdio: ('ignore' | 'pipe' | number)[] = Array.from({ length: readyFd + 1 }, () => 'ignore');
    stdio[1] = 'pipe';
    stdio[2] = 'pipe';
    stdio[readyFd] = 'pipe';
    for (const fd of inherited) stdio[fd] = fd;
    const child = spawn(process.execPath, [...process.execArgv, process.argv[1] ?? '', ...args], {
      detached: true,
      stdio,
      env: { ...process.env, [READY_VARIABLE]: String(readyFd) },
    });
    child.stdout?.pipe(process.stdout);
    child.stderr?.pipe(process.stderr);
    child.stdio[readyFd]?.once('data', () => {
      child.unref();
      process.exit(0);
    });
    child.once('exit', code => {
      process.exitCode = code ?? 1;
      resolve(true);
    });
  });
}

/** Tells the process in the foreground that the machine is up; nobody reads standard output from then on. */
export function tellParent(): void {
  const fd = Number(process.env[READY_VARIABLE]);
  process.stdout.on('error', () => undefined);
  process.stderr.on('error', () => undefined);
  process.chdir('/');
  writeSync(fd, 'R');
  closeSync(fd);
}
