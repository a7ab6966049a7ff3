import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { SouthbridgeError } from '../../errors.ts';
import type { ReplayPort } from './replay.ts';

const READS = { 1: 'b', 2: 'w', 4: 'l' } as const;

const letter = (size: number): string => (size === 1 || size === 2 ? READS[size] : READS[4]);

/** A client of a qtest server, QEMU's or ours (QEMU's documentation, "QTest Device Emulation Testing Framework"). */
export class QtestClient {
  readonly #socket: Socket;
  #buffer = '';
  readonly #waiting: { resolve(line: string): void; reject(error: Error): void }[] = [];

  private constructor(socket: Socket) {
    this.#socket = socket;
    const lost = (): void => {
      for (const { reject } of this.#waiting.splice(0))
        reject(new SouthbridgeError('ERR_QTEST', 'the qtest server has closed the connection'));
    };
    socket
      .setEncoding('utf8')
      .on('data', (text: string) => this.#received(text))
      .on('close', lost)
      .on('error', lost);
  }

  /** Connects to a server that listens on a Unix socket: `-qtest unix:PATH,server=on`. */
  static async connect(path: string): Promise<QtestClient> {
    const socket = createConnection(path);
    await once(socket, 'connect');
    return new QtestClient(socket);
  }

  /** Takes a connection of a server that connected to us. */
  static over(socket: Socket): QtestClient {
    return new QtestClient(socket);
  }

  /** Sends one command; gives what follows its `OK`. @throws SouthbridgeError ERR_QTEST with the server's answer */
  async command(line: string): Promise<string> {
    const answer = await new Promise<string>((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#socket.write(`${line}\n`);
    });
    if (!answer.startsWith('OK')) throw new SouthbridgeError('ERR_QTEST', `'${line}': ${answer}`);
    return answer.slice(3);
  }

  /** Registers from `base` on, in memory or among the I/O ports, as a place to replay traffic. */
  port(space: 'memory' | 'io', base: number, options: { readonly stepsClock?: boolean } = {}): ReplayPort {
    const [read, write] = space === 'memory' ? ['read', 'write'] : ['in', 'out'];
    return {
      read: async (offset, size) => Number(await this.command(`${read}${letter(size)} ${base + offset}`)),
      write: async (offset, size, value) => {
        await this.command(`${write}${letter(size)} ${base + offset} ${value}`);
      },
      ...(options.stepsClock && {
        advance: async (deltaNs: number) => {
          await this.command(`clock_step ${Math.round(deltaNs)}`);
        },
      }),
    };
  }

  close(): void {
    this.#socket.destroy();
  }

  #received(text: string): void {
    this.#buffer += text;
    for (let end = this.#buffer.indexOf('\n'); end >= 0; end = this.#buffer.indexOf('\n')) {
      const line = this.#buffer.slice(0, end);
      this.#buffer = this.#buffer.slice(end + 1);
      // Interrupts are reported in between.
      if (!line.startsWith('IRQ ')) this.#waiting.shift()?.resolve(line);
    }
  }
}
