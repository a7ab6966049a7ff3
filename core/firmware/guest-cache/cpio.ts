import { SouthbridgeError } from '../../errors.ts';

// The "newc" format as the kernel reads it (Documentation/driver-api/early-userspace/buffer-format.rst): a header of
// 110 ASCII bytes, the name, the file; each padded to 4 bytes.
const MAGIC = '070701';
const HEADER_SIZE = 110;
const TRAILER = 'TRAILER!!!';
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;
const S_IFCHR = 0o020000;

export type CpioEntry =
  | { readonly path: string; readonly type: 'file'; readonly bytes: Uint8Array; readonly mode?: number }
  | { readonly path: string; readonly type: 'directory'; readonly mode?: number }
  | { readonly path: string; readonly type: 'link'; readonly target: string }
  | {
      readonly path: string;
      readonly type: 'device';
      readonly major: number;
      readonly minor: number;
      readonly mode?: number;
    };

/**
 * A cpio archive in newc format: what Linux unpacks as its initramfs, and GRUB reads as a file system. Parent directories
 * that `entries` does not list are added; inode numbers and times are fixed, so equal entries give equal bytes.
 *
 * @throws SouthbridgeError ERR_CPIO_PATH for a path that is absolute, empty, or appears twice
 */
export function cpio(entries: readonly CpioEntry[]): Uint8Array {
  const all = withParents(entries);
  const records = all.map((entry, index) => record(index + 1, entry));
  records.push(encode({ inode: 0, mode: 0, links: 1, path: TRAILER, bytes: new Uint8Array(0), major: 0, minor: 0 }));
  const archive = new Uint8Array(records.reduce((size, bytes) => size + bytes.length, 0));
  let offset = 0;
  for (const bytes of records) {
    archive.set(bytes, offset);
    offset += bytes.length;
  }
  return archive;
}

function withParents(entries: readonly CpioEntry[]): CpioEntry[] {
  const all = new Map<string, CpioEntry>();
  const listed = new Set<string>();
  for (const entry of entries) {
    const parts = entry.path.split('/');
    if (parts.some(part => part === '' || part === '.' || part === '..') || entry.path === TRAILER) {
      throw new SouthbridgeError('ERR_CPIO_PATH', `'${entry.path}' is not a path within an archive`);
    }
    if (listed.has(entry.path)) throw new SouthbridgeError('ERR_CPIO_PATH', `'${entry.path}' is in the archive twice`);
    listed.add(entry.path);
    for (let depth = 1; depth < parts.length; depth++) {
      const parent = parts.slice(0, depth).join('/');
      if (!all.has(parent)) all.set(parent, { path: parent, type: 'directory' });
    }
    all.set(entry.path, entry);
  }
  return [...all.values()];
}

function record(inode: number, entry: CpioEntry): Uint8Array {
  const { path } = entry;
  const none = { inode, path, links: 1, bytes: new Uint8Array(0), major: 0, minor: 0 };
  switch (entry.type) {
    case 'file':
      return encode({ ...none, mode: S_IFREG | (entry.mode ?? 0o644), bytes: entry.bytes });
    case 'directory':
      return encode({ ...none, mode: S_IFDIR | (entry.mode ?? 0o755), links: 2 });
    case 'link':
      return encode({ ...none, mode: S_IFLNK | 0o777, bytes: new TextEncoder().encode(entry.target) });
    case 'device':
      return encode({ ...none, mode: S_IFCHR | (entry.mode ?? 0o600), major: entry.major, minor: entry.minor });
  }
}

interface Record {
  readonly inode: number;
  readonly mode: number;
  readonly links: number;
  readonly path: string;
  readonly bytes: Uint8Array;
  readonly major: number;
  readonly minor: number;
}

function encode({ inode, mode, links, path, bytes, major, minor }: Record): Uint8Array {
  const name = new TextEncoder().encode(`${path}\0`);
  // c_ino, c_mode, c_uid, c_gid, c_nlink, c_mtime, c_filesize, c_maj, c_min, c_rmaj, c_rmin, c_namesize, c_chksum
  const fields = [inode, mode, 0, 0, links, 0, bytes.length, 0, 0, major, minor, name.length, 0];
  const header = MAGIC + fields.map(field => field.toString(16).padStart(8, '0')).join('');
  const contents = align4(HEADER_SIZE + name.length);
  const result = new Uint8Array(contents + align4(bytes.length));
  result.set(new TextEncoder().encode(header));
  result.set(name, HEADER_SIZE);
  result.set(bytes, contents);
  return result;
}

function align4(size: number): number {
  return Math.ceil(size / 4) * 4;
}
