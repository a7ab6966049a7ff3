import { closeSync, constants, fdatasyncSync, fsyncSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import type { IoVector } from '../block/io-vector.ts';
import { SouthbridgeError } from '../errors.ts';
import { isSystemError } from '../host/native.ts';
import { ERRNO, type Outcome } from './errno.ts';
import { deviceNumber, FileStatus, MODE } from './file-status.ts';
import {
  type FileOwner,
  type FileSystemStatus,
  type FileTime,
  type FileTree,
  type FolderEntry,
  nameOf,
  OPEN,
} from './file-tree.ts';
import { HostTree } from './host-tree.ts';
import { answer, FileOwnership, type HostModes, XattrOwnership } from './mapped-ownership.ts';
import { type Ownership, PassthroughOwnership } from './ownership.ts';

export const SECURITY_MODELS = ['passthrough', 'none', 'mapped-xattr', 'mapped-file'] as const;
export type SecurityModel = (typeof SECURITY_MODELS)[number];

export interface LocalTreeOptions {
  readonly path: string;
  readonly securityModel: SecurityModel;
  readonly readOnly: boolean;
  /** Writes go to the disk at once, so that the host's cache does not fill with what the guest has cached. */
  readonly immediateWriteout: boolean;
  readonly multipleDevices: 'warn' | 'remap' | 'forbid';
  readonly modes: HostModes;
}

/** A folder of the host (`-fsdev local`). Nothing outside of it is reached, whatever links the guest makes. */
export class LocalTree implements FileTree {
  readonly id: string;
  readonly readOnly: boolean;
  readonly multipleDevices: 'warn' | 'remap' | 'forbid';
  readonly #options: LocalTreeOptions;
  readonly #status = new FileStatus();
  #root: number | undefined;
  #parts: { readonly tree: HostTree; readonly ownership: Ownership } | undefined;
  #users = 0;

  constructor(id: string, options: LocalTreeOptions) {
    this.id = id;
    this.readOnly = options.readOnly;
    this.multipleDevices = options.multipleDevices;
    this.#options = options;
  }

  start(): void {
    this.#users++;
    if (this.#root !== undefined) return;
    const { path, securityModel, modes } = this.#options;
    try {
      this.#root = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
    } catch (cause) {
      this.#users--;
      const why = isSystemError(cause) && cause.code === 'ENOTDIR' ? 'Not a directory' : 'No such file or directory';
      throw new SouthbridgeError(
        'ERR_BACKEND',
        `cannot initialize fsdev '${this.id}': failed to open '${path}': ${why}`,
        'path= names a folder of the host',
        { cause },
      );
    }
    const tree = new HostTree(this.#root);
    const ownership =
      securityModel === 'mapped-xattr'
        ? new XattrOwnership(tree, modes)
        : securityModel === 'mapped-file'
          ? new FileOwnership(tree, modes)
          : new PassthroughOwnership(tree, securityModel === 'passthrough');
    this.#parts = { tree, ownership };
  }

  stop(): void {
    this.#users--;
    if (this.#users > 0 || this.#root === undefined) return;
    closeSync(this.#root);
    this.#root = undefined;
    this.#parts = undefined;
  }

  get #tree(): HostTree {
    return this.#started.tree;
  }

  get #ownership(): Ownership {
    return this.#started.ownership;
  }

  get #started(): { readonly tree: HostTree; readonly ownership: Ownership } {
    if (this.#parts === undefined) throw new SouthbridgeError('ERR_BACKEND', `fsdev '${this.id}' is not in use`);
    return this.#parts;
  }

  status(path: string, into: FileStatus): Outcome {
    if (this.#hidden(path)) return -ERRNO.ENOENT;
    const outcome = this.#tree.status(path, into);
    if (outcome >= 0) this.#ownership.complete(path, into);
    return outcome;
  }

  openStatus(handle: number, into: FileStatus): Outcome {
    return this.#tree.openStatus(handle, into);
  }

  fileSystem(): FileSystemStatus | Outcome {
    return this.#tree.fileSystem();
  }

  generation(path: string): Outcome {
    return this.#tree.generation(path);
  }

  open(path: string, flags: number): Outcome {
    return this.#hidden(path) ? -ERRNO.ENOENT : this.#tree.open(path, flags, 0);
  }

  create(path: string, flags: number, { mode, ...who }: FileOwner): Outcome {
    if (this.#hidden(path)) return -ERRNO.EINVAL;
    const owner = { ...who, mode: (mode & MODE.PERMISSIONS) | MODE.REGULAR };
    const existed = this.#tree.status(path, this.#status) >= 0;
    const fd = this.#tree.open(path, flags, this.#ownership.hostMode(owner, false), true);
    if (fd < 0) return fd;
    // What another client of the folder had made already stays as it is.
    const claimed = existed ? 0 : this.#ownership.claim(path, owner);
    if (claimed >= 0) return fd;
    closeSync(fd);
    this.#tree.remove(path, false);
    return claimed;
  }

  close(handle: number): void {
    closeSync(handle);
  }

  read(handle: number, vector: IoVector, from: number, length: number, offset: number): Outcome {
    let done = 0;
    const outcome = answer(() => {
      let short = false;
      vector.forEach(from, length, (base, start, size, before) => {
        if (short) return;
        const got = readSync(handle, base, start, size, offset + before);
        done += got;
        short = got < size;
      });
      return done;
    });
    return done > 0 ? done : outcome;
  }

  write(handle: number, vector: IoVector, from: number, length: number, offset: number): Outcome {
    let done = 0;
    const outcome = answer(() => {
      let short = false;
      vector.forEach(from, length, (base, start, size, before) => {
        if (short) return;
        const put = writeSync(handle, base, start, size, offset + before);
        done += put;
        short = put < size;
      });
      if (this.#options.immediateWriteout) fdatasyncSync(handle);
      return done;
    });
    return done > 0 ? done : outcome;
  }

  sync(handle: number, dataOnly: boolean): Outcome {
    return answer(() => {
      if (dataOnly) fdatasyncSync(handle);
      else fsyncSync(handle);
      return 0;
    });
  }

  readFolder(
    handle: number,
    position: readonly [low: number, high: number],
    budget: number,
    visit: (entry: FolderEntry) => boolean,
  ): Outcome {
    const { typesAreTrue } = this.#ownership;
    return this.#tree.readFolder(handle, position, budget, entry => {
      if (this.#ownership.hides(entry.name)) return true;
      return visit(typesAreTrue ? entry : { ...entry, type: 0 });
    });
  }

  makeFolder(path: string, { mode, ...who }: FileOwner): Outcome {
    if (this.#hidden(path)) return -ERRNO.EINVAL;
    const owner = { ...who, mode: (mode & MODE.PERMISSIONS) | MODE.FOLDER };
    const made = this.#tree.makeFolder(path, this.#ownership.hostMode(owner, true));
    return made < 0 ? made : this.#claimed(path, true, this.#ownership.claim(path, owner));
  }

  makeNode(path: string, owner: FileOwner, device: readonly [number, number]): Outcome {
    if (this.#hidden(path)) return -ERRNO.EINVAL;
    const made = this.#ownership.makeNode(path, owner.mode, device);
    return made < 0 ? made : this.#claimed(path, false, this.#ownership.claim(path, owner, deviceNumber(...device)));
  }

  makeSymlink(path: string, target: string, who: FileOwner): Outcome {
    if (this.#hidden(path)) return -ERRNO.EINVAL;
    const owner = { ...who, mode: MODE.LINK | 0o777 };
    const made = this.#ownership.makeSymlink(path, target);
    return made < 0 ? made : this.#claimed(path, false, this.#ownership.claim(path, owner));
  }

  readLink(path: string): string | Outcome {
    return this.#hidden(path) ? -ERRNO.ENOENT : this.#ownership.readLink(path);
  }

  link(from: string, to: string): Outcome {
    if (this.#hidden(to)) return -ERRNO.EINVAL;
    const outcome = this.#tree.link(from, to);
    return outcome < 0 ? outcome : this.#claimed(to, false, this.#ownership.linked(from, to));
  }

  rename(from: string, to: string): Outcome {
    if (this.#hidden(from) || this.#hidden(to)) return -ERRNO.EINVAL;
    const outcome = this.#tree.rename(from, to);
    if (outcome < 0) return outcome;
    const followed = this.#ownership.renamed(from, to);
    if (followed < 0) this.#tree.rename(to, from);
    return followed;
  }

  remove(path: string, folder: boolean): Outcome {
    if (this.#hidden(path)) return -ERRNO.EINVAL;
    const prepared = this.#ownership.removing(path, folder);
    return prepared < 0 ? prepared : this.#tree.remove(path, folder);
  }

  changeMode(path: string, mode: number): Outcome {
    return this.#ownership.changeMode(path, mode);
  }

  changeOwner(path: string, uid: number, gid: number): Outcome {
    return this.#ownership.changeOwner(path, uid, gid);
  }

  changeTimes(path: string, accessed: FileTime, modified: FileTime): Outcome {
    return this.#tree.changeTimes(path, accessed, modified);
  }

  truncate(path: string, size: number): Outcome {
    const fd = this.#tree.open(path, OPEN.WRITE, 0);
    if (fd < 0) return fd;
    const outcome = answer(() => {
      ftruncateSync(fd, size);
      return 0;
    });
    closeSync(fd);
    return outcome;
  }

  getAttribute(path: string, name: string): Uint8Array | Outcome {
    const host = this.#ownership.hostAttribute(name);
    return host === undefined ? -ERRNO.EOPNOTSUPP : this.#tree.getAttribute(path, host);
  }

  listAttributes(path: string): Uint8Array | Outcome {
    const listed = this.#tree.listAttributes(path);
    if (typeof listed === 'number') return listed;
    const names = Buffer.from(listed).toString('latin1').split('\0').slice(0, -1);
    const shown = names.flatMap(name => {
      const guest = this.#ownership.guestAttribute(name);
      return guest === undefined ? [] : [`${guest}\0`];
    });
    return Buffer.from(shown.join(''), 'latin1');
  }

  setAttribute(path: string, name: string, value: Uint8Array, flags: number): Outcome {
    const host = this.#ownership.hostAttribute(name);
    return host === undefined ? -ERRNO.EOPNOTSUPP : this.#tree.setAttribute(path, host, value, flags);
  }

  removeAttribute(path: string, name: string): Outcome {
    const host = this.#ownership.hostAttribute(name);
    if (host === undefined) return -ERRNO.EOPNOTSUPP;
    const outcome = this.#tree.removeAttribute(path, host);
    // An access control list that is not there is as good as one that has been taken away.
    return outcome === -ERRNO.ENODATA && host !== name ? 0 : outcome;
  }

  #hidden(path: string): boolean {
    return this.#ownership.hides(nameOf(path));
  }

  /** Takes back what was made where it could not be made the guest's. */
  #claimed(path: string, folder: boolean, claimed: Outcome): Outcome {
    if (claimed < 0) this.#tree.remove(path, folder);
    return claimed;
  }
}
