import { I2cDevice, i2cProperties } from '../core/bus/i2c.ts';
import { deviceType } from '../core/device/device-type.ts';
import { field } from '../core/state/fields.ts';

const SIZE = 256;

/** A 256-byte serial EEPROM as on memory modules: a write sets the pointer, further bytes are stored, reads go on from there. */
class SmbusEeprom extends I2cDevice<typeof i2cProperties> {
  readonly #s = this.state(1, { contents: field.bytes(SIZE) }, { onReset: 'keep' });
  readonly #pointer = this.state(1, { at: field.u8(), expectsPointer: field.bool(true) }, { name: 'pointer' });

  /** Fills the EEPROM as the machine was delivered. */
  load(contents: Uint8Array): void {
    this.#s.contents.set(contents.subarray(0, SIZE));
  }

  override start(read: boolean): boolean {
    this.#pointer.expectsPointer = !read;
    return true;
  }

  override receive(byte: number): boolean {
    const pointer = this.#pointer;
    if (pointer.expectsPointer) {
      pointer.at = byte;
      pointer.expectsPointer = false;
    } else {
      this.#s.contents[pointer.at] = byte;
      pointer.at = (pointer.at + 1) % SIZE;
    }
    return true;
  }

  override transmit(): number {
    const pointer = this.#pointer;
    const byte = this.#s.contents[pointer.at] ?? 0xff;
    pointer.at = (pointer.at + 1) % SIZE;
    return byte;
  }
}

export const smbusEeprom = deviceType({
  type: 'smbus-eeprom',
  summary: "Serial EEPROM with a memory module's data",
  bus: 'i2c-bus',
  parents: ['smbus-device', 'i2c-slave', 'device'],
  properties: i2cProperties,
  userCreatable: false,
  create: SmbusEeprom,
});
