import type { Outcome } from './errno.ts';
import { type FileStatus, MODE } from './file-status.ts';
import type { FileOwner } from './file-tree.ts';
import type { HostTree } from './host-tree.ts';

/**
 * How the guest's idea of owners, modes and special files is kept on the host: `security_model`. Called with paths below
 * the root as {@link HostTree} takes them.
 */
export interface Ownership {
  /** Whether the host's types of folder entries are the guest's. */
  readonly typesAreTrue: boolean;
  /** Names that the guest neither sees nor may use. */
  hides(name: string): boolean;
  /** Puts what the guest is to see into the host's status of the file. */
  complete(path: string, status: FileStatus): void;
  /** The mode on the host of a new file or folder. */
  hostMode(owner: FileOwner, folder: boolean): number;
  /** What was just made belongs to `owner`, whose mode says what it is; `device` is what a node stands for. */
  claim(path: string, owner: FileOwner, device?: number): Outcome;
  changeMode(path: string, mode: number): Outcome;
  changeOwner(path: string, uid: number, gid: number): Outcome;
  /** Makes what is then claimed. */
  makeNode(path: string, mode: number, device: readonly [major: number, minor: number]): Outcome;
  makeSymlink(path: string, target: string): Outcome;
  readLink(path: string): string | Outcome;
  /** The file has got a second name. */
  linked(from: string, to: string): Outcome;
  renamed(from: string, to: string): Outcome;
  /** A file or an empty folder is about to go. */
  removing(path: string, folder: boolean): Outcome;
  /** The host's name of a guest's attribute; undefined where the guest may not have it. */
  hostAttribute(name: string): string | undefined;
  /** The reverse; undefined for what is not shown. */
  guestAttribute(name: string): string | undefined;
}

const ACLS: readonly string[] = ['system.posix_acl_access', 'system.posix_acl_default'];
const isUsers = (name: string): boolean => name.startsWith('user.');

/** `passthrough`: the guest's owners and modes are the host's, which takes root. `none`: the same, but what fails to be owned stays ours. */
export class PassthroughOwnership implements Ownership {
  readonly typesAreTrue = true;
  readonly #tree: HostTree;
  readonly #strict: boolean;

  constructor(tree: HostTree, strict: boolean) {
    this.#tree = tree;
    this.#strict = strict;
  }

  hides(): boolean {
    return false;
  }

  complete(): void {}

  hostMode(owner: FileOwner): number {
    return owner.mode & MODE.PERMISSIONS;
  }

  claim(path: string, owner: FileOwner): Outcome {
    const owned = this.#tree.changeOwner(path, owner.uid, owner.gid);
    if (owned < 0 && this.#strict) return owned;
    if ((owner.mode & MODE.TYPE) === MODE.LINK) return 0;
    return this.#tree.changeMode(path, owner.mode & MODE.PERMISSIONS);
  }

  changeMode(path: string, mode: number): Outcome {
    return this.#tree.changeMode(path, mode);
  }

  changeOwner(path: string, uid: number, gid: number): Outcome {
    return this.#tree.changeOwner(path, uid, gid);
  }

  makeNode(path: string, mode: number, [major, minor]: readonly [number, number]): Outcome {
    return this.#tree.makeNode(path, mode, major, minor);
  }

  makeSymlink(path: string, target: string): Outcome {
    return this.#tree.makeSymlink(path, target);
  }

  readLink(path: string): string | Outcome {
    return this.#tree.readLink(path);
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
    return isUsers(name) || (this.#strict && ACLS.includes(name)) ? name : undefined;
  }

  guestAttribute(name: string): string | undefined {
    return this.hostAttribute(name);
  }
}
