import { BlockBackend } from '../../block/backend.ts';
import { blockGraph } from '../../block/block.ts';
import { type Drive, type DriveInterface, Drives } from '../../block/drives.ts';
import type { BlockEvent } from '../../block/events.ts';
import type { BlockGraph } from '../../block/graph.ts';
import { BlockError } from '../../block/io-error.ts';
import { IoVector } from '../../block/io-vector.ts';
import { Jobs } from '../../block/jobs/job.ts';
import { BlockOptions, type OptionScalar } from '../../block/options.ts';
import { SouthbridgeError } from '../../errors.ts';
import type { DriveConfig, FlashConfig } from '../../machine/machine-config.ts';
import type { JsonObject } from '../json/value.ts';
import { OptionError, type Opts } from '../options/opts.ts';
import type { Program } from '../program.ts';
import { deviceNotFound, QmpError } from '../qapi/error.ts';
import { BlockdevOptions } from '../qapi/schema/blockdev.ts';
import { KEYVAL_ROOT, ROOT } from '../qapi/types.ts';
import { secretBytes } from './objects.ts';

/** Erase blocks of the system's flash, in bytes. */
const FLASH_BLOCK = 4096;

/** Interfaces whose controllers are the machine's own. */
const ON_BOARD: ReadonlySet<DriveInterface> = new Set(['ide', 'scsi', 'floppy', 'pflash', 'mtd', 'sd']);

/** The block layer of the program: the graph of nodes, the drives, and what devices take as their `drive`. */
export class Blocks {
  readonly graph: BlockGraph;
  readonly drives: Drives;
  readonly jobs: Jobs;
  readonly #program: Program;

  constructor(program: Program) {
    this.#program = program;
    this.graph = blockGraph();
    // What the machine comes from still has the images.
    this.graph.inactive = program.line.has('incoming');
    this.graph.warn = message => program.report.warn(message);
    this.graph.print = text => void process.stdout.write(text);
    this.graph.notice = message => program.report.bare(message);
    this.graph.abort = message => {
      program.report.bare(message);
      program.exit(1);
    };
    this.graph.onEvent(event => this.#report(event));
    this.drives = new Drives(this.graph);
    this.jobs = new Jobs(this.graph);
    this.graph.isDevice = id => program.machine.findDevice(id) !== undefined;
    this.graph.secret = id => this.#secret(id);
    this.graph.tlsClient = async (creds, hostname) => {
      const { tlsUpgrade } = await import('./tls-objects.ts');
      return tlsUpgrade(program, { creds, hostname, endpoint: 'client' });
    };
    for (const kind of ['drive', 'block']) program.backends.provide(kind, id => this.backend(id));
    // For a device with a removable medium that no drive was given to: the monitor inserts one by the device's id.
    program.backends.provide('empty-drive', () => new BlockBackend(this.graph));
  }

  async #secret(id: string): Promise<Uint8Array> {
    const object = (await this.#program.objects()).get(id);
    if (object === undefined) throw new BlockError(`No secret with id '${id}'`);
    return secretBytes(object);
  }

  /** `-drive`; an empty one is a drive without a medium. */
  addDrive(opts: Opts, isDefault = false): Promise<Drive> {
    const values: [string, OptionScalar][] = opts.values.map(({ key, value }) => [key, value]);
    if (opts.id !== undefined) values.push(['id', opts.id]);
    return this.drives.add(values, { interface: 'ide', snapshot: this.#program.line.has('snapshot'), isDefault });
  }

  /** `-blockdev`: JSON, or with `keyval` strings that the schema converts. */
  async addNode(options: JsonObject, keyval: boolean): Promise<void> {
    const typed = BlockdevOptions.read(options, keyval ? KEYVAL_ROOT : ROOT);
    await this.graph.add(BlockOptions.fromJson(typed as JsonObject));
  }

  /** What a device's `drive=` names: a drive, or a node, which gets a backend of its own. */
  backend(reference: string): BlockBackend {
    const drive = this.graph.backend(reference);
    if (drive !== undefined) {
      if (drive.device !== undefined) {
        throw new SouthbridgeError('ERR_BACKEND', `Drive '${reference}' is already in use by another block device`);
      }
      return drive;
    }
    const node = this.graph.node(reference);
    if (node === undefined) throw new SouthbridgeError('ERR_BACKEND', `Can't find drive '${reference}'`);
    const backend = new BlockBackend(this.graph);
    backend.insert(node);
    return backend;
  }

  /** `drive_del`: takes the medium away at once; a device that has the drive goes on without. */
  async removeDrive(id: string): Promise<void> {
    const backend = this.graph.backend(id);
    if (backend === undefined) {
      if (this.graph.node(id) !== undefined)
        throw new QmpError(`Deleting device added with blockdev-add is not supported`);
      throw deviceNotFound(id);
    }
    this.graph.forgetBackend(id);
    this.drives.forget(backend);
    backend.name = '';
    if (backend.device === undefined) await backend.close();
    else if (backend.inserted) await backend.remove();
  }

  /** The drives that the machine is to make devices for. */
  get onBoard(): DriveConfig[] {
    const result: DriveConfig[] = [];
    for (const { id, interface: type, bus, unit, media } of this.drives) {
      if (ON_BOARD.has(type) && type !== 'none' && type !== 'xen')
        result.push({ id, interface: type, bus, unit, media });
    }
    return result;
  }

  /**
   * The system's flash: `-drive if=pflash` by unit, or the nodes that `-machine pflash0=...` names.
   *
   * @param limit bytes of all together
   * @throws OptionError in QEMU's words where there is a gap, or a size that no flash has
   */
  async flash(named: readonly (string | undefined)[], limit: number): Promise<FlashConfig[]> {
    const found = named.map((node, unit) => {
      const drive = this.drives.byIndex('pflash', unit)?.id;
      if (node !== undefined && drive !== undefined) throw new OptionError('clashes with -machine');
      return node ?? drive;
    });
    const flash: FlashConfig[] = [];
    let total = 0;
    for (const [unit, drive] of found.entries()) {
      if (drive === undefined) continue;
      if (unit > flash.length) throw new OptionError(`pflash${unit} requires pflash${unit - 1}`);
      const node = this.graph.backend(drive)?.root ?? this.graph.node(drive);
      if (node === undefined) throw new OptionError(`Property 'cfi.pflash01.drive' can't find value '${drive}'`);
      const size = node.length;
      if (size === 0 || size % FLASH_BLOCK !== 0) {
        throw new OptionError(
          `system firmware block device ${this.graph.backend(drive) === undefined ? '' : drive} has invalid size ${size}`,
          `its size must be a non-zero multiple of 0x${FLASH_BLOCK.toString(16)}`,
        );
      }
      total += size;
      if (total > limit) throw new OptionError(`combined size of system firmware exceeds ${limit} bytes`);
      const image = new Uint8Array(size);
      await node.readv(0, size, IoVector.of(image));
      flash.push({ drive, image });
    }
    return flash;
  }

  /** The drives of `if=virtio`: each is a device of its own. */
  get virtio(): string[] {
    return [...this.drives].filter(drive => drive.interface === 'virtio').map(({ id }) => id);
  }

  /** Throws where a drive found no place in the machine. */
  checkOrphans(): void {
    const [first] = this.drives.orphans();
    if (first !== undefined) throw new OptionError(first);
  }

  #report(event: BlockEvent): void {
    const { event: name, ...members } = event;
    const data: Record<string, unknown> = {};
    for (const [key, value] of Object.entries(members)) if (value !== undefined) data[dashed(name, key)] = value;
    this.#program.emit(name as never, data as never);
    if (name === 'BLOCK_IO_ERROR' && data['action'] === 'stop') this.#program.machine.stop('io-error');
  }
}

/** QMP's spelling of an event's member: with dashes, but for the fields of older events. */
function dashed(event: string, key: string): string {
  if (event === 'JOB_STATUS_CHANGE' || key === 'nospace') return key;
  return key.replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`);
}
