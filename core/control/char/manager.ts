import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Chardev } from '../../char/chardev.ts';
import type { FdSocket } from '../../char/fd-socket.ts';
import type { MuxActions, MuxChardev } from '../../char/mux.ts';
import type { InputHandler } from '../../display/input.ts';
import { SouthbridgeError } from '../../errors.ts';
import { OptionError, type Opts } from '../options/opts.ts';
import { QmpError } from '../qapi/error.ts';
import type { TlsRequest } from '../startup/tls-objects.ts';
import { type ChardevSpec, optsFromCompat, specFromOpts } from './spec.ts';

/** How long the end of the program waits for a client to take its last replies. */
const FLUSH_MS = 500;

/** Servers of protocols that never pass file descriptors. */
const SERVERS = new Set(['qtest', 'gdb']);

/** What is put over a connection before anybody uses it. */
type Layer = (stream: Duplex) => Promise<Duplex>;

/** A WebSocket in each connection, in its TLS session where it is to have one. */
async function webSockets(tls: Layer | undefined): Promise<Layer> {
  const { acceptWebSocket } = await import('../../host/websocket.ts');
  return async stream => acceptWebSocket(tls === undefined ? stream : await tls(stream));
}

/** Where the native addon is, monitors on unix sockets take file descriptors; without it everything else works. */
async function fdReceiver(): Promise<((socket: Socket) => FdSocket | undefined) | undefined> {
  const [{ FdSocket: Receiver }, { loadNative }] = await Promise.all([
    import('../../char/fd-socket.ts'),
    import('../../host/native.ts'),
  ]);
  try {
    loadNative();
  } catch {
    return undefined;
  }
  return socket => Receiver.adopt(socket);
}

type SocketSpec = Extract<ChardevSpec, { kind: 'socket' }>;

function tlsRequest({ server, address }: SocketSpec, { creds, authz }: NonNullable<SocketSpec['tls']>): TlsRequest {
  if (server) return { creds, endpoint: 'server', authz };
  return { creds, endpoint: 'client', hostname: address.type === 'inet' ? address.host : undefined };
}

interface Entry {
  readonly chardev: Chardev;
  readonly mux: MuxChardev | undefined;
}

/** What the character devices need of the program. */
export interface CharHost extends MuxActions {
  readonly daemonized: boolean;
  /** Makes `handler` one of the machine's, as soon as there is one; returns how to take it away. */
  plugInput(handler: InputHandler): () => void;
  /** Ends the program with this status. */
  exit(status: number): void;
  /** Told where a server waits for its first client. */
  info(message: string): void;
  /** What makes a connection a TLS session. @throws QmpError where the credentials are missing or for the other side */
  secure(request: TlsRequest): Promise<Layer>;
}

/** All character devices of the program, by id. Each kind's module is loaded when the first of its kind is made. */
export class CharManager {
  readonly #entries = new Map<string, Entry>();
  readonly #host: CharHost;

  constructor(host: CharHost) {
    this.#host = host;
  }

  /** @throws QmpError where there is one of that name */
  checkFree(id: string): void {
    if (this.#entries.has(id)) throw new QmpError(`Chardev with id '${id}' already exists`);
  }

  /** Makes and opens a device. Throws OptionError or SouthbridgeError. */
  async add(id: string, spec: ChardevSpec): Promise<Chardev> {
    this.checkFree(id);
    if (spec.kind === 'mux') return this.#addMux(id, spec.base);
    const chardev = await this.#make(id, spec);
    if (spec.log !== undefined) chardev.logTo(spec.log.path, spec.log.append);
    await chardev.open();
    this.#entries.set(id, { chardev, mux: undefined });
    return chardev;
  }

  /** As `-chardev` does: with `mux=on` the device proper gets `-base` behind its id. */
  async addOpts(opts: Opts): Promise<Chardev> {
    const { id } = opts;
    if (id === undefined) throw new OptionError('chardev: no id specified');
    const spec = specFromOpts(opts);
    if (!opts.bool('mux')) return this.add(id, spec);
    await this.add(`${id}-base`, spec);
    return this.add(id, { kind: 'mux', base: `${id}-base` });
  }

  /**
   * As `-serial`, `-qmp` and the like do: an older-form description, `chardev:id`, or `none` for none at all.
   * @returns the device, and whether a monitor is wanted on it too
   */
  async addCompat(label: string, text: string): Promise<{ id: string; monitor: boolean } | undefined> {
    if (text === 'none') return undefined;
    if (text.startsWith('chardev:')) {
      const id = text.slice('chardev:'.length);
      if (!this.#entries.has(id))
        throw new OptionError(`could not connect serial device to character backend '${text}'`);
      return { id, monitor: false };
    }
    const opts = optsFromCompat(label, text);
    if (opts === undefined) throw new OptionError(`'${text}' is not a valid char driver`);
    await this.addOpts(opts);
    return { id: label, monitor: text.startsWith('mon:') };
  }

  get(id: string): Chardev | undefined {
    return this.#entries.get(id)?.chardev;
  }

  get ids(): string[] {
    return [...this.#entries.keys()];
  }

  /** The device for one more user: a place on a mux, or the device itself where nobody has it. */
  claim(id: string): Chardev {
    const entry = this.#entries.get(id);
    if (entry === undefined) throw new SouthbridgeError('ERR_CHARDEV', `chardev "${id}" not found`);
    if (entry.mux !== undefined) return entry.mux.port();
    if (entry.chardev.inUse) throw new SouthbridgeError('ERR_CHARDEV', `Device '${id}' is in use`);
    return entry.chardev;
  }

  /** Ends the connection of a socket, as if the peer had. */
  hangUp(id: string): void {
    this.#entries.get(id)?.chardev.hangUp();
  }

  /** `chardev-remove`. */
  remove(id: string): void {
    const entry = this.#entries.get(id);
    if (entry === undefined) throw new QmpError(`Chardev '${id}' not found`);
    if (entry.chardev.inUse) throw new QmpError(`Chardev '${id}' is busy`);
    this.#entries.delete(id);
    entry.chardev.dispose();
  }

  /** `chardev-change`: puts a new device behind the old one's user. */
  async change(id: string, spec: ChardevSpec): Promise<Chardev> {
    const entry = this.#entries.get(id);
    if (entry === undefined) throw new QmpError(`Chardev '${id}' does not exist`);
    if (entry.mux !== undefined || spec.kind === 'mux') throw new QmpError('Mux device hotswap not supported yet');
    const { user, userOpen } = entry.chardev;
    const fresh = await this.#make(id, spec);
    await fresh.open();
    entry.chardev.detach();
    entry.chardev.dispose();
    this.#entries.set(id, { chardev: fresh, mux: undefined });
    if (user !== undefined) fresh.attach(user);
    fresh.setUserOpen(userOpen);
    return fresh;
  }

  /** Waits, not for long, until what was written has left the process. */
  async flush(): Promise<void> {
    await Promise.all([...this.#entries.values()].map(({ chardev }) => chardev.flush(FLUSH_MS)));
  }

  dispose(): void {
    for (const { chardev } of this.#entries.values()) chardev.dispose();
    this.#entries.clear();
  }

  async #addMux(id: string, baseId: string): Promise<Chardev> {
    const base = this.#entries.get(baseId);
    if (base === undefined) throw new OptionError(`mux: base chardev ${baseId} not found`);
    const { MuxChardev } = await import('../../char/mux.ts');
    const mux = new MuxChardev(id, base.chardev, this.#host);
    await mux.open();
    this.#entries.set(id, { chardev: mux, mux });
    return mux;
  }

  async #make(id: string, spec: ChardevSpec): Promise<Chardev> {
    switch (spec.kind) {
      case 'socket': {
        const { SocketChardev } = await import('../../char/socket.ts');
        const waiting = (filename: string): void => this.#host.info(`QEMU waiting for connection on: ${filename}`);
        const upgrade = spec.address.type !== 'inet' && !SERVERS.has(id) ? await fdReceiver() : undefined;
        const tls = spec.tls === undefined ? undefined : await this.#host.secure(tlsRequest(spec, spec.tls));
        const secure = spec.websocket ? await webSockets(tls) : tls;
        return new SocketChardev(id, {
          ...spec,
          waiting,
          ...(upgrade !== undefined && { upgrade }),
          ...(secure !== undefined && { secure }),
        });
      }
      case 'stdio': {
        if (this.#host.daemonized) throw new OptionError('cannot use stdio with -daemonize');
        const { StdioChardev } = await import('../../char/stdio.ts');
        return new StdioChardev(id, spec.signal);
      }
      case 'pipe': {
        const { PipeChardev } = await import('../../char/pipe.ts');
        return new PipeChardev(id, spec.path);
      }
      case 'udp': {
        const { UdpChardev } = await import('../../char/udp.ts');
        return new UdpChardev(id, spec);
      }
      case 'serial': {
        const { TtyChardev } = await import('../../char/tty.ts');
        return new TtyChardev(id, spec.path);
      }
      case 'pty': {
        const { PtyChardev } = await import('../../char/pty.ts');
        return new PtyChardev(id);
      }
      case 'parallel':
      case 'mux':
        throw new OptionError(
          `chardev ${id}: this program cannot drive a parallel port of the host`,
          "use 'file', 'pipe' or 'socket' instead",
        );
      case 'file': {
        const { FileChardev } = await import('../../char/simple.ts');
        return new FileChardev(id, spec.path, spec);
      }
      case 'ringbuf': {
        const { RingbufChardev } = await import('../../char/simple.ts');
        return new RingbufChardev(id, spec.size);
      }
      case 'msmouse': {
        const { MsMouseChardev } = await import('../../char/msmouse.ts');
        return new MsMouseChardev(id, handler => this.#host.plugInput(handler));
      }
      case 'testdev': {
        const { TestdevChardev } = await import('../../char/testdev.ts');
        return new TestdevChardev(id, status => this.#host.exit(status));
      }
      case 'vc': {
        const { VcChardev } = await import('../../char/simple.ts');
        return new VcChardev(id);
      }
      default: {
        const { NullChardev } = await import('../../char/simple.ts');
        return new NullChardev(id);
      }
    }
  }
}
