import type { IoHandler } from '../../core/memory/memory-region.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import type { IdeDrive } from './drive.ts';
import type { IdeBus } from './ide-bus.ts';
import { COMMAND, CONTROL, DEVICE, REG, STATUS } from './task-file.ts';

/** What a cable's registers keep by themselves; the rest is the drives'. */
export const channelState = { control: field.u8(), selected: field.u8(), device: field.u8(DEVICE.OBSOLETE) };

/** The two register blocks of a parallel ATA cable: the command block of 8 ports and the control port. */
export class IdeChannel {
  readonly #bus: IdeBus;
  readonly #s: StateValues<typeof channelState>;

  constructor(bus: IdeBus, state: StateValues<typeof channelState>) {
    this.#bus = bus;
    this.#s = state;
  }

  /** Whether the drive's interrupt gets through: nIEN masks it (ATA/ATAPI-6, section 7.8). */
  get interruptsEnabled(): boolean {
    return (this.#s.control & CONTROL.NIEN) === 0;
  }

  get selected(): IdeDrive | undefined {
    return this.#bus.drives[this.#s.selected];
  }

  get #empty(): boolean {
    return this.#bus.drives[0] === undefined && this.#bus.drives[1] === undefined;
  }

  reset(): void {
    this.#s.control = 0;
    this.#s.selected = 0;
    this.#s.device = DEVICE.OBSOLETE;
  }

  readonly commandBlock: IoHandler = {
    read: (offset, size) =>
      offset === REG.DATA ? (this.selected?.readData(size === 1 ? 2 : size) ?? 0) : this.#read(offset),
    write: (offset, size, value) => {
      if (offset === REG.DATA) this.selected?.writeData(size, value);
      else this.#write(offset, value);
    },
  };

  readonly controlPort: IoHandler = {
    read: () => this.#status(),
    write: (_offset, _size, value) => this.#writeControl(value & 0xff),
  };

  #read(offset: number): number {
    if (offset === REG.STATUS) {
      this.selected?.lowerIrq();
      return this.#status();
    }
    if (this.#empty) return 0;
    const drive = this.selected;
    // Drive 0 answers for itself where it is missing, with the register file that the cable keeps.
    if (drive === undefined) return offset === REG.DEVICE ? this.#s.device : 0;
    return drive.readRegister(offset, (this.#s.control & CONTROL.HOB) !== 0);
  }

  #status(): number {
    if (this.#empty) return 0;
    return this.selected?.s.status ?? 0;
  }

  #write(offset: number, value: number): void {
    if (offset === REG.STATUS) {
      this.#command(value);
      return;
    }
    if (this.selected?.busyOrData) return;
    this.#s.control &= ~CONTROL.HOB;
    // Both drives see every write.
    for (const drive of this.#bus.drives) drive?.writeRegister(offset, value);
    if (offset !== REG.DEVICE) return;
    this.#s.device = value | DEVICE.OBSOLETE;
    this.#s.selected = (value & DEVICE.DEV) !== 0 ? 1 : 0;
  }

  #command(command: number): void {
    this.#s.control &= ~CONTROL.HOB;
    if (command === COMMAND.EXECUTE_DIAGNOSTIC) {
      // Both drives test themselves, and drive 0 answers (section 9.4).
      for (const drive of this.#bus.drives) if (drive !== undefined && drive !== this.selected) drive.diagnose();
      this.selected?.issue(command);
      this.#select(0);
      return;
    }
    this.selected?.issue(command);
  }

  #select(unit: 0 | 1): void {
    this.#s.selected = unit;
    this.#s.device = (this.#s.device & ~DEVICE.DEV) | (unit === 1 ? DEVICE.DEV : 0);
    for (const drive of this.#bus.drives) drive?.showUnit(unit);
  }

  #writeControl(value: number): void {
    const before = this.#s.control;
    this.#s.control = value;
    const drives = this.#bus.drives;
    if ((value & ~before & CONTROL.SRST) !== 0) {
      for (const drive of drives) {
        if (drive === undefined) continue;
        drive.resetTaskFile(true);
        drive.s.status |= STATUS.BSY;
        drive.lowerIrq();
      }
      this.#s.selected = 0;
      this.#s.device = DEVICE.OBSOLETE;
    } else if ((before & ~value & CONTROL.SRST) !== 0) {
      for (const drive of drives) drive?.diagnose();
    }
  }
}
