import { deviceType } from '../../../core/device/device-type.ts';
import { prop } from '../../../core/device/property.ts';
import { SouthbridgeError } from '../../../core/errors.ts';
import { uuidBytes } from '../../../core/firmware/aml.ts';
import { field } from '../../../core/state/fields.ts';
import { Bmc, bmcProperties } from '../bmc.ts';
import { COMPLETION, checksum, MAX_MESSAGE, NETFN, Request, Response } from '../message.ts';
import { type CommandSet, commands } from './command.ts';
import { EVENT_SIZE, EventLog, eventLogState } from './event-log.ts';
import { Inventory, inventoryState } from './inventory.ts';
import { SensorRecords, sensorRecordsState } from './sensor-records.ts';
import { Sensors, sensorsState } from './sensors.ts';
import { Watchdog, watchdogState } from './watchdog.ts';

/** Global enables (section 22.1) and message flags (section 22.4). */
const ENABLE = { MESSAGE_INTERRUPT: 1 << 0, EVENT_INTERRUPT: 1 << 1, EVENT_BUFFER: 1 << 2, EVENT_LOG: 1 << 3 } as const;
const FLAG = { MESSAGE: 1 << 0, EVENT: 1 << 1, WATCHDOG: 1 << 3 } as const;
const EMPTY = 0x80;

/** Sensors, sensor records and an event log (section 20.1, additional device support). */
const SUPPORT = 0x07;
/** Power is on, and what it does after a loss is unknown (section 28.2). */
const CHASSIS_POWER = 0x61;
const WATCHDOG_SENSOR = 0;

/** The other management controller on the bus, which only says who it is. */
const NEIGHBOUR = 0x40;
const NAK_ON_WRITE = 0x83;
const SMS_LUN = 2;
const SHORTEST_IPMB = 7;
const MAX_WAITING = 16;
const GET_DEVICE_ID = 0x01;

/** The record of the watchdog, which is there without a file (section 43.2). */
const WATCHDOG_RECORD = Uint8Array.of(
  ...[0x00, 0x00, 0x51, 0x02, 35, 0x20, 0x00, WATCHDOG_SENSOR, 0x23, 0x01, 0x63, 0x00, 0x23, 0x6f, 0x0f, 0x01],
  ...[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc8],
  ...Buffer.from('Watchdog'),
);

const properties = {
  ...bmcProperties,
  fruareasize: prop.u16({ default: 1024, help: "bytes of a unit's inventory" }),
  frudatafile: prop.string({ help: 'file with the inventories' }),
  sdrfile: prop.string({ help: 'file with sensor data records' }),
  device_id: prop.u8({ default: 0x20 }),
  ipmi_version: prop.u8({ default: 0x02 }),
  device_rev: prop.u8({ default: 0 }),
  fwrev1: prop.u8({ default: 0 }),
  fwrev2: prop.u8({ default: 0 }),
  mfg_id: prop.u32({ default: 0 }),
  product_id: prop.u16({ default: 0 }),
  guid: prop.uuid({ help: 'what Get Device GUID says' }),
} as const;

/** A BMC that runs on power of its own: what it knows outlives a reset of the machine. */
class BmcSim extends Bmc<typeof properties> {
  readonly slaveAddress = this.props.slave_addr;
  readonly #state = this.state(
    1,
    {
      enables: field.u8(ENABLE.EVENT_LOG),
      flags: field.u8(),
      event: field.bytes(EVENT_SIZE),
      messages: field.list(field.buffer(MAX_MESSAGE), MAX_WAITING),
      acpiSystem: field.u8(),
      acpiDevice: field.u8(),
    },
    { onReset: 'keep' },
  );
  readonly #log = new EventLog(this.state(1, eventLogState, { name: 'sel', onReset: 'keep' }), () => this.#hostSeconds);
  readonly #records = new SensorRecords(this.state(1, sensorRecordsState, { name: 'sdr', onReset: 'keep' }), () =>
    this.#log.now(),
  );
  readonly #inventory = new Inventory(
    this.state(1, inventoryState, { name: 'fru', onReset: 'keep' }),
    Math.max(1, this.props.fruareasize),
  );
  readonly #sensors = new Sensors({
    state: this.state(1, sensorsState, { name: 'sensors', onReset: 'keep' }),
    slaveAddress: this.slaveAddress,
    event: record => this.#event(record),
    log: record => this.#log.add(record) !== undefined,
  });
  readonly #watchdog: Watchdog = new Watchdog({
    state: this.state(1, watchdogState, { name: 'watchdog', onReset: 'keep' }),
    timer: this.clock.timer('watchdog', () => this.#watchdog.expire(), { onReset: 'keep' }),
    now: () => this.clock.now(),
    possible: operation => this.possible(operation),
    operate: operation => void this.operate(operation),
    warn: () => this.#raise(FLAG.WATCHDOG),
    assert: (bit, data) => this.#sensors.assert(WATCHDOG_SENSOR, bit, data),
  });
  readonly #functions: ReadonlyMap<number, readonly CommandSet[]> = new Map([
    [NETFN.CHASSIS, [this.#chassis()]],
    [NETFN.SENSOR_EVENT, [this.#sensors.commands]],
    [NETFN.APP, [this.#application(), this.#watchdog.commands]],
    [NETFN.STORAGE, [this.#inventory.commands, this.#records.commands, this.#log.commands]],
  ]);

  override get interruptsEnabled(): boolean {
    return (this.#state.enables & (ENABLE.MESSAGE_INTERRUPT | ENABLE.EVENT_INTERRUPT)) !== 0;
  }

  protected override realize(): void {
    const { sdrfile, frudatafile } = this.props;
    const records = sdrfile === undefined ? WATCHDOG_RECORD : this.services.romImage(sdrfile);
    const bad = this.#records.load(records);
    if (bad !== undefined)
      throw new SouthbridgeError('ERR_IPMI_RECORDS', `'${sdrfile}' holds no sensor data record at byte ${bad}`);
    this.#inventory.load(frudatafile === undefined ? new Uint8Array(0) : this.services.romImage(frudatafile));
    this.#sensors.load(this.#records.all);
  }

  override request(id: number, message: Uint8Array, truncated: boolean): void {
    const request = new Request(message);
    const response = new Response(request.target, request.command);
    const completion =
      message.length < 2
        ? COMPLETION.DATA_LENGTH_INVALID
        : truncated
          ? COMPLETION.DATA_TRUNCATED
          : this.#run(request, response);
    this.front?.respond(id, response.finish(completion));
  }

  #run(request: Request, response: Response): number {
    if ((request.target & 3) !== 0) return COMPLETION.INVALID_FOR_LUN;
    const sets = this.#functions.get(request.target >>> 2) ?? [];
    const command = sets.find(set => set.has(request.command))?.get(request.command);
    if (command === undefined) return COMPLETION.INVALID_COMMAND;
    if (request.data.length < (command.needs ?? 0)) return COMPLETION.DATA_LENGTH_INVALID;
    return command.run(request, response) ?? COMPLETION.OK;
  }

  // Section 28: chassis

  #chassis(): CommandSet {
    const controls = ['power-off', 'power-on', 'power-cycle', 'reset', 'pulse-diagnostic', 'soft-off'] as const;
    const address = this.slaveAddress;
    return commands([
      [0x00, (_, response) => void response.u8(0, address, address, address, address)],
      [0x01, (_, response) => void response.u8(CHASSIS_POWER, 0, 0, 0)],
      [
        0x02,
        request => {
          const operation = controls[request.u8(0) & 0xf];
          return operation === undefined ? COMPLETION.INVALID_DATA_FIELD : this.operate(operation);
        },
        1,
      ],
      [0x09, (_, response) => void response.u8(0, 0)],
    ]);
  }

  // Sections 20 and 22: the device, and messaging

  #application(): CommandSet {
    const state = this.#state;
    const { device_id, device_rev, fwrev1, fwrev2, ipmi_version, mfg_id, product_id, guid } = this.props;
    return commands([
      [
        GET_DEVICE_ID,
        (_, response) => {
          response.u8(device_id, device_rev & 0xf, fwrev1 & 0x7f, fwrev2, ipmi_version, SUPPORT);
          response.u24(mfg_id).u16(product_id);
          return COMPLETION.OK;
        },
      ],
      // Cold Reset
      [
        0x02,
        () => {
          this.#enable(ENABLE.EVENT_LOG);
          this.front?.bmcReset(true);
          return COMPLETION.OK;
        },
      ],
      // Warm Reset
      [0x03, () => void this.front?.bmcReset(false)],
      // Set and Get ACPI Power State
      [
        0x06,
        request => {
          [state.acpiSystem, state.acpiDevice] = [request.u8(0), request.u8(1)];
          return COMPLETION.OK;
        },
        2,
      ],
      [0x07, (_, response) => void response.u8(state.acpiSystem, state.acpiDevice)],
      // Get Device GUID
      [
        0x08,
        (_, response) => {
          if (guid === undefined) return COMPLETION.INVALID_COMMAND;
          response.add(uuidBytes(guid));
          return COMPLETION.OK;
        },
      ],
      // Set and Get BMC Global Enables
      [0x2e, request => this.#enable(request.u8(0)), 1],
      [0x2f, (_, response) => void response.u8(state.enables)],
      // Clear and Get Message Flags
      [0x30, request => this.#lower(request.u8(0)), 1],
      [0x31, (_, response) => void response.u8(state.flags)],
      // Get Message
      [
        0x33,
        (_, response) => {
          const message = state.messages.shift();
          if (message === undefined) return EMPTY;
          response.u8(0).add(message);
          if (state.messages.length === 0) this.#lower(FLAG.MESSAGE);
          return COMPLETION.OK;
        },
      ],
      // Send Message
      [0x34, request => this.#send(request), 1],
      // Read Event Message Buffer
      [
        0x35,
        (_, response) => {
          if ((state.flags & FLAG.EVENT) === 0) return EMPTY;
          response.add(state.event);
          this.#lower(FLAG.EVENT);
          return COMPLETION.OK;
        },
      ],
    ]);
  }

  /** A message for the neighbour on channel 0 (section 22.7); what it says is fetched with Get Message. */
  #send(request: Request): number {
    if (request.u8(0) !== 0) return COMPLETION.INVALID_DATA_FIELD;
    const message = request.data.subarray(1);
    if (message.length < SHORTEST_IPMB) return COMPLETION.DATA_LENGTH_INVALID;
    const [to = 0, target = 0, , from = 0, sequence = 0, command = 0] = message;
    if (to !== NEIGHBOUR) return NAK_ON_WRITE;
    if (checksum(message) !== 0 || from !== this.slaveAddress || (sequence & 3) !== SMS_LUN) return COMPLETION.OK;
    const known = target >>> 2 === NETFN.APP && command === GET_DEVICE_ID;
    const head = Uint8Array.of((target & ~3) | 4 | (sequence & 3));
    const body = [to, (sequence & ~3) | (target & 3), command, known ? COMPLETION.OK : COMPLETION.INVALID_COMMAND];
    const answer = Uint8Array.of(
      ...head,
      checksum(head),
      ...body,
      ...(known ? [0, 0, 0, 0, 0x51, 0, 0, 0, 0, 0, 0] : []),
    );
    if (this.#state.messages.length < MAX_WAITING)
      this.#state.messages.push(Uint8Array.of(...answer, checksum(answer)));
    this.#raise(FLAG.MESSAGE);
    return COMPLETION.OK;
  }

  #enable(enables: number): undefined {
    this.#state.enables = enables;
    this.front?.interruptsChanged();
  }

  #event(record: Uint8Array): void {
    const state = this.#state;
    if ((state.enables & ENABLE.EVENT_BUFFER) === 0) return;
    if ((state.enables & ENABLE.EVENT_LOG) !== 0) this.#log.add(record);
    if ((state.flags & FLAG.EVENT) !== 0) return;
    state.event = record;
    this.#raise(FLAG.EVENT);
  }

  #raise(flag: number): void {
    this.#state.flags |= flag;
    this.front?.setAttention(true, this.#mayInterrupt);
  }

  #lower(flags: number): undefined {
    this.#state.flags &= ~flags;
    this.front?.setAttention(this.#state.flags !== 0, this.#mayInterrupt);
  }

  get #mayInterrupt(): boolean {
    const { enables, flags } = this.#state;
    return (
      ((enables & ENABLE.MESSAGE_INTERRUPT) !== 0 && (flags & (FLAG.MESSAGE | FLAG.WATCHDOG)) !== 0) ||
      ((enables & ENABLE.EVENT_INTERRUPT) !== 0 && (flags & FLAG.EVENT) !== 0)
    );
  }

  get #hostSeconds(): number {
    const { hostClock } = this.services;
    return Math.floor((hostClock.epochMs + hostClock.now() / 1e6) / 1000);
  }
}

export const ipmiBmcSim = deviceType({
  type: 'ipmi-bmc-sim',
  summary: 'Baseboard management controller with sensors, an event log, inventory and a watchdog',
  properties,
  parents: ['ipmi-bmc', 'device'],
  hotpluggable: false,
  create: BmcSim,
});
