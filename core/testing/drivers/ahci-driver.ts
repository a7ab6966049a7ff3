import { ms } from '../../clock/units.ts';
import type { Device } from '../../device/device.ts';
import { SouthbridgeError } from '../../errors.ts';
import type { GuestRam } from '../../memory/guest-ram.ts';
import type { DriverPort } from '../../register/register.ts';
import type { Bench, PciProbe } from '../bench.ts';

const ABAR = 5;
/** Generic host control (AHCI 1.3.1, section 3.1). */
const HBA = { GHC: 0x04, IS: 0x08 } as const;
const GHC = { HR: 1 << 0, IE: 1 << 1, AE: 0x8000_0000 } as const;
/** Port registers (section 3.3). */
const PORT = {
  CLB: 0x00,
  FB: 0x08,
  IS: 0x10,
  IE: 0x14,
  CMD: 0x18,
  TFD: 0x20,
  SIG: 0x24,
  SERR: 0x30,
  SACT: 0x34,
  CI: 0x38,
} as const;
const CMD = { ST: 1 << 0, SUD: 1 << 1, FRE: 1 << 4, CR: 1 << 15 } as const;
const PORTS_AT = 0x100;
const PORT_SIZE = 0x80;
/** A command table: the FIS at 0, the regions at 0x80 (section 4.2.3). */
const TABLE_SIZE = 0x80 + 16 * 16;
const REGIONS_AT = 0x80;
const FIS_H2D = 0x27;

/** A stretch of memory that a command transfers. */
export interface AhciRegion {
  readonly address: number;
  readonly length: number;
}

export interface AhciCommand {
  /** ATA command code. */
  readonly command: number;
  readonly lba?: number;
  /** Sectors. */
  readonly count?: number;
  readonly features?: number;
  readonly write?: boolean;
  readonly regions?: readonly AhciRegion[];
  /** The slot, 0 to 31; default 0. */
  readonly slot?: number;
  /** Native command queuing: the tag is the slot. */
  readonly queued?: boolean;
}

/** The driver's side of one AHCI port (AHCI 1.3.1): command list, received FISes, command tables in the bench's RAM. */
export class AhciDriver {
  readonly hba: DriverPort;
  readonly ram: GuestRam;
  readonly #lab: Bench;
  readonly #port: number;
  readonly #list: number;
  readonly #received: number;
  readonly #tables: number;

  /** @param memory where in the bench's RAM its 20 KiB may be */
  constructor(lab: Bench, probe: PciProbe<Device>, port = 0, memory = 0x20_0000) {
    this.hba = probe.port(ABAR);
    this.ram = lab.ram;
    this.#lab = lab;
    this.#port = PORTS_AT + port * PORT_SIZE;
    this.#list = memory;
    this.#received = memory + 0x400;
    this.#tables = memory + 0x1000;
  }

  /** Resets the controller, and starts the port (section 10.1.2). */
  start(): void {
    const { hba } = this;
    hba.write(HBA.GHC, 4, GHC.AE | GHC.HR);
    hba.write(HBA.GHC, 4, (GHC.AE | GHC.IE) >>> 0);
    this.set(PORT.CLB, this.#list);
    this.set(PORT.CLB + 4, 0);
    this.set(PORT.FB, this.#received);
    this.set(PORT.FB + 4, 0);
    this.set(PORT.SERR, 0xffff_ffff);
    this.set(PORT.IS, 0xffff_ffff);
    this.set(PORT.IE, 0xffff_ffff);
    this.set(PORT.CMD, CMD.FRE | CMD.SUD);
    this.set(PORT.CMD, CMD.FRE | CMD.SUD | CMD.ST);
    if ((this.get(PORT.CMD) & CMD.CR) === 0) throw new SouthbridgeError('ERR_AHCI', 'the port does not start');
  }

  /** A register of the port's. */
  get(register: number): number {
    return this.hba.read(this.#port + register, 4);
  }

  set(register: number, value: number): void {
    this.hba.write(this.#port + register, 4, value >>> 0);
  }

  /** What the device's signature says it is (section 3.3.9): 0x101 is a disk. */
  get signature(): number {
    return this.get(PORT.SIG);
  }

  /** Status and error of the task file. */
  get taskFile(): { readonly status: number; readonly error: number } {
    const value = this.get(PORT.TFD);
    return { status: value & 0xff, error: (value >>> 8) & 0xff };
  }

  /** Makes a command and tells the device; it is under way when this returns. */
  issue(command: AhciCommand): number {
    const { slot = 0, regions = [], queued = false } = command;
    const { view } = this.ram;
    const table = this.#tables + slot * TABLE_SIZE;
    this.ram.bytes.fill(0, table, table + TABLE_SIZE);
    this.#writeFis(table, command, slot);
    for (const [index, { address, length }] of regions.entries()) {
      const at = table + REGIONS_AT + index * 16;
      view.setUint32(at, address, true);
      view.setUint32(at + 12, length - 1, true);
    }
    const header = this.#list + slot * 32;
    view.setUint32(header, 5 | (command.write ? 1 << 6 : 0) | (regions.length << 16), true);
    view.setUint32(header + 4, 0, true);
    view.setUint32(header + 8, table, true);
    view.setUint32(header + 12, 0, true);
    if (queued) this.set(PORT.SACT, 1 << slot);
    this.set(PORT.CI, 1 << slot);
    return slot;
  }

  /** Whether the command in `slot` has ended. */
  finished(slot: number): boolean {
    return (((this.get(PORT.CI) | this.get(PORT.SACT)) >>> slot) & 1) === 0;
  }

  /** Bytes that the device says it has transferred. */
  transferred(slot: number): number {
    return this.ram.view.getUint32(this.#list + slot * 32 + 4, true);
  }

  /**
   * Makes a command and waits for its end, while virtual time passes.
   * @throws SouthbridgeError ERR_AHCI where it does not end within a second of virtual time
   */
  async run(command: AhciCommand): Promise<{ readonly status: number; readonly error: number }> {
    const slot = this.issue(command);
    for (let waited = 0; !this.finished(slot); waited++) {
      if (waited === 1000)
        throw new SouthbridgeError('ERR_AHCI', `command 0x${command.command.toString(16)} does not end`);
      await new Promise(resolve => setImmediate(resolve));
      this.#lab.clock.advance(ms(1));
      // An error stops the port; its commands stay.
      if ((this.taskFile.status & 1) !== 0) break;
    }
    return this.taskFile;
  }

  /** Clears what is pending, as an interrupt handler does (section 5.5.3): the port's reasons, then the controller's. */
  acknowledge(): number {
    const reasons = this.get(PORT.IS);
    this.set(PORT.IS, reasons);
    this.hba.write(HBA.IS, 4, this.hba.read(HBA.IS, 4));
    return reasons;
  }

  /** Register FIS, host to device (Serial ATA 3.0, section 10.3.4). */
  #writeFis(at: number, { command, lba = 0, count = 0, features = 0, queued }: AhciCommand, slot: number): void {
    // Queued commands have their sectors in FEATURES, and their tag in COUNT.
    const [first, second] = queued ? [count, slot << 3] : [features, count];
    const bytes = [FIS_H2D, 0x80, command, first & 0xff];
    for (let byte = 0; byte < 3; byte++) bytes.push(Math.floor(lba / 2 ** (8 * byte)) & 0xff);
    bytes.push(0x40);
    for (let byte = 3; byte < 6; byte++) bytes.push(Math.floor(lba / 2 ** (8 * byte)) & 0xff);
    bytes.push((first >> 8) & 0xff, second & 0xff, (second >> 8) & 0xff);
    this.ram.bytes.set(bytes, at);
  }
}
