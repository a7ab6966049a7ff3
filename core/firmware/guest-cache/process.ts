import { spawn } from 'node:child_process';
import { SouthbridgeError } from '../../errors.ts';

export interface RunOptions {
  readonly cwd?: string;
  readonly input?: Uint8Array;
  readonly environment?: Readonly<Record<string, string>>;
  /** What to do where the program is not installed. */
  readonly hint?: string;
}

/**
 * Runs a host program to its end and returns what it wrote to standard output.
 *
 * @throws SouthbridgeError ERR_PROGRAM_MISSING where it is not installed, ERR_PROGRAM_FAILED with the end of its standard
 * error where it exits with anything but 0
 */
export function run(program: string, args: readonly string[], options: RunOptions = {}): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd: options.cwd,
      env: { ...process.env, LC_ALL: 'C', ...options.environment },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const output: Buffer[] = [];
    const complaints: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => output.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => complaints.push(chunk));
    // A program that has read enough closes its end early: its exit code tells, not our EPIPE.
    child.stdin.on('error', () => undefined);
    child.stdin.end(options.input);
    child.on('error', cause => {
      reject(new SouthbridgeError('ERR_PROGRAM_MISSING', `cannot run '${program}'`, options.hint, { cause }));
    });
    child.on('close', (code, signal) => {
      if (code === 0) {
        resolve(Buffer.concat(output));
        return;
      }
      const report = Buffer.concat(complaints).toString().trim().split('\n').slice(-6).join('; ');
      const how = code === null ? `was ended by ${signal ?? 'a signal'}` : `failed with exit code ${code}`;
      reject(
        new SouthbridgeError(
          'ERR_PROGRAM_FAILED',
          `'${program}' ${how}${report === '' ? '' : `: ${report}`}`,
          options.hint,
        ),
      );
    });
  });
}
