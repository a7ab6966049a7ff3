import { closeSync, ftruncateSync, readSync, writeSync } from 'node:fs';
import { isSystemError } from '../host/native.ts';
import { ERRNO, type Outcome } from './errno.ts';
import { type FileStatus, MODE } from './file-status.ts';
import { type FileOwner, join, nameOf, OPEN, parentOf } from './file-tree.ts';
import type { HostTree } from './host-tree.ts';
import type { Ownership } from './ownership.ts';

const NOBODY = 0xffff_ffff;
const LINK_MAX = 4096;

/** What the guest believes of a file, where it has said something. */
interface Belief {
  readonly uid?: number;
  readonly gid?: number;
  readonly mode?: number;
  readonly device?: number;
}

/** Modes of files and folders on the host: `fmode`, `dmode`. */
export interface HostModes {
  readonly file: number;
  readonly folder: number;
}

/**
 * Where an ordinary user serves files: all of them are that user's, links and device nodes are regular files, and what the
 * guest believes of them is written down elsewhere.
 */
abstract class MappedOwnership implements Ownership {
  readonly typesAreTrue = false;
  protected readonly tree: HostTree;
  readonly #modes: HostModes;

  constructor(tree: HostTree, modes: HostModes) {
    this.tree = tree;
    this.#modes = modes;
  }

  protected abstract load(path: string): Belief;
  protected abstract store(path: string, belief: Belief): Outcome;

  abstract hides(name: string): boolean;
  abstract linked(from: string, to: string): Outcome;
  abstract renamed(from: string, to: string): Outcome;
  abstract removing(path: string, folder: boolean): Outcome;
  abstract hostAttribute(name: string): string | undefined;
  abstract guestAttribute(name: string): string | undefined;

  complete(path: string, status: FileStatus): void {
    const belief = this.load(path);
    if (belief.uid !== undefined) status.uid = belief.uid;
    if (belief.gid !== undefined) status.gid = belief.gid;
    if (belief.mode !== undefined) status.mode = belief.mode;
    if (belief.device !== undefined) status.device = belief.device;
  }

  hostMode(_owner: FileOwner, folder: boolean): number {
    return folder ? this.#modes.folder : this.#modes.file;
  }

  claim(path: string, { uid, gid, mode }: FileOwner, device?: number): Outcome {
    return this.store(path, {
      ...(uid !== NOBODY && { uid }),
      ...(gid !== NOBODY && { gid }),
      mode,
      ...(device !== undefined && { device }),
    });
  }

  changeMode(path: string, mode: number): Outcome {
    return this.store(path, { mode });
  }

  changeOwner(path: string, uid: number, gid: number): Outcome {
    return this.store(path, { ...(uid !== NOBODY && { uid }), ...(gid !== NOBODY && { gid }) });
  }

  makeNode(path: string): Outcome {
    return this.tree.makeNode(path, MODE.REGULAR | this.#modes.file);
  }

  makeSymlink(path: string, target: string): Outcome {
    const fd = this.tree.open(path, OPEN.READ_WRITE | OPEN.EXCLUSIVE, this.#modes.file, true);
    if (fd < 0) return fd;
    const bytes = Buffer.from(target, 'latin1');
    const written = answer(() => writeSync(fd, bytes));
    closeSync(fd);
    if (written < 0) this.tree.remove(path, false);
    return written;
  }

  readLink(path: string): string | Outcome {
    const fd = this.tree.open(path, 0, 0);
    if (fd < 0) return fd;
    const bytes = Buffer.alloc(LINK_MAX);
    const length = answer(() => readSync(fd, bytes, 0, LINK_MAX, 0));
    closeSync(fd);
    return length < 0 ? length : bytes.toString('latin1', 0, length);
  }
}

const ATTRIBUTE = 'user.virtfs.';
const ACL = 'system.posix_acl_';

/** `mapped-xattr`: beside the file, in extended attributes. */
export class XattrOwnership extends MappedOwnership {
  readonly #word = new DataView(new ArrayBuffer(8));

  hides(): boolean {
    return false;
  }

  linked(): Outcome {
    return 0;
  }

  renamed(): Outcome {
    return 0;
  }

  removing(): Outcome {
    return 0;
  }

  hostAttribute(name: string): string | undefined {
    if (name.startsWith(ACL)) return ATTRIBUTE + name;
    return name.startsWith('user.') && !name.startsWith(ATTRIBUTE) ? name : undefined;
  }

  guestAttribute(name: string): string | undefined {
    if (name.startsWith(ATTRIBUTE + ACL)) return name.slice(ATTRIBUTE.length);
    return name.startsWith('user.') && !name.startsWith(ATTRIBUTE) ? name : undefined;
  }

  protected override load(path: string): Belief {
    const uid = this.#number(path, 'uid');
    const gid = this.#number(path, 'gid');
    const mode = this.#number(path, 'mode');
    const device = this.#number(path, 'rdev');
    return {
      ...(uid !== undefined && { uid }),
      ...(gid !== undefined && { gid }),
      ...(mode !== undefined && { mode }),
      ...(device !== undefined && { device }),
    };
  }

  protected override store(path: string, { uid, gid, mode, device }: Belief): Outcome {
    const facts: readonly (readonly [string, number | undefined, number])[] = [
      ['uid', uid, 4],
      ['gid', gid, 4],
      ['mode', mode, 4],
      ['rdev', device, 8],
    ];
    for (const [name, value, size] of facts) {
      if (value === undefined) continue;
      this.#word.setUint32(0, value, true);
      this.#word.setUint32(4, 0, true);
      const outcome = this.tree.setAttribute(path, ATTRIBUTE + name, new Uint8Array(this.#word.buffer, 0, size));
      if (outcome < 0) return outcome;
    }
    return 0;
  }

  #number(path: string, name: string): number | undefined {
    const value = this.tree.getAttribute(path, ATTRIBUTE + name);
    if (typeof value === 'number' || value.length < 4) return undefined;
    return new DataView(value.buffer, value.byteOffset).getUint32(0, true);
  }
}

const FOLDER = '.virtfs_metadata';
const ROOT_FILE = '.virtfs_metadata_root';
const FACTS = { uid: 'virtfs.uid', gid: 'virtfs.gid', mode: 'virtfs.mode', device: 'virtfs.rdev' } as const;
const FILE_MAX = 400;

/** `mapped-file`: in a file of the same name in a hidden folder beside it, for file systems without extended attributes. */
export class FileOwnership extends MappedOwnership {
  hides(name: string): boolean {
    return name === FOLDER || name === ROOT_FILE;
  }

  linked(from: string, to: string): Outcome {
    return this.#move(from, to, (old, place) => this.tree.link(old, place));
  }

  renamed(from: string, to: string): Outcome {
    return this.#move(from, to, (old, place) => this.tree.rename(old, place));
  }

  removing(path: string, folder: boolean): Outcome {
    if (folder) absent(this.tree.remove(join(path, FOLDER), true));
    return absent(this.tree.remove(notes(path), false));
  }

  hostAttribute(name: string): string | undefined {
    return name.startsWith('user.') || name.startsWith(ACL) ? name : undefined;
  }

  guestAttribute(name: string): string | undefined {
    return this.hostAttribute(name);
  }

  protected override load(path: string): Belief {
    const fd = this.tree.open(notes(path), 0, 0);
    if (fd < 0) return {};
    const bytes = Buffer.alloc(FILE_MAX);
    const length = answer(() => readSync(fd, bytes, 0, FILE_MAX, 0));
    closeSync(fd);
    const belief: Record<string, number> = {};
    const lines = bytes.toString('latin1', 0, Math.max(0, length)).split('\n');
    for (const [fact, name] of Object.entries(FACTS)) {
      const line = lines.find(candidate => candidate.startsWith(`${name}=`));
      const value = Number.parseInt(line?.slice(name.length + 1) ?? '', 10);
      if (!Number.isNaN(value)) belief[fact] = value >>> 0;
    }
    return belief;
  }

  protected override store(path: string, belief: Belief): Outcome {
    const whole: Belief = { ...this.load(path), ...belief };
    if (path !== '') {
      const made = this.tree.makeFolder(join(parentOf(path), FOLDER), 0o700);
      if (made < 0 && made !== -ERRNO.EEXIST) return made;
    }
    const fd = this.tree.open(notes(path), OPEN.WRITE, 0o600, true);
    if (fd < 0) return fd;
    const { uid, gid, mode, device } = whole;
    const text = Object.entries({ uid, gid, mode, device })
      .flatMap(([fact, value]) =>
        value === undefined ? [] : [`virtfs.${fact === 'device' ? 'rdev' : fact}=${value | 0}\n`],
      )
      .join('');
    const outcome = answer(() => {
      ftruncateSync(fd);
      return writeSync(fd, text, 0);
    });
    closeSync(fd);
    return Math.min(0, outcome);
  }

  #move(from: string, to: string, move: (from: string, to: string) => Outcome): Outcome {
    const made = this.tree.makeFolder(join(parentOf(to), FOLDER), 0o700);
    if (made < 0 && made !== -ERRNO.EEXIST) return made;
    return absent(move(notes(from), notes(to)));
  }
}

/** Where it is written down what the guest believes of a file. */
const notes = (path: string): string => (path === '' ? ROOT_FILE : join(join(parentOf(path), FOLDER), nameOf(path)));

/** What is not there need not be done anything to. */
const absent = (outcome: Outcome): Outcome => (outcome === -ERRNO.ENOENT ? 0 : outcome);

/** What a call of Node's answers, as a system call would. */
export function answer(call: () => number): Outcome {
  try {
    return call();
  } catch (error) {
    if (isSystemError(error)) return error.errno < 0 ? error.errno : -ERRNO.EIO;
    throw error;
  }
}
