import { spawnSync } from 'node:child_process';
import { closeSync, existsSync } from 'node:fs';
import { SouthbridgeError } from '../errors.ts';
import { mayStartPrograms } from '../host/sandbox.ts';
import { hasVnetHeader, openTap, setSendBuffer, stopWaiting } from '../host/tap.ts';
import { DEFAULT_BRIDGE, defaultHelper, runBridgeHelper } from './bridge-helper.ts';
import type { NetBackend, NetClient } from './net-client.ts';
import { TapQueue } from './tap-queue.ts';

/** `-netdev tap`: QEMU's NetdevTapOptions (QAPI), with its descriptors found. */
export interface TapNetOptions {
  readonly ifname?: string | undefined;
  /** A tap that someone else has opened, in place of `ifname`; `fds` are its queues. */
  readonly fd?: number | undefined;
  readonly fds?: readonly number[] | undefined;
  /** Run with the interface's name once it is open; `no` runs none. */
  readonly script?: string | undefined;
  readonly downscript?: string | undefined;
  /** A program that makes the tap, on the bridge `br`. */
  readonly helper?: string | undefined;
  readonly br?: string | undefined;
  /** Bytes that may wait in the interface; without it, as many as come. */
  readonly sndbuf?: number | undefined;
  readonly vnet_hdr?: boolean | undefined;
  readonly queues?: number | undefined;
  readonly vhost?: boolean | undefined;
  readonly vhostforce?: boolean | undefined;
  readonly vhostfd?: string | undefined;
  readonly vhostfds?: string | undefined;
}

type Option = keyof TapNetOptions;

const NO_SCRIPT = 'no';
/** QEMU's, where the host has them. */
const DEFAULT_SCRIPTS = { script: '/etc/qemu-ifup', downscript: '/etc/qemu-ifdown' } as const;
const QUEUES_MAX = 1024;
const INT_MAX = 0x7fff_ffff;

/** An Ethernet interface of the host (tun/tap), bridged or routed as the host has it. */
export class TapNet implements NetBackend {
  readonly id: string;
  readonly client: NetClient;
  readonly queues: readonly NetClient[];
  readonly #taps: readonly TapQueue[];
  readonly #name: string;
  readonly #downscript: string;
  #disposed = false;

  private constructor(id: string, taps: readonly [TapQueue, ...TapQueue[]], name: string, downscript: string) {
    this.id = id;
    this.#taps = taps;
    this.#name = name;
    this.#downscript = downscript;
    this.client = taps[0].client;
    this.queues = taps.map(tap => tap.client);
    if (taps.length > 1) for (const tap of taps) tap.client.attachQueue = on => tap.attach(on);
  }

  /**
   * @throws SouthbridgeError ERR_TAP where the interface cannot be had, ERR_NETDEV with QEMU's text where the options do not fit
   * together or a script fails, ERR_NETDEV_BRIDGE from the helper, ERR_VHOST_NET
   */
  static async open(id: string, options: TapNetOptions): Promise<TapNet> {
    checkOptions(options);
    const { fd, fds, helper, br = DEFAULT_BRIDGE } = options;
    if (fd !== undefined) return TapNet.#over(id, [fd], options, () => `fd=${fd}`);
    if (fds !== undefined) return TapNet.#over(id, fds, options, index => `fd=${fds[index]}`);
    if (helper !== undefined) {
      return TapNet.#over(id, [await runBridgeHelper(helper, br)], options, () => `helper=${helper}`);
    }
    return TapNet.#make(id, options);
  }

  /** `-netdev bridge`: a tap that a helper makes. */
  static async onBridge(id: string, br = DEFAULT_BRIDGE, helper = defaultHelper()): Promise<TapNet> {
    return TapNet.#over(id, [await runBridgeHelper(helper, br)], {}, () => `helper=${helper},br=${br}`);
  }

  /** Taps that are open already. */
  static #over(
    id: string,
    fds: readonly number[],
    { sndbuf }: TapNetOptions,
    describe: (index: number) => string,
  ): TapNet {
    return TapNet.#assemble(id, fds, { sndbuf, name: '', downscript: NO_SCRIPT }, describe);
  }

  static #make(id: string, options: TapNetOptions): TapNet {
    const { queues = 1, sndbuf, vnet_hdr: vnetHeader = true } = options;
    const script = scriptOf('script', options);
    const downscript = scriptOf('downscript', options);
    const fds: number[] = [];
    let name = options.ifname ?? '';
    try {
      for (let index = 0; index < queues; index++) {
        const tap = openTap(name, { vnetHeader, multiQueue: queues > 1 });
        fds.push(tap.fd);
        name = tap.name;
      }
      runScript(script, name);
    } catch (error) {
      for (const fd of fds) closeSync(fd);
      throw error;
    }
    return TapNet.#assemble(
      id,
      fds,
      { sndbuf, name, downscript },
      index =>
        `ifname=${name},script=${index === 0 ? script : NO_SCRIPT},downscript=${index === 0 ? downscript : NO_SCRIPT}`,
    );
  }

  static #assemble(
    id: string,
    fds: readonly number[],
    parts: { readonly sndbuf: number | undefined; readonly name: string; readonly downscript: string },
    describe: (index: number) => string,
  ): TapNet {
    const taps: TapQueue[] = [];
    try {
      for (const fd of fds) {
        stopWaiting(fd);
        setSendBuffer(
          fd,
          Math.min(parts.sndbuf === 0 ? INT_MAX : (parts.sndbuf ?? INT_MAX), INT_MAX),
          parts.sndbuf !== undefined,
        );
        if (hasVnetHeader(fd) !== (taps[0]?.client.vnetHeaders !== undefined) && taps.length > 0) {
          throw refused('vnet_hdr not consistent across given tap fds');
        }
        const tap = new TapQueue(id, fd);
        tap.client.description = describe(taps.length);
        taps.push(tap);
      }
    } catch (error) {
      for (const tap of taps) tap.close();
      for (const fd of fds.slice(taps.length)) closeSync(fd);
      throw error;
    }
    const [first, ...others] = taps;
    if (first === undefined) throw refused('a tap needs a descriptor');
    return new TapNet(id, [first, ...others], parts.name, parts.downscript);
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    try {
      runScript(this.#downscript, this.#name);
    } finally {
      for (const tap of this.#taps) tap.close();
    }
  }
}

const refused = (message: string): SouthbridgeError => new SouthbridgeError('ERR_NETDEV', message);

/** What cannot be given beside another option; the message is QEMU's. */
function checkOptions(options: TapNetOptions): void {
  const invalidWith = (option: Option, others: readonly Option[], last: string): void => {
    if (options[option] === undefined || others.every(other => options[other] === undefined)) return;
    const listed = others.slice(0, -1).map(other => `${other}=`);
    throw refused(`${listed.join(', ')}, ${last} are invalid with ${option}=`);
  };
  const own: readonly Option[] = ['ifname', 'script', 'downscript', 'vnet_hdr'];
  invalidWith('fd', [...own, 'helper', 'queues', 'fds', 'vhostfds'], 'and vhostfds=');
  invalidWith('fds', [...own, 'helper', 'queues', 'vhostfd'], 'and vhostfd=');
  invalidWith('helper', [...own, 'queues', 'vhostfds'], 'and vhostfds=');
  const { fds, queues = 1, vhostfds, vhostfd, vhost, vhostforce } = options;
  if (fds === undefined && vhostfds !== undefined) throw refused("vhostfds= is invalid if fds= wasn't specified");
  if (queues < 1 || queues > QUEUES_MAX) {
    throw new SouthbridgeError('ERR_NETDEV', `queues=${queues} is not between 1 and ${QUEUES_MAX}`);
  }
  if (vhost ?? (vhostforce === true || vhostfd !== undefined || vhostfds !== undefined)) {
    throw new SouthbridgeError(
      'ERR_VHOST_NET',
      'tap: vhost=on: guest RAM is not handed to the vhost-net of the kernel',
      'leave vhost= away; the card then leaves checksums and segments to the tap all the same',
    );
  }
  if (vhostfd !== undefined || vhostfds !== undefined) throw refused('vhostfd(s)= is not valid without vhost');
}

/** A script that the user has not chosen is QEMU's of this host; none where there is none. */
function scriptOf(option: keyof typeof DEFAULT_SCRIPTS, options: TapNetOptions): string {
  const given = options[option];
  if (given !== undefined) return given === '' ? NO_SCRIPT : given;
  return existsSync(DEFAULT_SCRIPTS[option]) ? DEFAULT_SCRIPTS[option] : NO_SCRIPT;
}

function runScript(script: string, name: string): void {
  if (script === NO_SCRIPT) return;
  mayStartPrograms(`network script ${script}`);
  const { status, error } = spawnSync(script, [name], { stdio: 'inherit' });
  if (error !== undefined) throw refused(`could not launch network script ${script}: ${error.message}`);
  if (status !== 0) throw refused(`network script ${script} failed with status ${status ?? 'unknown'}`);
}
