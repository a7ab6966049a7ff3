import type { DeviceClock } from '../../../core/device/device.ts';
import type { DeviceLog } from '../../../core/device/device-log.ts';
import type { SystemControl } from '../../../core/device/services.ts';
import { SouthbridgeError } from '../../../core/errors.ts';
import type { Dma } from '../../../core/memory/dma.ts';
import type { RegisterBank } from '../../../core/register/bank.ts';
import type { RegisterHooks, Registers } from '../../../core/register/register.ts';
import { field, type StateFields, type StateValues } from '../../../core/state/fields.ts';
import type { UsbBus } from '../../../core/usb/bus.ts';
import { MICROFRAME_NS } from './endpoint.ts';
import { Interrupter, interrupterState } from './interrupter.ts';
import { necAnswer } from './nec.ts';
import { CC, ENDPOINTS, EP_STATE, MAX_INTERRUPTERS, MAX_SLOTS, pointer, TRB, type xhciRegisters } from './registers.ts';
import { Ring, TrbList } from './ring.ts';
import { RootHub } from './root-hub.ts';
import { MAX_STREAMS, Slots } from './slots.ts';

const MAX_PORTS_OF_A_KIND = 15;
/** Commands of one doorbell. */
const MAX_COMMANDS = 256;
const INDEX_COUNT = 0x4000;
/** Raw bits of registers. */
const COMMAND = { RUN: 1 << 0, RESET: 1 << 1, SAVE: 1 << 8, RESTORE: 1 << 9 } as const;
const RING_STOP = 0b110;
const HANDLER_BUSY = 1 << 3;
const NEC_FIRMWARE = 0x3034;

const savedEndpoint = field.record({
  slotId: field.u8(),
  id: field.u8(),
  type: field.u8(),
  context: field.number(),
  state: field.u8(),
  interval: field.number(1),
  last: field.number(),
  dequeue: field.number(),
  cycle: field.bool(),
  streams: field.u16(),
  streamBase: field.number(),
});
const savedSlot = field.record({
  id: field.u8(),
  context: field.number(),
  interrupter: field.u16(),
  port: field.string(),
});

const controllerState = {
  /** When MFINDEX was 0. */
  startNs: field.number(),
  commandDequeue: field.number(),
  commandCycle: field.bool(true),
};
/** Filled when a snapshot is made. */
const slotState = {
  slots: field.list(savedSlot, MAX_SLOTS),
  endpoints: field.list(savedEndpoint, MAX_SLOTS * ENDPOINTS),
};

/** What controllers differ in. */
export interface XhciFacts {
  /** USB 2 and SuperSpeed ports, up to 15 of each. */
  readonly p2: number;
  readonly p3: number;
  readonly streams: boolean;
  readonly interrupters: number;
  readonly slots: number;
  readonly superSpeedFirst: boolean;
  /** Answers NEC's own commands. */
  readonly nec: boolean;
}

/** The device that the controller is part of. */
export interface XhciHost {
  readonly clock: DeviceClock;
  readonly dma: Dma;
  readonly log: DeviceLog;
  readonly system: SystemControl;
  readonly bus: UsbBus;
  bank(hooks: RegisterHooks<typeof xhciRegisters>): RegisterBank<typeof xhciRegisters>;
  state<F extends StateFields>(
    version: number,
    fields: F,
    options?: { readonly name?: string; readonly onReset?: 'initial' | 'keep' },
  ): StateValues<F>;
  /** An interrupter's level. Answers true where it is a message, which is taken as soon as it is sent. */
  interrupt(index: number, level: boolean): boolean;
}

/** An xHCI host controller (eXtensible Host Controller Interface 1.1, with the register set of 1.0). */
export class XhciController {
  readonly registers: RegisterBank<typeof xhciRegisters>;
  readonly clock: DeviceClock;
  readonly dma: Dma;
  readonly log: DeviceLog;
  readonly #facts: XhciFacts;
  readonly #host: XhciHost;
  readonly #regs: Registers<typeof xhciRegisters>;
  readonly #s: StateValues<typeof controllerState>;
  readonly #saved: StateValues<typeof slotState>;
  readonly #timer;
  readonly #wrapTimer;
  readonly #interrupters: readonly Interrupter[];
  readonly #rootHub: RootHub;
  readonly #slots: Slots;
  readonly #commands = new Ring();
  readonly #command = new TrbList();
  readonly #usbBus: UsbBus;

  /** @throws SouthbridgeError ERR_PROPERTY_RANGE for more ports than there can be */
  constructor(typeName: string, facts: XhciFacts, host: XhciHost) {
    const { p2, p3 } = facts;
    if (p2 > MAX_PORTS_OF_A_KIND || p3 > MAX_PORTS_OF_A_KIND || p2 + p3 === 0) {
      throw new SouthbridgeError(
        'ERR_PROPERTY_RANGE',
        `'${typeName}' has ${p2} USB 2 and ${p3} USB 3 ports; there may be up to ${MAX_PORTS_OF_A_KIND} of each`,
      );
    }
    this.#facts = facts;
    this.#host = host;
    this.clock = host.clock;
    this.dma = host.dma;
    this.log = host.log;
    this.#s = host.state(1, controllerState);
    this.#saved = host.state(1, slotState, { name: 'slots' });
    this.#timer = host.clock.timer('microframe', () => this.#due());
    this.#wrapTimer = host.clock.timer('mfindex-wrap', () => this.#wrapped());
    const bank = host.bank({
      USBCMD: { wrote: (_value, previous, _index, written) => this.#commandWritten(previous, written) },
      USBSTS: { wrote: () => this.#updateLine() },
      CRCR_HIGH: { wrote: () => this.#ringWritten() },
      CRCR_LOW: {
        wrote: (_value, _previous, _index, written) => {
          if ((written & RING_STOP) !== 0) this.#stopCommands();
        },
      },
      PORTSC: { wrote: (_value, previous, index, written) => this.#rootHub.written(index, previous, written) },
      MFINDEX: { read: () => this.#microframe() % INDEX_COUNT },
      IMAN: { wrote: () => this.#updateLine() },
      ERSTBA_HIGH: { wrote: (_value, _previous, index) => this.#interrupters[index]?.tableWritten() },
      ERDP_LOW: { wrote: (_value, _previous, index, written) => this.#dequeueWritten(index, written) },
      DOORBELL: { write: (value, _previous, index) => this.#doorbell(value, index) },
    });
    this.registers = bank;
    this.#regs = bank.regs;
    const interrupterHost = {
      dma: host.dma,
      regs: bank.regs,
      die: () => this.#die(),
      raise: (index: number) => this.#raise(index),
    };
    this.#interrupters = Array.from(
      { length: MAX_INTERRUPTERS },
      (_, index) =>
        new Interrupter(
          index,
          host.state(1, interrupterState, { name: `interrupter${index}`, onReset: 'keep' }),
          interrupterHost,
        ),
    );
    this.#usbBus = host.bus;
    this.#slots = this.#makeSlots();
    this.#rootHub = new RootHub(
      {
        regs: this.#regs,
        slots: this.#slots,
        event: (interrupter, type, parameter, status, control) =>
          this.#event(interrupter, type, parameter, status, control),
      },
      p2,
      p3,
      facts.superSpeedFirst,
    );
  }

  #makeSlots(): Slots {
    const regs = this.#regs;
    const { p2, p3, streams } = this.#facts;
    const slots: Slots = new Slots(
      {
        dma: this.dma,
        bus: this.#usbBus,
        portCount: p2 + p3,
        maxStreams: streams ? MAX_STREAMS : 0,
        rootPort: number => this.#rootHub.connector(number),
        contextArray: () => pointer(regs.DCBAAP_LOW.value, regs.DCBAAP_HIGH.value),
        microframe: () => this.#microframe(),
        usbEndpoint: pipe => slots.usbEndpoint(pipe),
        event: (interrupter, type, parameter, status, control) =>
          this.#event(interrupter, type, parameter, status, control),
        die: () => this.#die(),
        wait: () => this.#armTimer(),
        interrupter: slotId => slots.slot(slotId)?.interrupter ?? 0,
      },
      this.#facts.slots,
    );
    return slots;
  }

  /** Says what there is, and opens the ports. Returns what undoes it. */
  open(): () => void {
    const { p2, p3, streams, interrupters, slots, superSpeedFirst } = this.#facts;
    const regs = this.#regs;
    const { HCSPARAMS1, USB2_PORTS, USB3_PORTS } = regs;
    HCSPARAMS1.MAX_SLOTS = slots;
    HCSPARAMS1.MAX_INTRS = interrupters;
    HCSPARAMS1.MAX_PORTS = p2 + p3;
    regs.HCCPARAMS1.MAX_PSA_SIZE = streams ? MAX_STREAMS : 0;
    USB2_PORTS.OFFSET = superSpeedFirst ? p3 + 1 : 1;
    USB2_PORTS.COUNT = p2;
    USB3_PORTS.OFFSET = superSpeedFirst ? 1 : p2 + 1;
    USB3_PORTS.COUNT = p3;
    for (const port of this.#rootHub.connectors) this.#usbBus.addPort(port);
    // Transfers that were under way when a snapshot was made are begun again.
    const forget = this.#host.system.onRunning(() => this.#resume());
    return () => {
      forget();
      this.#slots.disableAll(true);
    };
  }

  // Operational registers (section 5.4)

  #running(): boolean {
    return !this.#regs.USBSTS.HCH;
  }

  #commandWritten(previous: number, written: number): void {
    const { USBCMD, USBSTS, CRCR_LOW } = this.#regs;
    const wasRunning = (previous & COMMAND.RUN) !== 0;
    if (USBCMD.RS && !wasRunning) {
      USBSTS.HCH = false;
      this.#s.startNs = this.clock.now();
    } else if (!USBCMD.RS && wasRunning) {
      USBSTS.HCH = true;
      CRCR_LOW.CRR = false;
    }
    if ((written & COMMAND.SAVE) !== 0) USBSTS.SRE = false;
    // What was saved is not kept: the driver sets everything up again (section 4.23.2).
    if ((written & COMMAND.RESTORE) !== 0) USBSTS.SRE = true;
    if ((written & COMMAND.RESET) !== 0) this.#resetController();
    this.#armWrap();
    this.#updateLine();
  }

  #die(): void {
    this.#regs.USBSTS.HCE = true;
  }

  #ringWritten(): void {
    const { CRCR_LOW, CRCR_HIGH } = this.#regs;
    // While commands run, only stopping them is possible (section 5.4.5).
    if (CRCR_LOW.CRR) return;
    this.#commands.start(pointer(CRCR_LOW.value & ~0x3f, CRCR_HIGH.value), CRCR_LOW.RCS);
  }

  #stopCommands(): void {
    const { CRCR_LOW } = this.#regs;
    if (!CRCR_LOW.CRR) return;
    CRCR_LOW.CRR = false;
    this.#event(0, TRB.COMMAND_COMPLETION, this.#commands.dequeue, CC.COMMAND_RING_STOPPED << 24, 0);
  }

  // Interrupts (section 4.17)

  /** The line follows interrupter 0. */
  #updateLine(): void {
    const { IMAN, USBCMD } = this.#regs;
    const first = IMAN.at(0);
    this.#signal(0, first.IP && first.IE && USBCMD.INTE);
  }

  #raise(index: number): void {
    const { IMAN, ERDP_LOW, USBSTS, USBCMD } = this.#regs;
    const interrupter = IMAN.at(index);
    const busy = ERDP_LOW.at(index).EHB;
    ERDP_LOW.at(index).EHB = true;
    interrupter.IP = true;
    USBSTS.EINT = true;
    if (busy || !interrupter.IE || !USBCMD.INTE) return;
    this.#signal(index, true);
  }

  /** A message clears the interrupt pending bit (section 4.17.5). */
  #signal(index: number, level: boolean): void {
    if (this.#host.interrupt(index, level)) this.#regs.IMAN.at(index).IP = false;
  }

  #dequeueWritten(index: number, written: number): void {
    if ((written & HANDLER_BUSY) !== 0 && this.#interrupters[index]?.waiting) this.#raise(index);
  }

  #event(index: number, type: number, parameter: number, status: number, control: number): void {
    if (index < this.#facts.interrupters) this.#interrupters[index]?.event(type, parameter, status >>> 0, control);
  }

  // Time

  #microframe(): number {
    return Math.floor((this.clock.now() - this.#s.startNs) / MICROFRAME_NS);
  }

  #armWrap(): void {
    const { USBCMD } = this.#regs;
    if (USBCMD.RS && USBCMD.EWE)
      this.#wrapTimer.arm((INDEX_COUNT - (this.#microframe() % INDEX_COUNT)) * MICROFRAME_NS);
    else this.#wrapTimer.cancel();
  }

  #wrapped(): void {
    this.#event(0, TRB.MFINDEX_WRAP, 0, CC.SUCCESS << 24, 0);
    this.#armWrap();
  }

  /** The earliest microframe that an endpoint waits for. */
  #armTimer(): void {
    let due = Number.POSITIVE_INFINITY;
    for (const { retry } of this.#slots.pipes())
      if (retry !== undefined && retry.due > 0) due = Math.min(due, retry.due);
    if (Number.isFinite(due)) this.#timer.armAt(this.#s.startNs + due * MICROFRAME_NS);
  }

  #due(): void {
    const now = this.#microframe();
    for (const pipe of [...this.#slots.pipes()])
      if (pipe.retry !== undefined && pipe.retry.due > 0 && pipe.retry.due <= now) pipe.kick(pipe.retry.streamId);
    this.#armTimer();
  }

  // Doorbells (section 5.6)

  #doorbell(value: number, index: number): number {
    if (!this.#running()) {
      this.log.guestError(`doorbell ${index} while the controller is halted`);
      return 0;
    }
    if (index === 0) this.#runCommands();
    else this.#slots.slot(index)?.endpoints[value & 0xff]?.kick(value >>> 16);
    return 0;
  }

  #runCommands(): void {
    const { CRCR_LOW } = this.#regs;
    CRCR_LOW.CRR = true;
    for (let count = 0; count < MAX_COMMANDS && this.#commands.take(this.dma, this.#command, false); count++) {
      this.#execute(this.#command);
      if (!this.#running()) return;
    }
  }

  #execute(list: TrbList): void {
    const type = list.type(0);
    let slotId = 0;
    let code: number = CC.SUCCESS;
    switch (type) {
      case TRB.ENABLE_SLOT:
        slotId = this.#slots.enable()?.id ?? 0;
        if (slotId === 0) code = CC.NO_SLOTS;
        break;
      case TRB.NO_OP_COMMAND:
        break;
      case TRB.GET_PORT_BANDWIDTH:
        code = this.#slots.portBandwidth(list.parameter(0));
        break;
      case TRB.NEC_FIRMWARE_REVISION:
      case TRB.NEC_CHALLENGE_RESPONSE:
        if (this.#facts.nec) {
          this.#necReply(list);
          return;
        }
        code = CC.TRB_ERROR;
        break;
      default: {
        const slot =
          type >= TRB.DISABLE_SLOT && type <= TRB.RESET_DEVICE ? this.#slots.find(list.control(0)) : CC.TRB_ERROR;
        if (typeof slot === 'number') code = slot;
        else {
          slotId = slot.id;
          code = this.#slots.command(slot, list);
        }
      }
    }
    this.#event(0, TRB.COMMAND_COMPLETION, list.address(0), code << 24, slotId << 24);
  }

  #necReply(list: TrbList): void {
    if (list.type(0) === TRB.NEC_FIRMWARE_REVISION) {
      this.#event(0, TRB.NEC_REPLY, list.address(0), NEC_FIRMWARE | (CC.SUCCESS << 24), 0);
      return;
    }
    const answer = necAnswer(list.high(0), list.low(0));
    const control = ((answer >>> 24) << 24) | (((answer >>> 16) & 0xff) << 16);
    this.#event(0, TRB.NEC_REPLY, list.address(0), (answer & 0xffff) | (CC.SUCCESS << 24), control);
  }

  // Reset and snapshots

  #resetController(): void {
    this.registers.reset();
    this.reset();
  }

  reset(): void {
    this.#timer.cancel();
    this.#wrapTimer.cancel();
    // Contexts in memory are not touched: whose they are is forgotten.
    this.#slots.disableAll(true);
    for (const interrupter of this.#interrupters) interrupter.reset();
    this.#commands.start(0, true);
    this.#s.startNs = this.clock.now();
    this.#rootHub.reset();
    this.#updateLine();
  }

  /** Fills in what is saved. */
  save(): void {
    this.#s.commandDequeue = this.#commands.dequeue;
    this.#s.commandCycle = this.#commands.cycle;
    this.#saved.slots = this.#slots.all
      .filter(({ enabled }) => enabled)
      .map(({ id, context, interrupter, port }) => ({ id, context, interrupter, port: port?.path ?? '' }));
    this.#saved.endpoints = [...this.#slots.pipes()].map(pipe => pipe.save());
  }

  restored(): void {
    this.#slots.disableAll(true);
    this.#commands.start(this.#s.commandDequeue, this.#s.commandCycle);
    for (const saved of this.#saved.slots) {
      const slot = this.#slots.slot(saved.id);
      if (slot === undefined) continue;
      slot.enabled = true;
      slot.context = saved.context;
      slot.interrupter = saved.interrupter;
      slot.port = this.#usbBus.usedPorts.find(({ path }) => path === saved.port);
    }
    for (const saved of this.#saved.endpoints) {
      const slot = this.#slots.slot(saved.slotId);
      if (slot === undefined || saved.id < 1 || saved.id > ENDPOINTS) continue;
      this.#slots.newEndpoint(slot, saved.id).load(saved);
    }
  }

  #resume(): void {
    if (!this.#running()) return;
    for (const pipe of [...this.#slots.pipes()])
      if (pipe.state === EP_STATE.RUNNING && pipe.idle && pipe.streamCount === 0) pipe.kick(0);
  }
}
