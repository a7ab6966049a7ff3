import fs from 'node:fs';
import type { BlockDriver, OpenContext } from './driver.ts';
import type { BlockGraph } from './graph.ts';
import { hostCalls } from './host-calls.ts';
import { HostFile } from './host-file.ts';
import { BlockError, errno, errnoOf, hostError, IoError, reason } from './io-error.ts';
import type { IoVector } from './io-vector.ts';
import { BlockNode } from './node.ts';
import type { BlockOptions } from './options.ts';
import type { Pending } from './pending.ts';
import { PERM_ALL, type Permissions, permNames } from './permissions.ts';
import type { ReopenSteps } from './reopen-steps.ts';
import { type BlockStatus, type NodeSettings, PREALLOCATIONS, type TruncateOptions, writeFlag } from './requests.ts';

/** Where QEMU's file locks lie: a byte for each permission that is used, and one for each that is not shared. */
const LOCK_PERM_BASE = 100;
const LOCK_SHARED_BASE = 200;

const NO_LOCKS: Permissions = { perm: 0, shared: PERM_ALL };

/** A file or block device of the host. */
export class FileNode extends BlockNode {
  #host: HostFile;
  readonly #locking: boolean;
  #locked: Permissions = NO_LOCKS;
  readonly discards = { ok: 0, failed: 0, bytes: 0 };

  constructor(graph: BlockGraph, driver: BlockDriver, settings: NodeSettings, host: HostFile, locking: boolean) {
    super(graph, driver, settings);
    this.#host = host;
    this.#locking = locking;
    this.filename = host.path;
    this.requestAlignment = host.directAlignment();
  }

  override get length(): number {
    return Math.ceil(this.#host.size / 512) * 512;
  }

  get host(): HostFile {
    return this.#host;
  }

  protected override pread(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    return this.#host.read(offset, bytes, iov, at);
  }

  protected override pwrite(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    if (this.#host.isDevice && offset + bytes > this.#host.size) throw new IoError(errno.ENOSPC);
    return this.#host.write(offset, bytes, iov, at);
  }

  protected override pwriteZeroes(offset: number, bytes: number, flags: number): Pending {
    if (this.#host.isDevice && offset + bytes > this.#host.size) throw new IoError(errno.ENOSPC);
    if (!this.#host.zeroRange(offset, bytes, (flags & writeFlag.MAY_UNMAP) !== 0)) throw new IoError(errno.EOPNOTSUPP);
    return undefined;
  }

  protected override pdiscard(offset: number, bytes: number): Pending {
    try {
      this.#host.discard(offset, Math.min(bytes, this.#host.size - offset));
      this.discards.ok++;
      this.discards.bytes += bytes;
    } catch (error) {
      this.discards.failed++;
      throw error;
    }
    return undefined;
  }

  protected override flushToDisk(): Pending {
    return this.#host.sync();
  }

  protected override async ptruncate(size: number, options: TruncateOptions): Promise<void> {
    if (this.#host.isDevice) {
      if (size > this.#host.size) throw new IoError(errno.EINVAL, 'Cannot grow device files');
      return;
    }
    const before = this.#host.size;
    await this.#host.truncate(size);
    if (size <= before) return;
    if (options.preallocation === 'falloc' || options.preallocation === 'full') await this.#allocate(before, size);
  }

  async #allocate(from: number, end: number): Promise<void> {
    const { fallocate } = hostCalls();
    if (fallocate !== undefined) {
      try {
        fallocate(this.#host.fd, 0, from, end - from);
        return;
      } catch (error) {
        if (errnoOf(error) !== errno.EOPNOTSUPP) throw hostError(error);
      }
    }
    const zeroes = new Uint8Array(1 << 20);
    for (let at = from; at < end; at += zeroes.length) {
      await new Promise<void>((resolve, reject) => {
        fs.write(this.#host.fd, zeroes, 0, Math.min(zeroes.length, end - at), at, error =>
          error === null ? resolve() : reject(hostError(error)),
        );
      });
    }
  }

  protected override pstatus(offset: number, bytes: number): BlockStatus {
    const { bytes: length, data } = this.#host.extent(offset, bytes);
    return { bytes: Math.max(1, length), allocated: true, data, zero: !data, offset, file: this };
  }

  override applyPermissions(needed: Permissions): void {
    if (!this.#locking || this.settings.forceShare) return;
    const wanted = this.inactive ? NO_LOCKS : needed;
    const { lockRange, canLock } = hostCalls();
    if (lockRange === undefined || canLock === undefined) return;
    const { fd, path } = this.#host;
    const before = this.#locked;
    const unshared = PERM_ALL & ~wanted.shared;
    // First say what we are, then look whether anybody minds: of two that do this at once, at least one sees the other.
    setLocks(fd, LOCK_PERM_BASE, wanted.perm | before.perm, before.perm);
    setLocks(fd, LOCK_SHARED_BASE, unshared | (PERM_ALL & ~before.shared), PERM_ALL & ~before.shared);
    for (let bit = 1; bit <= PERM_ALL; bit <<= 1) {
      const position = 31 - Math.clz32(bit);
      const refused = (wanted.perm & bit) !== 0 && !canLock(fd, LOCK_SHARED_BASE + position, 1);
      const disturbing = (unshared & bit) !== 0 && !canLock(fd, LOCK_PERM_BASE + position, 1);
      if (!refused && !disturbing) continue;
      setLocks(fd, LOCK_PERM_BASE, before.perm, wanted.perm | before.perm);
      setLocks(fd, LOCK_SHARED_BASE, PERM_ALL & ~before.shared, unshared | (PERM_ALL & ~before.shared));
      throw new BlockError(`Failed to get ${refused ? '' : 'shared '}"${permNames(bit)}" lock`, {
        hint: `Is another process using the image [${path}]?`,
        code: 'ERR_BLOCK_LOCKED',
      });
    }
    setLocks(fd, LOCK_PERM_BASE, wanted.perm, wanted.perm | before.perm);
    setLocks(fd, LOCK_SHARED_BASE, unshared, unshared | (PERM_ALL & ~before.shared));
    this.#locked = wanted;
  }

  /** Opens the file anew, where other settings need that. */
  reopenSteps(settings: NodeSettings): ReopenSteps {
    const before = this.#host;
    if (settings.readOnly === this.settings.readOnly && settings.direct === before.direct) return {};
    let after: HostFile | undefined;
    return {
      prepare: async () => {
        await this.flush();
        after = openedAnew(before, settings);
      },
      commit: () => {
        if (after !== undefined) this.#use(after);
      },
      finish: () => before.close(),
      revert: () => this.#use(before),
      abort: async () => after?.close(),
    };
  }

  /** Takes another description of the same file; there are no locks until permissions are settled. */
  #use(host: HostFile): void {
    setLocks(this.#host.fd, LOCK_PERM_BASE, 0, this.#locked.perm);
    setLocks(this.#host.fd, LOCK_SHARED_BASE, 0, PERM_ALL & ~this.#locked.shared);
    this.#host = host;
    this.#locked = NO_LOCKS;
    this.requestAlignment = host.directAlignment();
  }

  protected override pclose(): Pending {
    this.#host.close();
    return undefined;
  }
}

function setLocks(fd: number, base: number, wanted: number, held: number): void {
  const { lockRange } = hostCalls();
  if (lockRange === undefined) return;
  for (let bit = 1; bit <= PERM_ALL; bit <<= 1) {
    if (((wanted ^ held) & bit) === 0) continue;
    lockRange(fd, base + 31 - Math.clz32(bit), 1, (wanted & bit) !== 0 ? 'shared' : 'none');
  }
}

function openedAnew({ path, threads }: HostFile, { readOnly, direct }: NodeSettings): HostFile {
  try {
    return HostFile.open(path, { writable: !readOnly, direct, threads });
  } catch (error) {
    throw new BlockError(`Could not open '${path}': ${reason(error)}`, { cause: error, code: codeOf(error) });
  }
}

const reopening: NonNullable<BlockDriver['reopening']> = {
  resettable: ['x-check-cache-dropped'],
  steps(node, { settings, options }) {
    options?.bool('drop-cache');
    options?.bool('x-check-cache-dropped');
    return node instanceof FileNode ? node.reopenSteps(settings) : {};
  },
};

async function open(context: OpenContext): Promise<BlockNode> {
  const { options, settings, driver } = context;
  const filename = options.string('filename');
  if (filename === undefined) throw new BlockError(`The '${driver.name}' block driver requires a file name`);
  const locking = options.choice('locking', ['auto', 'on', 'off']) ?? 'auto';
  const aio = options.choice('aio', ['threads', 'native', 'io_uring']);
  if (aio === 'native' && !settings.direct)
    throw new BlockError('aio=native was specified, but it requires cache.direct=on, which was not specified.');
  const threads = aio === 'threads';
  options.number('aio-max-batch');
  options.string('pr-manager');
  options.bool('drop-cache');
  options.bool('x-check-cache-dropped');
  const path = filename;
  let host: HostFile;
  try {
    host = openHost(path, settings, threads);
  } catch (error) {
    throw new BlockError(`Could not open '${path}': ${reason(error)}`, { cause: error, code: codeOf(error) });
  }
  const stat = fs.fstatSync(host.fd);
  const wantsDevice = driver.name === 'host_device';
  const isSpecial = stat.isBlockDevice() || stat.isCharacterDevice();
  if (wantsDevice !== isSpecial && !(wantsDevice && stat.isFile())) {
    host.close();
    throw new BlockError(
      wantsDevice
        ? `'${driver.name}' driver requires '${path}' to be either a character or block device`
        : `'${driver.name}' driver requires '${path}' to be a regular file`,
    );
  }
  return new FileNode(context.graph, driver, settings, host, locking !== 'off');
}

function openHost(path: string, settings: NodeSettings, threads: boolean): HostFile {
  const { direct } = settings;
  const passed = /^\/dev\/fdset\//.test(path);
  if (passed) throw new IoError(errno.EOPNOTSUPP);
  try {
    return HostFile.open(path, { writable: !settings.readOnly, direct, threads });
  } catch (error) {
    const number = errnoOf(error);
    const denied = number === errno.EACCES || number === errno.EPERM || number === errno.EROFS;
    if (settings.readOnly || !settings.autoReadOnly || !denied) throw error;
    settings.readOnly = true;
    return HostFile.open(path, { writable: false, direct, threads });
  }
}

function codeOf(error: unknown): `ERR_${string}` {
  return error instanceof IoError && error.code.startsWith('ERR_') ? error.code : 'ERR_BLOCK';
}

async function create(_graph: BlockGraph, options: BlockOptions): Promise<void> {
  const filename = options.string('filename');
  if (filename === undefined) throw new BlockError("Parameter 'filename' is missing");
  const size = options.bytes('size') ?? 0;
  const preallocation = options.choice('preallocation', PREALLOCATIONS) ?? 'off';
  if (preallocation === 'metadata') throw new BlockError(`Unsupported preallocation mode: ${preallocation}`);
  options.bool('nocow');
  options.bytes('extent-size-hint');
  let fd: number | undefined;
  try {
    fd = fs.openSync(filename, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o644);
    fs.ftruncateSync(fd, 0);
    fs.ftruncateSync(fd, size);
    if (preallocation !== 'off') {
      const zeroes = new Uint8Array(Math.min(size, 1 << 20));
      for (let at = 0; at < size; at += zeroes.length)
        fs.writeSync(fd, zeroes, 0, Math.min(zeroes.length, size - at), at);
    }
  } catch (error) {
    throw new BlockError(`Could not create '${filename}': ${reason(error)}`, { cause: error });
  } finally {
    if (fd !== undefined) fs.closeSync(fd);
  }
}

export const fileDriver: BlockDriver = {
  name: 'file',
  kind: 'protocol',
  schemes: ['file'],
  needsFilename: true,
  parseFilename(filename, options) {
    options.set('filename', filename.replace(/^file:/, ''));
  },
  open,
  create,
  reopening,
};

export const hostDeviceDriver: BlockDriver = {
  name: 'host_device',
  kind: 'protocol',
  schemes: ['host_device'],
  needsFilename: true,
  parseFilename(filename, options) {
    options.set('filename', filename.replace(/^host_device:/, ''));
  },
  open,
  reopening,
};
