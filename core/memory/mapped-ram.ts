import { mapFile } from '../host/files.ts';
import type { GuestRam, RamFile } from './guest-ram.ts';

/** Guest RAM that is a file's bytes: what others who map the same file see too, and what is still there afterwards. */
export class MappedRam implements GuestRam {
  readonly name: string;
  readonly size: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;
  readonly generation = 0;
  readonly anchor: object;
  readonly readonly: boolean;
  readonly files: readonly RamFile[];

  /**
   * @param fd stays the caller's, and open as long as others may want to map it
   * @param place bytes, whole pages
   * @param options `shared` writes reach the file, others are this process's own
   * @throws the system error of mmap(2)
   */
  constructor(
    name: string,
    fd: number,
    place: { readonly offset: number; readonly size: number },
    options: { readonly shared: boolean; readonly readonly?: boolean },
  ) {
    this.name = name;
    this.size = place.size;
    this.readonly = options.readonly ?? false;
    const memory = mapFile(fd, place.offset, place.size, { shared: options.shared, writable: !this.readonly });
    this.anchor = memory;
    this.bytes = new Uint8Array(memory);
    this.view = new DataView(memory);
    this.files = this.readonly
      ? []
      : [{ start: 0, size: place.size, fd, offset: place.offset, shared: options.shared }];
  }
}
