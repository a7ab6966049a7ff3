import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const PROGRAM = fileURLToPath(new URL('../../southbridge.js', import.meta.url));
const PATIENCE_MS = 150_000;

/** What a run of the program left. */
export interface Run {
  readonly output: string;
  readonly errors: string;
  readonly status: number | null;
}

/** The program on the software CPU with these options, until its guest ends it. */
export function runToEnd(args: readonly string[]): Promise<Run> {
  const child = spawn(process.execPath, [PROGRAM, '-accel', 'wasm', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: PATIENCE_MS,
    killSignal: 'SIGKILL',
  });
  let output = '';
  let errors = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString('latin1');
  });
  child.stderr.on('data', (chunk: Buffer) => {
    errors += chunk.toString();
  });
  return new Promise(resolve => child.on('close', status => resolve({ output, errors, status })));
}
