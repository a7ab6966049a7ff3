import { SouthbridgeError } from '../errors.ts';
import { hostCalls, type NativeSlirp } from './calls.ts';

/** A network inside this process, as libslirp sets it up. Addresses are text; QEMU's defaults are in brackets. */
export interface SlirpConfig {
  /** The guest reaches nothing but the forwards. */
  readonly restricted?: boolean;
  readonly ipv4?: boolean;
  /** [10.0.2.0] */
  readonly network?: string;
  /** [255.255.255.0] */
  readonly mask?: string;
  /** What the guest takes for its gateway. [10.0.2.2] */
  readonly host?: string;
  /** [10.0.2.15] */
  readonly dhcpStart?: string;
  /** [10.0.2.3] */
  readonly nameServer?: string;
  readonly ipv6?: boolean;
  /** [fec0::] */
  readonly prefix6?: string;
  /** [64] */
  readonly prefix6Length?: number;
  /** [fec0::2] */
  readonly host6?: string;
  /** [fec0::3] */
  readonly nameServer6?: string;
  /** The name that DHCP gives the guest. */
  readonly hostName?: string;
  readonly tftpServerName?: string;
  /** A folder that the guest may read over TFTP. */
  readonly tftpPath?: string;
  readonly bootFile?: string;
  readonly dnsSearch?: readonly string[];
  readonly domainName?: string;
}

export interface SlirpEvents {
  /** A frame for the guest: the first `length` bytes of `frame`, which are only valid during the call. */
  frame(frame: Uint8Array, length: number): void;
  /** The guest sent something that makes no sense. */
  guestError?(message: string): void;
}

const DEFAULTS = {
  ...{ ipv4: true, network: '10.0.2.0', mask: '255.255.255.0', host: '10.0.2.2', dhcpStart: '10.0.2.15' },
  ...{
    nameServer: '10.0.2.3',
    ipv6: true,
    prefix6: 'fec0::',
    prefix6Length: 64,
    host6: 'fec0::2',
    nameServer6: 'fec0::3',
  },
} as const satisfies SlirpConfig;

/** A TCP/IP stack for one guest that needs no privilege: DHCP, DNS, TFTP, and connections out through the host's sockets. */
export class Slirp {
  readonly #native: NativeSlirp;

  /** @throws SouthbridgeError ERR_SLIRP_MISSING where the host has no libslirp, ERR_SLIRP_CONFIG for addresses that do not fit */
  constructor(config: SlirpConfig, events: SlirpEvents) {
    const { SlirpStack } = hostCalls();
    try {
      const native: NativeSlirp = new SlirpStack(
        { ...DEFAULTS, ...config },
        length => events.frame(native.frame, length),
        message => events.guestError?.(message),
      );
      this.#native = native;
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      if (!why.includes('libslirp.so'))
        throw new SouthbridgeError('ERR_SLIRP_CONFIG', `user-mode network: ${why}`, undefined, { cause });
      throw new SouthbridgeError(
        'ERR_SLIRP_MISSING',
        `there is no user-mode network on this host: ${why}`,
        'install libslirp (Debian: libslirp0), or use another -netdev',
        { cause },
      );
    }
  }

  /** Takes the first `length` bytes of `frame` from the guest. Answers may come before it returns. */
  input(frame: Uint8Array, length: number): void {
    this.#native.input(frame, length);
  }

  /** Connections to the host's port reach the guest; '' and port 0 as QEMU's hostfwd has them. False where the port is taken. */
  addHostForward(
    protocol: 'tcp' | 'udp',
    hostAddress: string,
    hostPort: number,
    guestAddress: string,
    guestPort: number,
  ): boolean {
    return this.#native.addHostForward(
      protocol === 'udp',
      hostAddress || '0.0.0.0',
      hostPort,
      guestAddress || '0.0.0.0',
      guestPort,
    );
  }

  removeHostForward(protocol: 'tcp' | 'udp', hostAddress: string, hostPort: number): boolean {
    return this.#native.removeHostForward(protocol === 'udp', hostAddress || '0.0.0.0', hostPort);
  }

  /** The guest's connections to that address reach a unix socket, or the input and output of a command run for each. */
  addGuestForward(kind: 'unix' | 'command', target: string, guestAddress: string, guestPort: number): boolean {
    return this.#native.addGuestForward(kind, target, guestAddress, guestPort);
  }

  /** The table of `info usernet`. */
  connectionInfo(): string {
    return this.#native.connectionInfo();
  }

  close(): void {
    this.#native.close();
  }
}
