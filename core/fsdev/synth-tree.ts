import type { IoVector } from '../block/io-vector.ts';
import { ERRNO, type Outcome } from './errno.ts';
import { type FileStatus, MODE } from './file-status.ts';
import { type FileSystemStatus, type FileTree, type FolderEntry, OPEN } from './file-tree.ts';

interface Node {
  readonly name: string;
  readonly inode: number;
  readonly mode: number;
  readonly parent: Node | undefined;
  /** Of a folder. */
  readonly children: Map<string, Node> | undefined;
  /** Of a file that can be written: what becomes of it. */
  readonly write: ((vector: IoVector, from: number, length: number) => Outcome) | undefined;
}

const NAME_MAX = 255;
const WALK_DEPTH = 16;
const FOLDER_FILES = 100;
/** The type of a folder's entry (dirent.h). */
const TYPE = { FOLDER: 4, REGULAR: 8 } as const;

/**
 * A tree that exists only here (`-fsdev synth`), for tests of drivers and servers: folders to walk through, a folder with
 * many files, a file that takes all that is written, and one that makes its writer wait (FLUSH).
 */
export class SynthTree implements FileTree {
  readonly id: string;
  readonly readOnly: boolean;
  readonly multipleDevices = 'warn';
  readonly #nodes: Node[] = [];
  readonly #root: Node;
  readonly #open: (Node | undefined)[] = [];

  constructor(id: string, readOnly: boolean) {
    this.id = id;
    this.readOnly = readOnly;
    this.#root = this.#folder('/', undefined);
    let folder = this.#root;
    for (let index = 0; index < WALK_DEPTH; index++) folder = this.#folder(`WALK${index}`, folder);
    this.#file('LOPEN', this.#root);
    this.#file('WRITE', this.#root, (_vector, _from, length) => length);
    // A first byte of 1 makes its writer wait until it gives up.
    this.#file('FLUSH', this.#root, (vector, from, length) => {
      let wait = false;
      vector.forEach(from, Math.min(length, 1), (base, start) => {
        wait = base[start] !== 0;
      });
      return wait ? -ERRNO.EINTR : length;
    });
    const many = this.#folder('ReadDirDir', this.#root);
    for (let index = 0; index < FOLDER_FILES; index++) this.#file(`ReadDirFile${index}`, many);
  }

  start(): void {}

  stop(): void {}

  status(path: string, into: FileStatus): Outcome {
    const node = this.#find(path);
    return node === undefined ? -ERRNO.ENOENT : this.#describe(node, into);
  }

  openStatus(handle: number, into: FileStatus): Outcome {
    const node = this.#open[handle];
    return node === undefined ? -ERRNO.EBADF : this.#describe(node, into);
  }

  fileSystem(): FileSystemStatus {
    return {
      type: 0xabcd,
      blockSize: 512,
      blocks: 0,
      free: 0,
      available: 0,
      files: this.#nodes.length,
      filesFree: 0,
      id: [0, 0],
      nameMax: NAME_MAX,
    };
  }

  generation(): Outcome {
    return -ERRNO.EOPNOTSUPP;
  }

  open(path: string, flags: number): Outcome {
    const node = this.#find(path);
    if (node === undefined) return -ERRNO.ENOENT;
    if ((flags & OPEN.FOLDER) !== 0 && node.children === undefined) return -ERRNO.ENOTDIR;
    const free = this.#open.indexOf(undefined);
    const handle = free < 0 ? this.#open.length : free;
    this.#open[handle] = node;
    return handle;
  }

  create(): Outcome {
    return -ERRNO.ENOSYS;
  }

  close(handle: number): void {
    this.#open[handle] = undefined;
  }

  read(): Outcome {
    return -ERRNO.EPERM;
  }

  write(handle: number, vector: IoVector, from: number, length: number): Outcome {
    return this.#open[handle]?.write?.(vector, from, length) ?? -ERRNO.EPERM;
  }

  sync(): Outcome {
    return -ERRNO.ENOSYS;
  }

  readFolder(
    handle: number,
    [position]: readonly [low: number, high: number],
    _budget: number,
    visit: (entry: FolderEntry) => boolean,
  ): Outcome {
    const node = this.#open[handle];
    if (node?.children === undefined) return -ERRNO.ENOTDIR;
    // The newest first, as in QEMU: its tests ask for entries in pieces as long as the last ones were.
    const entries: readonly (readonly [string, Node])[] = [
      ...[...node.children].reverse(),
      ['.', node],
      ['..', node.parent ?? node],
    ];
    const left = entries.slice(position);
    for (const [index, [name, { inode, children }]] of left.entries()) {
      const type = children === undefined ? TYPE.REGULAR : TYPE.FOLDER;
      const nextLow = position + index + 1;
      if (!visit({ name, type, inodeLow: inode, inodeHigh: 0, nextLow, nextHigh: 0 })) break;
    }
    return left.length;
  }

  makeFolder(): Outcome {
    return -ERRNO.EPERM;
  }

  makeNode(): Outcome {
    return -ERRNO.EPERM;
  }

  makeSymlink(): Outcome {
    return -ERRNO.EPERM;
  }

  readLink(): Outcome {
    return -ERRNO.ENOSYS;
  }

  link(): Outcome {
    return -ERRNO.EPERM;
  }

  rename(): Outcome {
    return -ERRNO.EPERM;
  }

  remove(): Outcome {
    return -ERRNO.EPERM;
  }

  changeMode(): Outcome {
    return -ERRNO.EPERM;
  }

  changeOwner(): Outcome {
    return -ERRNO.EPERM;
  }

  changeTimes(): Outcome {
    return 0;
  }

  truncate(): Outcome {
    return -ERRNO.ENOSYS;
  }

  getAttribute(): Outcome {
    return -ERRNO.EOPNOTSUPP;
  }

  listAttributes(): Outcome {
    return -ERRNO.EOPNOTSUPP;
  }

  setAttribute(): Outcome {
    return -ERRNO.EOPNOTSUPP;
  }

  removeAttribute(): Outcome {
    return -ERRNO.EOPNOTSUPP;
  }

  #folder(name: string, parent: Node | undefined): Node {
    return this.#add({ name, parent, mode: MODE.FOLDER | 0o700, children: new Map(), write: undefined });
  }

  #file(name: string, parent: Node, write?: Node['write']): Node {
    return this.#add({ name, parent, mode: MODE.REGULAR | 0o644, children: undefined, write });
  }

  #add(node: Omit<Node, 'inode'>): Node {
    const added = { ...node, inode: this.#nodes.length + 1 };
    this.#nodes.push(added);
    node.parent?.children?.set(node.name, added);
    return added;
  }

  #find(path: string): Node | undefined {
    let node: Node | undefined = this.#root;
    for (const part of path === '' ? [] : path.split('/')) node = node?.children?.get(part);
    return node;
  }

  #describe(node: Node, into: FileStatus): Outcome {
    into.clear();
    into.mode = node.mode;
    into.links = node.children === undefined ? 1 : 2;
    into.inodeLow = node.inode;
    return 0;
  }
}
