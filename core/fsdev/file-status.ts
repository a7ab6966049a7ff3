/** Types of files in a mode (stat.h). */
export const MODE = {
  TYPE: 0o170000,
  SOCKET: 0o140000,
  LINK: 0o120000,
  REGULAR: 0o100000,
  FOLDER: 0o040000,
  PERMISSIONS: 0o7777,
} as const;

/** Where each fact is in {@link FileStatus.values}: the order is that of the addon's treeStatus. */
const AT = {
  mode: 0,
  links: 1,
  uid: 2,
  gid: 3,
  inodeLow: 4,
  inodeHigh: 5,
  filesystem: 6,
  device: 7,
  size: 8,
  blockSize: 9,
  blocks: 10,
  accessed: 11,
  modified: 13,
  changed: 15,
} as const;
const FIELDS = 17;

/** What stat(2) says of a file. One is used again and again: nothing is allocated per request. */
export class FileStatus {
  readonly values = new Float64Array(FIELDS);

  get mode(): number {
    return this.#at(AT.mode);
  }
  set mode(mode: number) {
    this.values[AT.mode] = mode;
  }
  get links(): number {
    return this.#at(AT.links);
  }
  set links(links: number) {
    this.values[AT.links] = links;
  }
  get uid(): number {
    return this.#at(AT.uid);
  }
  set uid(uid: number) {
    this.values[AT.uid] = uid;
  }
  get gid(): number {
    return this.#at(AT.gid);
  }
  set gid(gid: number) {
    this.values[AT.gid] = gid;
  }
  get inodeLow(): number {
    return this.#at(AT.inodeLow);
  }
  set inodeLow(inode: number) {
    this.values[AT.inodeLow] = inode;
  }
  get inodeHigh(): number {
    return this.#at(AT.inodeHigh);
  }
  /** The file system that the file is on (st_dev). */
  get filesystem(): number {
    return this.#at(AT.filesystem);
  }
  /** What a device node stands for (st_rdev). */
  get device(): number {
    return this.#at(AT.device);
  }
  set device(device: number) {
    this.values[AT.device] = device;
  }
  get size(): number {
    return this.#at(AT.size);
  }
  set size(size: number) {
    this.values[AT.size] = size;
  }
  get blockSize(): number {
    return this.#at(AT.blockSize);
  }
  get blocks(): number {
    return this.#at(AT.blocks);
  }
  get type(): number {
    return this.mode & MODE.TYPE;
  }

  /** Seconds of a time; its nanoseconds follow in {@link nanoseconds}. */
  seconds(which: 'accessed' | 'modified' | 'changed'): number {
    return this.#at(AT[which]);
  }

  nanoseconds(which: 'accessed' | 'modified' | 'changed'): number {
    return this.#at(AT[which] + 1);
  }

  clear(): void {
    this.values.fill(0);
  }

  #at(index: number): number {
    return this.values[index] ?? 0;
  }
}

/** A device number as st_rdev has it: twelve bits of major, twenty of minor (linux/kdev_t.h, new_encode_dev). */
export const deviceNumber = (major: number, minor: number): number =>
  ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)) >>> 0;
