/** Field replaceable units' inventory (IPMI 2.0, section 34). */
import { field, type StateValues } from '../../../core/state/fields.ts';
import { COMPLETION } from '../message.ts';
import { type CommandSet, commands } from './command.ts';

const MAX_BYTES = 255 * 0xffff;
const BY_BYTES = 0;

export const inventoryState = { data: field.buffer(MAX_BYTES) };

/** Areas of one size, one for each unit. */
export class Inventory {
  readonly #state: StateValues<typeof inventoryState>;
  readonly #areaSize: number;
  readonly commands: CommandSet;

  constructor(state: StateValues<typeof inventoryState>, areaSize: number) {
    this.#state = state;
    this.#areaSize = areaSize;
    this.commands = commands([
      // 34.1 Get FRU Inventory Area Info
      [
        0x10,
        (request, response) => {
          if (this.#area(request.u8(0)) === undefined) return COMPLETION.INVALID_DATA_FIELD;
          response.u16(areaSize).u8(BY_BYTES);
          return COMPLETION.OK;
        },
        1,
      ],
      // 34.2 Read FRU Data
      [
        0x11,
        (request, response) => {
          const area = this.#area(request.u8(0));
          const offset = request.u16(1);
          if (area === undefined || offset >= areaSize) return COMPLETION.INVALID_DATA_FIELD;
          const bytes = area.subarray(offset, offset + request.u8(3));
          response.u8(bytes.length).add(bytes);
          return COMPLETION.OK;
        },
        4,
      ],
      // 34.3 Write FRU Data
      [
        0x12,
        (request, response) => {
          const area = this.#area(request.u8(0));
          const offset = request.u16(1);
          if (area === undefined || offset >= areaSize) return COMPLETION.INVALID_DATA_FIELD;
          const bytes = request.data.subarray(3, 3 + Math.min(areaSize - offset, 255));
          area.set(bytes, offset);
          response.u8(bytes.length);
          return COMPLETION.OK;
        },
        3,
      ],
    ]);
  }

  /** Takes a file's bytes, or nothing for one empty area. */
  load(file: Uint8Array): void {
    const areas = Math.min(255, Math.max(1, Math.ceil(file.length / this.#areaSize)));
    const data = new Uint8Array(areas * this.#areaSize);
    data.set(file.subarray(0, data.length));
    this.#state.data = data;
  }

  #area(unit: number): Uint8Array | undefined {
    const start = unit * this.#areaSize;
    const { data } = this.#state;
    return start + this.#areaSize <= data.length ? data.subarray(start, start + this.#areaSize) : undefined;
  }
}
