/** Where the memory of `-object memory-backend-*` comes from. */
import {
  closeSync,
  constants,
  fstatSync,
  fsync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  rmdirSync,
  statSync,
  unlinkSync,
} from 'node:fs';
import { join } from 'node:path';
import { SouthbridgeError } from '../../errors.ts';
import { hostPath } from '../../host/fd-sets.ts';
import { createMemfd } from '../../host/files.ts';
import { isSystemError } from '../../host/native.ts';
import { discardRam } from '../../memory/discard.ts';
import { type GuestRam, MAX_GUEST_RAM, SharedRam } from '../../memory/guest-ram.ts';
import { MappedRam } from '../../memory/mapped-ram.ts';
import type { MemoryBackend } from '../../memory/memory-backend.ts';
import { QmpError } from '../qapi/error.ts';
import type { UserObject } from './objects.ts';

/** The types of memory objects. */
export const MEMORY_OBJECTS = ['memory-backend-ram', 'memory-backend-file', 'memory-backend-memfd'] as const;

/** Pages of a file, and the large pages that memory of this process may get. */
const PAGE = 4096;
const LARGE_PAGE = 2 ** 21;

const sources = new WeakMap<UserObject, MemorySource>();

/** Opens the file of a memory object; deleting the object closes it. */
export function openMemory(object: UserObject): void {
  const source = new MemorySource(object);
  sources.set(object, source);
  object.onDelete = () => source.close();
}

/** The memory that an object stands for, to the part of the machine that asks for it. */
export function memoryOf(object: UserObject, size: number): MemoryBackend {
  return {
    id: object.id,
    size,
    alignment: alignmentOf(object),
    path: object.path,
    get mapped() {
      return object.users > 0;
    },
    claim() {
      object.users++;
      return () => {
        object.users--;
      };
    },
    contents: () => sources.get(object)?.contents() ?? [],
    sync: done => {
      const source = sources.get(object);
      if (source === undefined) done(false);
      else source.sync(done);
    },
    discard: (offset, length) => sources.get(object)?.discard(offset, length),
    get file() {
      return sources.get(object)?.file;
    },
  };
}

function alignmentOf({ spec }: UserObject): number {
  if (spec['qom-type'] === 'memory-backend-ram') return LARGE_PAGE;
  return 'align' in spec && spec.align !== undefined ? Math.max(PAGE, Number(spec.align)) : PAGE;
}

/** The memory itself: pages of this process, or a file's. */
class MemorySource {
  readonly #object: UserObject;
  readonly #fd: number | undefined;
  #contents: readonly GuestRam[] | undefined;

  constructor(object: UserObject) {
    this.#object = object;
    this.#fd = openSource(object);
  }

  contents(): readonly GuestRam[] {
    this.#contents ??= this.#map();
    return this.#contents;
  }

  get file(): MemoryBackend['file'] {
    return this.#fd === undefined || this.#readonly ? undefined : { fd: this.#fd, shared: this.#shared };
  }

  sync(done: (kept: boolean) => void): void {
    if (this.#fd === undefined) setImmediate(done, false);
    else fsync(this.#fd, error => done(error === null));
  }

  discard(offset: number, length: number): void {
    let from = offset;
    let left = length;
    for (const ram of this.contents()) {
      const here = Math.min(left, ram.size - from);
      if (here > 0) {
        // A file's pages would come back as the file has them.
        if (this.#fd !== undefined || !discardRam(ram, from, here)) ram.bytes.fill(0, from, from + here);
        left -= here;
        from += here;
      }
      from -= ram.size;
    }
  }

  get #shared(): boolean {
    const { spec } = this.#object;
    return 'share' in spec && spec.share !== undefined ? spec.share : spec['qom-type'] === 'memory-backend-memfd';
  }

  get #readonly(): boolean {
    const { spec } = this.#object;
    return spec['qom-type'] === 'memory-backend-file' && spec.readonly === true;
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
  }

  #map(): GuestRam[] {
    const { id, spec } = this.#object;
    if (!('size' in spec)) return [];
    const whole = Number(spec.size);
    const pieces: GuestRam[] = [];
    for (let offset = 0; offset < whole; offset += MAX_GUEST_RAM) {
      const size = Math.min(MAX_GUEST_RAM, whole - offset);
      const name = offset === 0 ? id : `${id}.${offset / MAX_GUEST_RAM}`;
      pieces.push(this.#piece(name, offset, size));
    }
    return pieces;
  }

  #piece(name: string, offset: number, size: number): GuestRam {
    if (this.#fd === undefined) return new SharedRam(name, size);
    try {
      return new MappedRam(name, this.#fd, { offset, size }, { shared: this.#shared, readonly: this.#readonly });
    } catch (cause) {
      if (!isSystemError(cause)) throw cause;
      throw new SouthbridgeError(
        'ERR_RAM_ALLOCATION',
        `the host cannot map ${size} bytes of memory backend '${name}': ${cause.message}`,
        'ask for less, or for whole pages',
        { cause },
      );
    }
  }
}

/** The descriptor that the memory is mapped from; undefined where it is this process's own. */
function openSource({ id, spec }: UserObject): number | undefined {
  if (spec['qom-type'] === 'memory-backend-memfd') return createMemfd(`memory-backend-memfd-${id}`, Number(spec.size));
  if (spec['qom-type'] !== 'memory-backend-file') return undefined;
  const path = hostPath(spec['mem-path']);
  const size = Number(spec.size);
  const { fd, created } = openBackingStore(path, spec.readonly === true);
  try {
    const there = fstatSync(fd).size;
    if (there > 0 && there < size)
      throw new QmpError(
        `backing store size 0x${there.toString(16)} does not match 'size' option 0x${size.toString(16)}`,
      );
    if (there === 0) ftruncateSync(fd, size);
    return fd;
  } catch (error) {
    closeSync(fd);
    if (created) unlinkSync(path);
    throw error;
  }
}

/** A file that is made where there is none; in a folder, one that nobody else sees. */
function openBackingStore(path: string, readonly: boolean): { readonly fd: number; readonly created: boolean } {
  const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL } = constants;
  try {
    if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) return { fd: openUnnamed(path), created: false };
    if (readonly) return { fd: openSync(path, O_RDONLY), created: false };
    try {
      return { fd: openSync(path, O_RDWR), created: false };
    } catch (error) {
      if (!isSystemError(error) || error.code !== 'ENOENT') throw error;
      return { fd: openSync(path, O_RDWR | O_CREAT | O_EXCL, 0o644), created: true };
    }
  } catch (error) {
    if (!isSystemError(error)) throw error;
    throw new QmpError(`can't open backing store ${path} for guest RAM: ${reason(error.code)}`);
  }
}

function openUnnamed(folder: string): number {
  const place = mkdtempSync(join(folder, 'southbridge-'));
  const path = join(place, 'memory');
  try {
    const fd = openSync(path, 'wx+', 0o600);
    unlinkSync(path);
    return fd;
  } finally {
    rmdirSync(place);
  }
}

const REASONS: Readonly<Record<string, string>> = {
  EACCES: 'Permission denied',
  EISDIR: 'Is a directory',
  ENOENT: 'No such file or directory',
  ENOTDIR: 'Not a directory',
  EROFS: 'Read-only file system',
};

const reason = (code: string): string => REASONS[code] ?? code;
