import { SouthbridgeError } from '../errors.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import { copyToRam } from '../memory/copy.ts';
import { hex, type Segment } from './image.ts';

const PAGE = 4096;

/** What devices and the user want in memory whenever the machine starts anew, as if it were read-only memory. */
export class MemoryImages {
  readonly #memory: AddressSpace;
  readonly #images = new Set<{ readonly name: string; readonly segments: readonly Segment[] }>();

  constructor(memory: AddressSpace) {
    this.#memory = memory;
  }

  /**
   * Has `segments` of the file `name` put into memory at each reset, until what is returned is called.
   *
   * @throws SouthbridgeError ERR_IMAGE_OVERLAP where other bytes are to be there
   */
  add(name: string, segments: readonly Segment[]): () => void {
    for (const image of this.#images)
      for (const there of image.segments)
        for (const segment of segments) {
          if (segment.address >= there.address + there.size || there.address >= segment.address + segment.size)
            continue;
          const range = ({ address, size }: Segment): string => `${hex(address)} - ${hex(address + size)}`;
          throw new SouthbridgeError(
            'ERR_IMAGE_OVERLAP',
            `Some ROM regions are overlapping: ${image.name} (${range(there)}) and ${name} (${range(segment)})`,
            'give one of them another address',
          );
        }
    const image = { name, segments };
    this.#images.add(image);
    return () => this.#images.delete(image);
  }

  /** Writes all images, also where guests can only read. What lies outside of memory is lost. */
  place(): void {
    for (const { segments } of this.#images)
      for (const { address, bytes, size } of segments) {
        this.#place(address, bytes, bytes.length);
        this.#place(address + bytes.length, undefined, size - bytes.length);
      }
  }

  /** @param bytes undefined for zeros */
  #place(address: number, bytes: Uint8Array | undefined, length: number): void {
    for (let done = 0; done < length; ) {
      const here = address + done;
      const range = this.#memory.find(here);
      const step = Math.min(length - done, range === undefined ? PAGE - (here % PAGE) : range.end - here);
      const ram = range?.region.ram;
      if (range !== undefined && ram !== undefined) {
        const offset = here - range.start + range.offset;
        if (bytes === undefined) ram.bytes.fill(0, offset, offset + step);
        else copyToRam(bytes, done, ram.bytes, offset, step);
        this.#memory.ramWritten?.(here, step);
      }
      done += step;
    }
  }
}
