import { type ChildProcess, spawn } from 'node:child_process';
import { SouthbridgeError } from '../errors.ts';
import { StreamChardev } from './stream.ts';

/**
 * Opens a pseudo-terminal, prints the name of its user's side, and copies between it and its own standard input and
 * output. Node has no call for it; socat does.
 */
const OPENER = ['-dd', 'PTY,rawer,wait-slave=0', 'STDIO'];

/** A pseudo-terminal: another program opens the terminal that `filename` names. */
export class PtyChardev extends StreamChardev {
  #process: ChildProcess | undefined;
  #slave = '';

  override get filename(): string {
    return `pty:${this.#slave}`;
  }

  override open(): Promise<void> {
    return new Promise((resolve, reject) => {
      const child = spawn('socat', OPENER, { stdio: ['pipe', 'pipe', 'pipe'] });
      this.#process = child;
      let log = '';
      child.once('error', cause => {
        reject(
          new SouthbridgeError('ERR_CHARDEV', 'Failed to create PTY: socat is not installed', 'apt install socat', {
            cause,
          }),
        );
      });
      child.stderr.on('data', (chunk: Buffer) => {
        if (this.#slave !== '') return;
        log += chunk.toString('latin1');
        const match = /PTY is (\S+)/.exec(log);
        if (match?.[1] === undefined) return;
        this.#slave = match[1];
        process.stderr.write(`char device redirected to ${this.#slave} (label ${this.label})\n`);
        this.connect(child.stdout, child.stdin);
        resolve();
      });
    });
  }

  override dispose(): void {
    this.disconnect();
    this.#process?.kill();
    this.#process = undefined;
  }
}
