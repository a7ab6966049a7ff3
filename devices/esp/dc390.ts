import { deviceType } from '../../core/device/device-type.ts';
import { MicrowireEeprom, microwireState } from '../microwire-eeprom.ts';
import { Am53c974, am53c974 } from './am53c974.ts';

/** Offsets in configuration space whose writes move the pins of the EEPROM. */
const PINS = 0x80;
const DESELECT = 0xc0;
const CLOCK = 0x80;
const DATA = 0x40;

/** Words of the EEPROM, which the adapter's firmware and drivers read: 16 targets, then the adapter itself. */
const EEPROM = { ADAPTER: 32, DELAY: 33, OPTIONS: 34, CHECKSUM: 63, WORDS: 64 } as const;
const TARGETS = 16;
/** Parity, synchronous, disconnects, sends start, tagged. */
const TARGET_SETTINGS = 0x0057;
const OWN_ID = 7;
const MODE = 0x0f;
const TAGS_LOG2 = 0x04;
/** F6 and F8 at boot, boots from CD-ROM, has INT 13h. */
const OPTIONS = 0x07;
const SUM = 0x1234;

/** Tekram DC-390: an Am53C974 with an EEPROM for its settings. */
class Dc390 extends Am53c974 {
  readonly #eeprom = new MicrowireEeprom(this.state(1, microwireState, { name: 'eeprom', onReset: 'keep' }));

  protected override realize(): void {
    super.realize();
    const eeprom = this.#eeprom;
    let sum = 0;
    const program = (address: number, word: number): void => {
      eeprom.program(address, word);
      sum += word;
    };
    for (let address = 0; address < EEPROM.CHECKSUM; address++) {
      program(address, address < TARGETS ? TARGET_SETTINGS : 0);
    }
    program(EEPROM.ADAPTER, OWN_ID | (MODE << 8));
    program(EEPROM.DELAY, TAGS_LOG2 << 8);
    program(EEPROM.OPTIONS, OPTIONS);
    // All words together come to a number that is agreed on.
    eeprom.program(EEPROM.CHECKSUM, SUM - sum);
  }

  /** The first byte shows the EEPROM's output, as zeroes. */
  override configRead(offset: number, size: number): number {
    const value = super.configRead(offset, size);
    return offset === 0 && size === 1 && !this.#eeprom.output ? 0 : value;
  }

  override configWrite(offset: number, size: number, value: number): void {
    if (offset === PINS) this.#eeprom.setPins(true, (value & CLOCK) !== 0, (value & DATA) !== 0);
    else if (offset === DESELECT) this.#eeprom.setPins(false, false, false);
    else super.configWrite(offset, size, value);
  }
}

export const dc390 = deviceType({
  type: 'dc390',
  summary: 'Tekram DC-390 SCSI adapter',
  category: 'storage',
  parents: ['am53c974', 'pci-device', 'device'],
  ...(am53c974.pci !== undefined && { pci: am53c974.pci }),
  bars: am53c974.bars,
  create: Dc390,
});
