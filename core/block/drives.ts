import { BlockBackend, type OnError } from './backend.ts';
import type { BlockGraph } from './graph.ts';
import { BlockError } from './io-error.ts';
import { BlockOptions, type OptionScalar } from './options.ts';
import { PERM_ALL } from './permissions.ts';
import type { DetectZeroes } from './requests.ts';
import { limitsAnything } from './throttle.ts';
import { takeLimits } from './throttle-options.ts';

/** Who takes a drive: the machine's controllers, or (`none`) whoever names it. */
export const INTERFACES = ['none', 'ide', 'scsi', 'floppy', 'pflash', 'mtd', 'sd', 'virtio', 'xen'] as const;

export type DriveInterface = (typeof INTERFACES)[number];

/** A `-drive`: a backend, and where it is to be plugged. */
export interface Drive {
  readonly id: string;
  readonly interface: DriveInterface;
  readonly bus: number;
  readonly unit: number;
  readonly media: 'disk' | 'cdrom';
  readonly backend: BlockBackend;
  /** Made without being asked for: nobody minds if it is not used. */
  readonly isDefault: boolean;
}

// Older names of the options.
const ALIASES: readonly (readonly [string, string])[] = [
  ['iops', 'throttling.iops-total'],
  ['iops_rd', 'throttling.iops-read'],
  ['iops_wr', 'throttling.iops-write'],
  ['bps', 'throttling.bps-total'],
  ['bps_rd', 'throttling.bps-read'],
  ['bps_wr', 'throttling.bps-write'],
  ['iops_max', 'throttling.iops-total-max'],
  ['iops_rd_max', 'throttling.iops-read-max'],
  ['iops_wr_max', 'throttling.iops-write-max'],
  ['bps_max', 'throttling.bps-total-max'],
  ['bps_rd_max', 'throttling.bps-read-max'],
  ['bps_wr_max', 'throttling.bps-write-max'],
  ['iops_size', 'throttling.iops-size'],
  ['group', 'throttling.group'],
  ['readonly', 'read-only'],
];

interface CacheMode {
  readonly writeback: boolean;
  readonly direct: boolean;
  readonly noFlush: boolean;
}

const CACHE_MODES: ReadonlyMap<string, CacheMode> = new Map([
  ['none', { writeback: true, direct: true, noFlush: false }],
  ['off', { writeback: true, direct: true, noFlush: false }],
  ['directsync', { writeback: false, direct: true, noFlush: false }],
  ['writeback', { writeback: true, direct: false, noFlush: false }],
  ['unsafe', { writeback: true, direct: false, noFlush: true }],
  ['writethrough', { writeback: false, direct: false, noFlush: false }],
]);

/** How `-drive` is read where it leaves something open. */
export interface DriveDefaults {
  /** The machine's `if`. */
  readonly interface: DriveInterface;
  /** `-snapshot`: nothing is written to the images. */
  readonly snapshot?: boolean;
  readonly isDefault?: boolean;
}

/** The drives of a machine. */
export class Drives {
  readonly graph: BlockGraph;
  readonly #drives = new Map<BlockBackend, Drive>();
  readonly #unitsPerBus = new Map<DriveInterface, number>([
    ['ide', 2],
    ['scsi', 7],
  ]);

  constructor(graph: BlockGraph) {
    this.graph = graph;
  }

  /** A machine's own number of drives on a bus, before any drive is added: `q35` has one disk on an AHCI port. */
  setUnitsPerBus(type: DriveInterface, units: number): void {
    this.#unitsPerBus.set(type, units);
  }

  [Symbol.iterator](): Iterator<Drive> {
    return this.#drives.values();
  }

  get(type: DriveInterface, bus: number, unit: number): Drive | undefined {
    for (const drive of this.#drives.values()) {
      if (drive.interface === type && drive.bus === bus && drive.unit === unit) return drive;
    }
    return undefined;
  }

  byIndex(type: DriveInterface, index: number): Drive | undefined {
    const units = this.#unitsPerBus.get(type) ?? 0;
    return units === 0 ? this.get(type, 0, index) : this.get(type, Math.floor(index / units), index % units);
  }

  /** The highest bus that has a drive; -1 without one. */
  maxBus(type: DriveInterface): number {
    let highest = -1;
    for (const drive of this.#drives.values()) if (drive.interface === type) highest = Math.max(highest, drive.bus);
    return highest;
  }

  of(backend: BlockBackend): Drive | undefined {
    return this.#drives.get(backend);
  }

  forget(backend: BlockBackend): void {
    this.#drives.delete(backend);
  }

  /** Drives that the machine has no place for, as messages; an empty list is as it should be. */
  orphans(): string[] {
    const messages: string[] = [];
    for (const { interface: type, bus, unit, backend, isDefault } of this.#drives.values()) {
      if (isDefault || type === 'virtio' || type === 'none' || backend.device !== undefined) continue;
      messages.push(`machine type does not support if=${type},bus=${bus},unit=${unit}`);
    }
    return messages;
  }

  /**
   * Opens a drive as `-drive` describes it.
   *
   * @throws BlockError in QEMU's words; nothing stays open then
   */
  async add(given: Iterable<readonly [string, OptionScalar]>, defaults: DriveDefaults): Promise<Drive> {
    const options = new BlockOptions(given);
    rename(options);
    const mediaName = options.string('media') ?? 'disk';
    if (mediaName !== 'disk' && mediaName !== 'cdrom') throw new BlockError(`'${mediaName}' invalid media`);
    const media = mediaName;
    let readOnly = media === 'cdrom';
    readOnly = (options.bool('read-only') ?? false) || readOnly;
    let copyOnRead = options.bool('copy-on-read') ?? false;
    if (readOnly && copyOnRead) {
      this.graph.warn('disabling copy-on-read on read-only drive');
      copyOnRead = false;
    }
    const type = takeInterface(options) ?? defaults.interface;
    const { bus, unit } = this.#place(options, type);
    const id = options.string('id') ?? this.#defaultId(type, bus, unit, media);
    const onError = takeErrorPolicies(options, type);
    const cache = takeCache(options);
    const snapshot = options.bool('snapshot') ?? defaults.snapshot ?? false;
    const detectZeroes: DetectZeroes = options.choice('detect-zeroes', ['off', 'on', 'unmap']) ?? 'off';
    const aio = options.string('aio');
    if (aio !== undefined && !['threads', 'native', 'io_uring'].includes(aio))
      throw new BlockError('invalid aio option');
    const limits = takeLimits(options, 'throttling.');
    const groupName = options.string('throttling.group') ?? id;
    const accountInvalid = options.bool('stats-account-invalid') ?? true;
    const accountFailed = options.bool('stats-account-failed') ?? true;
    options.list('stats-intervals');
    const format = options.string('format');
    if (format !== undefined) {
      if (options.has('driver')) throw new BlockError("Cannot specify both 'driver' and 'format'");
      options.set('driver', format);
    }
    const file = takeFile(options);

    const backend = new BlockBackend(this.graph, { perm: 0, shared: PERM_ALL });
    try {
      this.graph.nameBackend(backend, id);
      backend.name = id;
      backend.readOnlyIfEmpty = readOnly;
      if (file !== undefined || options.size > 0) {
        const settings = {
          readOnly: readOnly || snapshot,
          autoReadOnly: true,
          direct: cache.direct && !snapshot,
          noFlush: cache.noFlush,
        };
        let node = await this.graph.openTree(file, options, settings, false);
        if (snapshot) node = await this.graph.temporaryOverlay(node);
        if (copyOnRead) node = await this.graph.copyOnRead(node);
        node.settings.detectZeroes = detectZeroes;
        try {
          backend.insert(node);
        } catch (error) {
          await this.graph.released(node);
          throw error;
        }
      }
    } catch (error) {
      await backend.close();
      throw error;
    }
    backend.stats.accountInvalid = accountInvalid;
    backend.stats.accountFailed = accountFailed;
    backend.writeCache = cache.writeback;
    backend.onReadError = onError.read;
    backend.onWriteError = onError.write;
    backend.legacy = { media };
    if (limitsAnything(limits)) {
      const group = this.graph.throttleGroup(groupName);
      try {
        group.configure(limits);
      } catch (error) {
        await backend.close();
        throw error;
      }
      group.join(backend);
      backend.throttle = group;
    }
    const drive: Drive = { id, interface: type, bus, unit, media, backend, isDefault: defaults.isDefault ?? false };
    this.#drives.set(backend, drive);
    backend.onClose = () => this.forget(backend);
    return drive;
  }

  #place(options: BlockOptions, type: DriveInterface): { bus: number; unit: number } {
    let bus = options.number('bus') ?? 0;
    let unit = options.number('unit') ?? -1;
    const index = options.number('index') ?? -1;
    const units = this.#unitsPerBus.get(type) ?? 0;
    if (index !== -1) {
      if (bus !== 0 || unit !== -1) throw new BlockError('index cannot be used with bus and unit');
      bus = units === 0 ? 0 : Math.floor(index / units);
      unit = units === 0 ? index : index % units;
    }
    if (unit === -1) {
      unit = 0;
      while (this.get(type, bus, unit) !== undefined) {
        unit++;
        if (units > 0 && unit >= units) {
          unit -= units;
          bus++;
        }
      }
    }
    if (units > 0 && unit >= units) throw new BlockError(`unit ${unit} too big (max is ${units - 1})`);
    if (this.get(type, bus, unit) !== undefined) {
      throw new BlockError(`drive with bus=${bus}, unit=${unit} (index=${index}) exists`);
    }
    return { bus, unit };
  }

  #defaultId(type: DriveInterface, bus: number, unit: number, media: 'disk' | 'cdrom'): string {
    const kind = type === 'ide' || type === 'scsi' ? (media === 'cdrom' ? '-cd' : '-hd') : '';
    return (this.#unitsPerBus.get(type) ?? 0) > 0 ? `${type}${bus}${kind}${unit}` : `${type}${kind}${unit}`;
  }
}

function rename(options: BlockOptions): void {
  for (const [from, to] of ALIASES) {
    const value = options.peek(from);
    if (value === undefined) continue;
    if (options.has(to)) throw new BlockError(`'${to}' and its alias '${from}' can't be used at the same time`);
    options.delete(from);
    options.set(to, value);
  }
}

function takeInterface(options: BlockOptions): DriveInterface | undefined {
  const name = options.string('if');
  if (name === undefined) return undefined;
  const found = INTERFACES.find(type => type === name);
  if (found === undefined) throw new BlockError(`unsupported bus type '${name}'`);
  return found;
}

function takeFile(options: BlockOptions): string | undefined {
  const file = options.peek('file');
  if (typeof file !== 'string') return undefined;
  options.delete('file');
  return file === '' ? undefined : file;
}

function takeCache(options: BlockOptions): CacheMode {
  const name = options.string('cache');
  const mode = name === undefined ? undefined : CACHE_MODES.get(name);
  if (name !== undefined && mode === undefined) throw new BlockError('invalid cache option');
  return {
    writeback: options.bool('cache.writeback') ?? mode?.writeback ?? true,
    direct: options.bool('cache.direct') ?? mode?.direct ?? false,
    noFlush: options.bool('cache.no-flush') ?? mode?.noFlush ?? false,
  };
}

function takeErrorPolicies(options: BlockOptions, type: DriveInterface): { read: OnError; write: OnError } {
  const supported = type === 'ide' || type === 'scsi' || type === 'virtio' || type === 'none';
  const take = (name: 'rerror' | 'werror'): OnError | undefined => {
    const value = options.string(name);
    if (value === undefined) return undefined;
    if (!supported) throw new BlockError(`${name} is not supported by this bus type`);
    if (value === 'ignore' || value === 'stop' || value === 'report') return value;
    if (value === 'enospc' && name === 'werror') return value;
    throw new BlockError(`'${value}' invalid ${name === 'rerror' ? 'read' : 'write'} error action`);
  };
  const write = take('werror') ?? 'enospc';
  return { read: take('rerror') ?? 'report', write };
}
