import { deviceType, field, I2cDevice, i2cProperties, prop, SouthbridgeError } from 'southbridge';

/** Registers of an LM75 (National Semiconductor DS012658), by the pointer that selects them. */
const POINTER = { TEMPERATURE: 0, CONFIGURATION: 1, HYSTERESIS: 2, OVERTEMPERATURE: 3 } as const;
const SHUTDOWN = 0x01;
const COLDEST = -55;
const HOTTEST = 125;
/** Nine bits in the upper end of a word, half a degree each; the limits are 75 and 80 degrees after power-on. */
const halfDegrees = (celsius: number): number => (Math.round(celsius * 2) << 7) & 0xff80;
const HYSTERESIS_AT_RESET = halfDegrees(75);
const OVERTEMPERATURE_AT_RESET = halfDegrees(80);

const properties = {
  ...i2cProperties,
  celsius: prop.string({ default: '21.5', help: 'temperature of its surroundings, in degrees' }),
} as const;

/** A temperature sensor that stock drivers know: LM75 at an I2C address. */
export class Thermometer extends I2cDevice<typeof properties> {
  readonly #s = this.state(1, {
    pointer: field.u8(),
    configuration: field.u8(),
    hysteresis: field.u16(HYSTERESIS_AT_RESET),
    overtemperature: field.u16(OVERTEMPERATURE_AT_RESET),
    measured: field.u16(),
    /** The bytes of the transfer under way: the pointer first, if it writes. */
    at: field.u8(),
  });
  /** What a test turns while the machine runs. */
  celsius = Number(this.props.celsius);

  protected override realize(): void {
    if (this.celsius >= COLDEST && this.celsius <= HOTTEST) return;
    throw new SouthbridgeError(
      'ERR_PROPERTY_VALUE',
      `${this.path}: celsius=${this.props.celsius} is not a temperature that an LM75 measures`,
      'give degrees from -55 to 125, such as 21.5',
    );
  }

  override start(read: boolean): boolean {
    this.#s.at = read ? 1 : 0;
    if (read && (this.#s.configuration & SHUTDOWN) === 0) this.#s.measured = halfDegrees(this.celsius);
    return true;
  }

  override receive(byte: number): boolean {
    const s = this.#s;
    const at = s.at++;
    if (at === 0) s.pointer = byte & 3;
    else if (s.pointer === POINTER.CONFIGURATION) s.configuration = byte & 0x1f;
    else if (s.pointer === POINTER.HYSTERESIS) s.hysteresis = shifted(s.hysteresis, byte, at);
    else if (s.pointer === POINTER.OVERTEMPERATURE) s.overtemperature = shifted(s.overtemperature, byte, at);
    else this.log.guestError('the temperature is read-only');
    return true;
  }

  override transmit(): number {
    const s = this.#s;
    const high = (s.at++ & 1) !== 0;
    if (s.pointer === POINTER.CONFIGURATION) return s.configuration;
    const word =
      s.pointer === POINTER.TEMPERATURE
        ? s.measured
        : s.pointer === POINTER.HYSTERESIS
          ? s.hysteresis
          : s.overtemperature;
    return high ? word >>> 8 : word & 0xff;
  }
}

const shifted = (word: number, byte: number, at: number): number =>
  at === 1 ? (byte << 8) | (word & 0xff) : (word & 0xff00) | (byte & 0x80);

export const thermometer = deviceType({
  type: 'lm75',
  summary: 'LM75 temperature sensor',
  bus: 'i2c-bus',
  parents: ['i2c-slave', 'device'],
  properties,
  create: Thermometer,
});
