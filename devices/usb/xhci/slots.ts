import type { UsbBus } from '../../../core/usb/bus.ts';
import type { UsbDevice } from '../../../core/usb/device.ts';
import type { UsbEndpoint } from '../../../core/usb/endpoint.ts';
import { PID } from '../../../core/usb/packet.ts';
import type { UsbPort } from '../../../core/usb/port.ts';
import { type EndpointHost, XhciEndpoint } from './endpoint.ts';
import { CC, CONTROL, ENDPOINTS, EP_STATE, interrupterOf, SLOT_STATE, TRB } from './registers.ts';
import type { TrbList } from './ring.ts';

const CONTEXT_SIZE = 32;
const CONTEXT_ENTRIES = 0xf800_0000;
const SLOT_STATE_SHIFT = 27;
/** Levels of hubs in a route string (section 6.2.2). */
const ROUTE_DEPTH = 5;
/** Exponent of the streams that an endpoint may have: 256. */
export const MAX_STREAMS = 7;
/** Part of a port's bandwidth that is free, in percent. */
const FREE_BANDWIDTH = 80;

export interface SlotHost extends EndpointHost {
  readonly bus: UsbBus;
  readonly portCount: number;
  readonly maxStreams: number;
  /** Root port `number`, counted from 1, as the bus knows it. */
  rootPort(number: number): UsbPort | undefined;
  /** Where the device context base address array is. */
  contextArray(): number;
}

/** A device slot. */
export class Slot {
  readonly id: number;
  readonly endpoints: (XhciEndpoint | undefined)[] = new Array(ENDPOINTS + 1).fill(undefined);
  enabled = false;
  /** Its device context in memory. */
  context = 0;
  interrupter = 0;
  /** The port of the device that it is for. */
  port: UsbPort | undefined;

  constructor(id: number) {
    this.id = id;
  }

  get device(): UsbDevice | undefined {
    const device = this.port?.device;
    return device?.addressable ? device : undefined;
  }
}

/** Device slots, and the commands that set them up (xHCI 1.1, section 4.6). */
export class Slots {
  /** By id, counted from 1. */
  readonly all: readonly Slot[];
  readonly #host: SlotHost;

  constructor(host: SlotHost, count: number) {
    this.#host = host;
    this.all = Array.from({ length: count }, (_, index) => new Slot(index + 1));
  }

  slot(id: number): Slot | undefined {
    return this.all[id - 1];
  }

  /** The device's endpoint behind `pipe`. */
  usbEndpoint(pipe: XhciEndpoint): UsbEndpoint | undefined {
    return this.slot(pipe.slotId)?.device?.endpoint((pipe.id & 1) === 1 ? PID.IN : PID.OUT, pipe.id >> 1);
  }

  *pipes(): Generator<XhciEndpoint> {
    for (const { endpoints } of this.all) for (const pipe of endpoints) if (pipe !== undefined) yield pipe;
  }

  /** The slot of a device, by its port. */
  ofPort(port: UsbPort | undefined): Slot | undefined {
    return this.all.find(slot => slot.port === port && port !== undefined);
  }

  /** A device is about to go: its transfers are given up; its slot stays enabled until the driver notices. */
  detach(port: UsbPort | undefined): void {
    const slot = this.ofPort(port);
    if (slot === undefined) return;
    for (const pipe of slot.endpoints) pipe?.cancel(0);
    slot.port = undefined;
  }

  /** @param quiet leaves contexts in memory alone */
  disableAll(quiet: boolean): void {
    for (const slot of this.all) this.#disable(slot, quiet);
  }

  /** The slot that a command is for, or a completion code. */
  find(control: number): Slot | number {
    const slot = this.slot(CONTROL.slot(control));
    if (slot === undefined) return CC.TRB_ERROR;
    return slot.enabled ? slot : CC.SLOT_NOT_ENABLED;
  }

  /** Enable Slot (section 4.6.3). */
  enable(): Slot | undefined {
    const slot = this.all.find(({ enabled }) => !enabled);
    if (slot === undefined) return undefined;
    slot.enabled = true;
    slot.port = undefined;
    return slot;
  }

  /** Executes a command that is for one slot. Returns its completion code. */
  command(slot: Slot, list: TrbList): number {
    const control = list.control(0);
    const input = list.parameter(0);
    switch (list.type(0)) {
      case TRB.DISABLE_SLOT:
        this.#disable(slot, false);
        return CC.SUCCESS;
      case TRB.ADDRESS_DEVICE:
        return this.#address(slot, input, (control & CONTROL.BIT9) !== 0);
      case TRB.CONFIGURE_ENDPOINT:
        return this.#configure(slot, input, (control & CONTROL.BIT9) !== 0);
      case TRB.EVALUATE_CONTEXT:
        return this.#evaluate(slot, input);
      case TRB.RESET_DEVICE:
        return this.#resetDevice(slot);
      default:
        return this.#endpointCommand(slot, list);
    }
  }

  #endpointCommand(slot: Slot, list: TrbList): number {
    const id = CONTROL.endpoint(list.control(0));
    if (id < 1) return CC.TRB_ERROR;
    const pipe = slot.endpoints[id];
    if (pipe === undefined) return CC.ENDPOINT_NOT_ENABLED;
    switch (list.type(0)) {
      case TRB.STOP_ENDPOINT:
        pipe.cancel(CC.STOPPED);
        break;
      case TRB.RESET_ENDPOINT:
        if (pipe.state !== EP_STATE.HALTED) return CC.CONTEXT_STATE;
        pipe.cancel(0);
        if (slot.device === undefined) return CC.TRANSACTION_ERROR;
        break;
      case TRB.SET_TR_DEQUEUE:
        return pipe.setDequeue(list.low(0), list.high(0), list.status(0) >>> 16);
      default:
        return CC.TRB_ERROR;
    }
    pipe.setState(EP_STATE.STOPPED);
    pipe.forgetStreams();
    return CC.SUCCESS;
  }

  #disable(slot: Slot, quiet: boolean): void {
    for (let id = 1; id <= ENDPOINTS; id++) this.#dropEndpoint(slot, id, quiet);
    slot.enabled = false;
    slot.port = undefined;
    slot.interrupter = 0;
  }

  #dropEndpoint(slot: Slot, id: number, quiet = false): void {
    const pipe = slot.endpoints[id];
    if (pipe === undefined) return;
    pipe.cancel(0);
    if (!quiet) pipe.setState(EP_STATE.DISABLED);
    slot.endpoints[id] = undefined;
  }

  /** Takes endpoint `id` into use with the context at `input`, and copies that to the device context. */
  #addEndpoint(slot: Slot, id: number, input: number): void {
    this.#dropEndpoint(slot, id);
    const { dma, maxStreams } = this.#host;
    const words = Array.from({ length: 5 }, (_, index) => dma.read32(input + 4 * index));
    const pipe = this.newEndpoint(slot, id);
    const context = slot.context + CONTEXT_SIZE * id;
    pipe.configure(context, words, maxStreams);
    words[0] = ((words[0] ?? 0) & ~7) | EP_STATE.RUNNING;
    for (const [index, word] of words.entries()) dma.write32(context + 4 * index, word);
  }

  newEndpoint(slot: Slot, id: number): XhciEndpoint {
    const pipe = new XhciEndpoint(this.#host, slot.id, id);
    slot.endpoints[id] = pipe;
    return pipe;
  }

  /** Address Device (section 4.6.5). */
  #address(slot: Slot, input: number, block: boolean): number {
    const { dma } = this.#host;
    if (dma.read32(input) !== 0 || dma.read32(input + 4) !== 0b11) return CC.TRB_ERROR;
    const words = Array.from({ length: 4 }, (_, index) => dma.read32(input + CONTEXT_SIZE + 4 * index));
    const port = this.#route(words[0] ?? 0, words[1] ?? 0);
    if (port === undefined) return CC.TRB_ERROR;
    const { device } = port;
    if (device === undefined || !device.attached) return CC.TRANSACTION_ERROR;
    const other = this.ofPort(port);
    if (other !== undefined && other !== slot) return CC.TRB_ERROR;
    const entry = this.#host.contextArray() + 8 * slot.id;
    slot.port = port;
    slot.context = dma.readAddress(entry);
    slot.interrupter = interrupterOf(words[2] ?? 0);
    device.resetSignal();
    words[3] = SLOT_STATE.DEFAULT << SLOT_STATE_SHIFT;
    if (!block) {
      device.setAddress(slot.id);
      words[3] = (SLOT_STATE.ADDRESSED << SLOT_STATE_SHIFT) | slot.id;
    }
    this.#addEndpoint(slot, 1, input + 2 * CONTEXT_SIZE);
    for (const [index, word] of words.entries()) dma.write32(slot.context + 4 * index, word);
    return CC.SUCCESS;
  }

  /** The port at the end of a route string. */
  #route(first: number, second: number): UsbPort | undefined {
    const root = this.#host.rootPort((second >> 16) & 0xff);
    if (root === undefined) return undefined;
    let { path } = root;
    for (let level = 0; level < ROUTE_DEPTH; level++) {
      const port = (first >> (4 * level)) & 0xf;
      if (port === 0) break;
      path += `.${port}`;
    }
    return this.#host.bus.usedPorts.find(candidate => candidate.path === path);
  }

  /** Configure Endpoint (section 4.6.6). */
  #configure(slot: Slot, input: number, deconfigure: boolean): number {
    const { dma } = this.#host;
    if (deconfigure) {
      for (let id = 2; id <= ENDPOINTS; id++) this.#dropEndpoint(slot, id);
      this.#setSlotState(slot, SLOT_STATE.ADDRESSED);
      return CC.SUCCESS;
    }
    const drop = dma.read32(input);
    const add = dma.read32(input + 4);
    if ((drop & 0b11) !== 0 || (add & 0b11) !== 0b01) return CC.TRB_ERROR;
    const state = dma.read32(slot.context + 12) >>> SLOT_STATE_SHIFT;
    if (slot.context === 0 || state < SLOT_STATE.ADDRESSED) return CC.CONTEXT_STATE;
    for (let id = 2; id <= ENDPOINTS; id++) {
      const bit = 1 << id;
      if ((drop & bit) !== 0) this.#dropEndpoint(slot, id);
      if ((add & bit) !== 0) this.#addEndpoint(slot, id, input + CONTEXT_SIZE * (id + 1));
    }
    const entries = dma.read32(input + CONTEXT_SIZE) & CONTEXT_ENTRIES;
    dma.write32(slot.context, ((dma.read32(slot.context) & ~CONTEXT_ENTRIES) | entries) >>> 0);
    this.#setSlotState(slot, SLOT_STATE.CONFIGURED);
    return CC.SUCCESS;
  }

  #setSlotState(slot: Slot, state: number): void {
    const { dma } = this.#host;
    const word = dma.read32(slot.context + 12);
    dma.write32(slot.context + 12, ((word & ~(0x1f << SLOT_STATE_SHIFT)) | (state << SLOT_STATE_SHIFT)) >>> 0);
  }

  /** Evaluate Context (section 4.6.7): exit latency and interrupter of the slot, packet size of endpoint 0. */
  #evaluate(slot: Slot, input: number): number {
    const { dma } = this.#host;
    const add = dma.read32(input + 4);
    if (dma.read32(input) !== 0 || (add & ~0b11) !== 0) return CC.TRB_ERROR;
    const merge = (at: number, value: number, mask: number): void => {
      dma.write32(at, ((dma.read32(at) & ~mask) | (value & mask)) >>> 0);
    };
    if ((add & 0b01) !== 0) {
      const target = dma.read32(input + CONTEXT_SIZE + 8);
      merge(slot.context + 4, dma.read32(input + CONTEXT_SIZE + 4), 0xffff);
      merge(slot.context + 8, target, 0xffc0_0000);
      slot.interrupter = interrupterOf(target);
    }
    if ((add & 0b10) !== 0)
      merge(slot.context + CONTEXT_SIZE + 4, dma.read32(input + 2 * CONTEXT_SIZE + 4), 0xffff_0000);
    return CC.SUCCESS;
  }

  /** Reset Device (section 4.6.11). */
  #resetDevice(slot: Slot): number {
    for (let id = 2; id <= ENDPOINTS; id++) this.#dropEndpoint(slot, id);
    this.#setSlotState(slot, SLOT_STATE.DEFAULT);
    return CC.SUCCESS;
  }

  /** Get Port Bandwidth (section 4.6.15). */
  portBandwidth(context: number): number {
    const bytes = new Uint8Array(this.#host.portCount + 1).fill(FREE_BANDWIDTH);
    bytes[0] = 0;
    return this.#host.dma.write(context, bytes) ? CC.SUCCESS : CC.TRB_ERROR;
  }
}
