import { spawn } from 'node:child_process';
import { closeSync, openSync, writeSync } from 'node:fs';
import { hostCalls } from './calls.ts';

/** In the environment of a daemon: the descriptor that tells its parent that it is ready. */
const READY_FD_VARIABLE = 'SOUTHBRIDGE_READY_FD';
const READY_FD = 3;

/** Nanoseconds that this thread has spent on a CPU. */
export const threadCpuTimeNs = (): number => hostCalls().threadCpuTime();

/** Another descriptor for the same open file, closed by exec. */
export const duplicate = (fd: number): number => hostCalls().duplicate(fd);

/** Makes `target` mean what `fd` does (dup2). */
export function redirect(fd: number, target: number): void {
  hostCalls().duplicate(fd, target);
}

export function closeOnExec(fd: number, on: boolean): void {
  hostCalls().closeOnExec(fd, on);
}

/** The O_ flags of an open file (fcntl(2), F_GETFL). */
export const statusFlags = (fd: number): number => hostCalls().statusFlags(fd);

export function changeRoot(path: string): void {
  hostCalls().changeRoot(path);
}

/** Keeps all of this process's memory out of swap; with `onFault`, as it is touched. */
export function lockAllMemory(onFault: boolean): void {
  hostCalls().lockAllMemory(onFault);
}

/**
 * `-daemonize` without fork: runs this program again, detached and with `args`, and resolves with its exit status once
 * it has said that it is ready (0) or has ended before that. Until then it has our terminal for its messages.
 */
export function runDetached(program: string, args: readonly string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...process.execArgv, program, ...args], {
      detached: true,
      stdio: ['ignore', 'inherit', 'inherit', 'pipe'],
      env: { ...process.env, [READY_FD_VARIABLE]: String(READY_FD) },
    });
    child.once('error', reject);
    child.once('exit', code => resolve(code ?? 1));
    child.stdio[READY_FD]?.once('data', () => {
      child.unref();
      resolve(0);
    });
  });
}

/** Whether this process was started by {@link runDetached}. */
export const isDaemon = (): boolean => process.env[READY_FD_VARIABLE] !== undefined;

/** In a daemon, once all that can fail is done: gives up the terminal and lets the parent go. Elsewhere it does nothing. */
export function daemonReady(): void {
  const fd = Number(process.env[READY_FD_VARIABLE] ?? Number.NaN);
  if (!Number.isInteger(fd)) return;
  delete process.env[READY_FD_VARIABLE];
  const nowhere = openSync('/dev/null', 'r+');
  for (const standard of [0, 1, 2]) redirect(nowhere, standard);
  closeSync(nowhere);
  writeSync(fd, 'ready');
  closeSync(fd);
}
