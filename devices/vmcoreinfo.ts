/** Where a guest's kernel leaves word of its VMCOREINFO note, for who dumps its memory (QEMU docs/specs/vmcoreinfo). */
import { deviceType } from '../core/device/device-type.ts';
import { SouthbridgeError } from '../core/errors.ts';
import {
  type GuestNote,
  GuestNoteSource,
  NOTE_FORMAT_ELF,
  NOTE_FORMAT_NONE,
  VMCOREINFO_FILE,
} from '../core/firmware/vmcoreinfo.ts';
import { field } from '../core/state/fields.ts';
import { writableFwCfg } from './fw-cfg.ts';

/** The file's fields, little-endian. */
const HOST_FORMAT = 0;
const GUEST_FORMAT = 2;
const SIZE = 4;
const ADDRESS_LOW = 8;
const ADDRESS_HIGH = 12;
const FILE_SIZE = 16;

class VmCoreInfo extends GuestNoteSource {
  readonly #state = this.state(1, { told: field.bool(), file: field.bytes(FILE_SIZE) });
  /** What fw_cfg shows, which is the same bytes for ever. */
  readonly #file = new Uint8Array(FILE_SIZE);
  readonly #view = new DataView(this.#file.buffer);

  override get note(): GuestNote | undefined {
    if (!this.#state.told) return undefined;
    return {
      format: this.#view.getUint16(GUEST_FORMAT, true),
      size: this.#view.getUint32(SIZE, true),
      address: this.#view.getUint32(ADDRESS_LOW, true) + this.#view.getUint32(ADDRESS_HIGH, true) * 2 ** 32,
    };
  }

  protected override realize(): void {
    if (this.bus.devices.some(device => device instanceof VmCoreInfo && device !== this))
      throw new SouthbridgeError('ERR_DEVICE_TYPE', 'at most one vmcoreinfo device is permitted');
    writableFwCfg(this.bus, this.type.type).addFile(VMCOREINFO_FILE, this.#file, {
      written: (offset, length) => this.#written(offset, length),
    });
  }

  protected override resetHold(): void {
    this.#file.fill(0);
    this.#view.setUint16(HOST_FORMAT, NOTE_FORMAT_ELF, true);
    this.#state.file.set(this.#file);
  }

  protected override restored(): void {
    this.#file.set(this.#state.file);
  }

  /** Only a guest that writes the whole file at once is believed. */
  #written(offset: number, length: number): void {
    const format = this.#view.getUint16(GUEST_FORMAT, true);
    this.#state.file.set(this.#file);
    this.#state.told = offset === 0 && length === FILE_SIZE && format !== NOTE_FORMAT_NONE;
  }
}

export const vmcoreinfo = deviceType({
  type: 'vmcoreinfo',
  summary: "Tells who dumps the guest's memory of the kernel's own note",
  category: 'misc',
  parents: ['device'],
  hotpluggable: false,
  create: VmCoreInfo,
});
