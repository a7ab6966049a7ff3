import { Device } from '../device/device.ts';
import type { PropSet } from '../device/property.ts';

export const VMCOREINFO_FILE = 'etc/vmcoreinfo';

/** What a guest's kernel says of the note that describes it to debuggers (QEMU docs/specs/vmcoreinfo). */
export interface GuestNote {
  /** {@link NOTE_FORMAT_ELF}, if it is one that is known. */
  readonly format: number;
  /** Bytes. */
  readonly size: number;
  /** Guest-physical. */
  readonly address: number;
}

export const NOTE_FORMAT_NONE = 0;
/** An ELF note: name, type and contents. */
export const NOTE_FORMAT_ELF = 1;

/** A device that the guest has told of its note. */
export abstract class GuestNoteSource<S extends PropSet = PropSet> extends Device<S> {
  /** Undefined until the guest has. */
  abstract readonly note: GuestNote | undefined;
}
