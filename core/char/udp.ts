import { createSocket, type Socket } from 'node:dgram';
import { SouthbridgeError } from '../errors.ts';
import { Chardev } from './chardev.ts';

export interface UdpOptions {
  readonly host: string;
  readonly port: number;
  readonly localHost: string;
  readonly localPort: number;
}

/** Datagrams to one peer; what comes in is a stream of their contents. */
export class UdpChardev extends Chardev {
  readonly #options: UdpOptions;
  #socket: Socket | undefined;

  constructor(label: string, options: UdpOptions) {
    super(label);
    this.#options = options;
  }

  override get filename(): string {
    return 'udp';
  }

  override async open(): Promise<void> {
    const socket = createSocket('udp4');
    this.#socket = socket;
    const { localHost, localPort } = this.#options;
    await new Promise<void>((resolve, reject) => {
      socket.once('error', cause => {
        reject(new SouthbridgeError('ERR_CHARDEV', `chardev ${this.label}: ${cause.message}`, undefined, { cause }));
      });
      socket.bind({ port: localPort, address: localHost === '' ? '0.0.0.0' : localHost }, resolve);
    });
    socket.removeAllListeners('error').on('error', () => undefined);
    socket.on('message', message => this.push(message));
    this.opened();
  }

  protected override transmit(bytes: Uint8Array): number {
    this.#socket?.send(Buffer.from(bytes), this.#options.port, this.#options.host || 'localhost');
    return bytes.length;
  }

  override dispose(): void {
    this.#socket?.close();
    this.#socket = undefined;
  }
}
