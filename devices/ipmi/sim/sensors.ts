/** Sensors and the events they make (IPMI 2.0, sections 29 and 35). */
import { field, type StateValues } from '../../../core/state/fields.ts';
import { COMPLETION, type Request } from '../message.ts';
import { type CommandSet, commands } from './command.ts';
import { EVENT_SIZE } from './event-log.ts';

const MAX_SENSORS = 20;
/** Record type and places of a compact sensor record (table 43-2). */
const COMPACT = 0x02;
const RECORD = {
  TYPE: 3,
  NUMBER: 7,
  INITIALIZATION: 10,
  SENSOR_TYPE: 12,
  READING_TYPE: 13,
  ASSERTIONS: 14,
  DEASSERTIONS: 16,
  READINGS: 18,
} as const;
const SHORTEST_COMPACT = 25;
const INIT_SCANNING = 1 << 6;
const INIT_EVENTS = 1 << 5;

/** Status of a sensor (section 35.14). */
const SCANNING = 1 << 6;
const EVENTS = 1 << 7;
const SETTINGS = SCANNING | EVENTS;
const THRESHOLD = 1;

/** A system event record (table 32-1). */
const SYSTEM_EVENT = 0x02;
const EVENT_FORMAT = 0x04;
const DEASSERTION = 0x80;

export const sensorsState = {
  sensors: field.list(
    field.record({
      present: field.bool(),
      status: field.u8(),
      reading: field.u8(),
      sensorType: field.u8(),
      readingType: field.u8(),
      supported: field.u16(),
      assertable: field.u16(),
      deassertable: field.u16(),
      states: field.u16(),
      asserted: field.u16(),
      deasserted: field.u16(),
      assertEvents: field.u16(),
      deassertEvents: field.u16(),
    }),
    MAX_SENSORS,
  ),
};
type Sensor = StateValues<typeof sensorsState>['sensors'][number];

interface SensorsParts {
  readonly state: StateValues<typeof sensorsState>;
  readonly slaveAddress: number;
  /** Takes a system event record. */
  event(record: Uint8Array): void;
  /** Logs one that software made. False where the log is full. */
  log(record: Uint8Array): boolean;
}

export class Sensors {
  readonly #parts: SensorsParts;
  readonly commands: CommandSet;

  constructor(parts: SensorsParts) {
    this.#parts = parts;
    this.commands = commands([
      // 29.3 Platform Event Message
      [
        0x02,
        request => {
          const [generator = 0, ...rest] = request.data.subarray(0, 8);
          const record = eventRecord(generator, rest);
          return parts.log(record) ? COMPLETION.OK : COMPLETION.OUT_OF_SPACE;
        },
        8,
      ],
      // 35.10 Set Sensor Event Enable
      [0x28, request => this.#with(request, sensor => setEventEnable(sensor, request)), 2],
      // 35.11 Get Sensor Event Enable
      [
        0x29,
        (request, response) =>
          this.#with(request, ({ status, assertEvents, deassertEvents }) => {
            response
              .u8(status & SETTINGS)
              .u16(assertEvents)
              .u16(deassertEvents);
            return COMPLETION.OK;
          }),
        1,
      ],
      // 35.12 Re-arm Sensor Events
      [
        0x2a,
        request =>
          this.#with(request, sensor => {
            if ((request.u8(1) & 0x80) === 0) sensor.states = 0;
            return COMPLETION.OK;
          }),
        2,
      ],
      // 35.13 Get Sensor Event Status
      [
        0x2b,
        (request, response) =>
          this.#with(request, ({ reading, status, asserted, deasserted }) => {
            response
              .u8(reading, status & SETTINGS)
              .u16(asserted)
              .u16(deasserted);
            return COMPLETION.OK;
          }),
        1,
      ],
      // 35.14 Get Sensor Reading
      [
        0x2d,
        (request, response) =>
          this.#with(request, ({ reading, status, states, readingType }) => {
            response.u8(reading, status & SETTINGS, states);
            if (readingType !== THRESHOLD) response.u8(states >>> 8);
            return COMPLETION.OK;
          }),
        1,
      ],
      // 35.15 Set Sensor Type
      [
        0x2e,
        request =>
          this.#with(request, sensor => {
            sensor.sensorType = request.u8(1);
            sensor.readingType = request.u8(2) & 0x7f;
            return COMPLETION.OK;
          }),
        3,
      ],
      // 35.16 Get Sensor Type
      [
        0x2f,
        (request, response) =>
          this.#with(request, ({ sensorType, readingType }) => {
            response.u8(sensorType, readingType);
            return COMPLETION.OK;
          }),
        1,
      ],
      // 35.17 Set Sensor Reading and Event Status
      [0x30, request => this.#with(request, sensor => this.#setReading(sensor, request)), 3],
    ]);
  }

  /** Makes the sensors that compact records describe. */
  load(records: readonly Uint8Array[]): void {
    const sensors = Array.from({ length: MAX_SENSORS }, noSensor);
    for (const record of records) {
      const sensor = sensors[record[RECORD.NUMBER] ?? MAX_SENSORS];
      if (record[RECORD.TYPE] !== COMPACT || record.length < SHORTEST_COMPACT || sensor === undefined) continue;
      const u16 = (at: number): number => (record[at] ?? 0) | ((record[at + 1] ?? 0) << 8);
      const init = record[RECORD.INITIALIZATION] ?? 0;
      sensor.present = true;
      sensor.status = ((init & INIT_SCANNING) !== 0 ? SCANNING : 0) | ((init & INIT_EVENTS) !== 0 ? EVENTS : 0);
      sensor.sensorType = record[RECORD.SENSOR_TYPE] ?? 0;
      sensor.readingType = (record[RECORD.READING_TYPE] ?? 0) & 0x7f;
      sensor.assertable = u16(RECORD.ASSERTIONS);
      sensor.deassertable = u16(RECORD.DEASSERTIONS);
      sensor.supported = u16(RECORD.READINGS);
      sensor.assertEvents = sensor.assertable;
      sensor.deassertEvents = sensor.deassertable;
    }
    this.#parts.state.sensors = sensors;
  }

  /** A discrete sensor finds its state `bit` asserted. */
  assert(number: number, bit: number, eventData: readonly number[]): void {
    const sensor = this.#parts.state.sensors[number];
    if (sensor === undefined) return;
    const mask = 1 << bit;
    sensor.states |= mask & sensor.supported;
    if ((sensor.asserted & mask) !== 0) return;
    sensor.asserted |= mask & sensor.assertable;
    if ((sensor.assertEvents & mask & sensor.asserted) !== 0) this.#event(number, sensor, false, eventData);
  }

  #with(request: Request, action: (sensor: Sensor) => number): number {
    const sensor = this.#parts.state.sensors[request.u8(0)];
    return sensor?.present === true ? action(sensor) : COMPLETION.NOT_PRESENT;
  }

  #setReading(sensor: Sensor, request: Request): number {
    const operation = request.u8(1);
    const given = request.data.length;
    const [readingOp, deassertOp, assertOp, dataOp] = [0, 2, 4, 6].map(shift => (operation >>> shift) & 3);
    const withData = dataOp === 1 || dataOp === 2;
    if ((readingOp ?? 0) > 1 || dataOp === 3 || (withData && given < 8)) return COMPLETION.INVALID_DATA_FIELD;
    if (readingOp === 1) sensor.reading = request.u8(2);
    if (given > 5) sensor.deasserted = masked(deassertOp, sensor.deasserted, request.u16(5), given > 6 ? 0xffff : 0xff);
    if (given > 3) sensor.asserted = masked(assertOp, sensor.asserted, request.u16(3), given > 4 ? 0xffff : 0xff);
    if (sensor.readingType === THRESHOLD || !withData) return COMPLETION.OK;
    const first = dataOp === 2 ? request.u8(7) & 0xf0 : request.u8(7);
    const data = [first, request.u8(8), request.u8(9)];
    const mask = 1 << (first & 0xf);
    const number = request.u8(0);
    if ((sensor.asserted & mask & sensor.assertEvents) !== 0) this.#event(number, sensor, false, data);
    if ((sensor.deasserted & mask & sensor.deassertEvents) !== 0) this.#event(number, sensor, true, data);
    return COMPLETION.OK;
  }

  #event(number: number, sensor: Sensor, deasserted: boolean, data: readonly number[]): void {
    if ((sensor.status & EVENTS) === 0) return;
    const kind = sensor.readingType | (deasserted ? DEASSERTION : 0);
    this.#parts.event(eventRecord(this.#parts.slaveAddress, [EVENT_FORMAT, sensor.sensorType, number, kind, ...data]));
  }
}

function eventRecord(generator: number, event: readonly number[]): Uint8Array {
  const record = new Uint8Array(EVENT_SIZE);
  record[2] = SYSTEM_EVENT;
  record[7] = generator;
  record.set(event, 9);
  return record;
}

/** Bits 5:4 of the request say what the masks behind it are for. */
function setEventEnable(sensor: Sensor, request: Request): number {
  const operation = (request.u8(1) >>> 4) & 3;
  if (operation === 3) return COMPLETION.INVALID_DATA_FIELD;
  const [assertions, deassertions] = [request.u16(2), request.u16(4)];
  if (operation === 1) {
    sensor.assertEvents |= assertions;
    sensor.deassertEvents |= deassertions;
  } else if (operation === 2) {
    sensor.assertEvents &= ~assertions;
    sensor.deassertEvents &= ~deassertions;
  }
  sensor.status = (sensor.status & ~SETTINGS) | (request.u8(1) & SETTINGS);
  return COMPLETION.OK;
}

/** Table 35-17: 1 writes, 2 sets the bits of the mask, 3 clears those that it has not. Only bits of `present` bytes. */
function masked(operation: number | undefined, old: number, mask: number, present: number): number {
  if (operation === 1) return mask & present;
  if (operation === 2) return old | (mask & present);
  if (operation === 3) return old & (mask | (~present & 0xffff));
  return old;
}

const noSensor = (): Sensor => ({
  present: false,
  status: 0,
  reading: 0,
  sensorType: 0,
  readingType: 0,
  supported: 0,
  assertable: 0,
  deassertable: 0,
  states: 0,
  asserted: 0,
  deasserted: 0,
  assertEvents: 0,
  deassertEvents: 0,
});
