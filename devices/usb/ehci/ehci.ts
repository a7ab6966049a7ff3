import { us } from '../../../core/clock/units.ts';
import { type DeviceContext, deviceType } from '../../../core/device/device-type.ts';
import { prop } from '../../../core/device/property.ts';
import { SouthbridgeError } from '../../../core/errors.ts';
import { PciDevice } from '../../../core/pci/pci-device.ts';
import type { Registers } from '../../../core/register/register.ts';
import { field, type SavedValue } from '../../../core/state/fields.ts';
import { UsbBus, usbBusName } from '../../../core/usb/bus.ts';
import type { UsbDevice } from '../../../core/usb/device.ts';
import type { UsbEndpoint } from '../../../core/usb/endpoint.ts';
import { type PortHandler, UsbPort } from '../../../core/usb/port.ts';
import { SPEED_MASK } from '../../../core/usb/speed.ts';
import { usbHub } from '../hub.ts';
import { ehciRegisters, PORT_COUNT } from './registers.ts';
import { EhciSchedule } from './schedule.ts';

const MICROFRAME_NS = us(125);
const FRAME_MICROFRAMES = 8;
const INDEX_COUNT = 0x4000;
/** Microframes between two rollovers of the frame list. */
const ROLLOVER = 0x2000;
const FRAME_NS = FRAME_MICROFRAMES * MICROFRAME_NS;
/** Frames that are made up for at once, when the host was late. */
const MAX_FRAMES_AT_ONCE = 16;
/** After a transfer more follow soon: so many looks at short intervals. Then a look at each frame, for so many frames. */
const EAGER_LOOKS = 8;
const EAGER_NS = us(250);
const IDLE_LOOKS = 64;
/** Frames between two looks at schedules that move nothing, and where nothing is attached. */
const IDLE_PACE = 8;
const EMPTY_PACE = 64;
/** How long packets of an asynchronous queue head stay with the device once it is not seen any more. */
const UNSEEN_NS = us(512_000);

const MEMORY_SIZE = 4096;
/** Configuration space (section 2.1): release, frame length adjustment, legacy support. */
const SBRN = 0x60;
const FLADJ = 0x61;
const USBLEGSUP = 0x68;
const USBLEGCTLSTS = 0x6c;
/** Raw bits of registers. */
const RUN_BITS = 0x31;
const PORT_RESET = 1 << 8;
const PORT_RESUME = 1 << 6;
const PORT_OWNER = 1 << 13;
const PORT_DEFAULT = 0x1000;
const COMMAND_RESET = 1 << 1;
const INTERRUPTS = 0x3f;

const properties = { maxframes: prop.u32({ default: 128 }) } as const;

const COMPANION_SPEEDS = SPEED_MASK.low | SPEED_MASK.full;

/** An EHCI host controller: six ports at high speed, which it shares with companions for devices of lower speeds. */
class Ehci extends PciDevice<typeof properties> implements PortHandler {
  readonly #regs: Registers<typeof ehciRegisters> = this.bind(ehciRegisters, {
    USBCMD: { wrote: (value, previous, _index, written) => this.#command(value, previous, written) },
    USBSTS: { wrote: () => this.#updateInterrupt() },
    USBINTR: {
      wrote: () => {
        this.#updateInterrupt();
        this.#busy();
      },
    },
    FRINDEX: { read: () => this.#frameIndex(), write: value => this.#setFrameIndex(value) },
    ASYNCLISTADDR: { wrote: () => this.#busy() },
    CONFIGFLAG: { wrote: value => this.#configure(value !== 0) },
    PORTSC: { wrote: (value, previous, index) => this.#portWritten(value, previous, index) },
  });
  readonly #s = this.state(1, {
    /** When the microframe of FRINDEX began. */
    indexNs: field.number(),
    idleLooks: field.u16(),
    /** Interrupts that are told at the end of the work at hand. */
    interrupt: field.bool(),
    error: field.bool(),
    wasAsync: field.bool(),
    wasPeriodic: field.bool(),
  });
  readonly #timer = this.clock.timer('work', () => this.#work());
  readonly #ports: readonly UsbPort[];
  readonly #companions: (UsbPort | undefined)[] = new Array(PORT_COUNT).fill(undefined);
  readonly #async: EhciSchedule;
  readonly #periodic: EhciSchedule;
  #companionCount = 0;
  #working = false;

  constructor(context: DeviceContext<typeof properties>) {
    super(context);
    const { config } = this;
    config.set8(SBRN, 0x20);
    config.set8(FLADJ, 0x20);
    config.set32(USBLEGSUP, 0x0000_0001);
    config.set32(USBLEGCTLSTS, 0xc000_0000);
    const host = {
      dma: this.dma,
      now: () => this.clock.now(),
      device: (address: number) => this.#device(address),
      interrupt: (error: boolean) => {
        if (error) this.#s.error = true;
        else this.#s.interrupt = true;
      },
    };
    this.#async = new EhciSchedule(host, true);
    this.#periodic = new EhciSchedule(host, false);
    for (const schedule of [this.#async, this.#periodic]) schedule.onFinished(() => this.#finished());
    this.#ports = Array.from({ length: PORT_COUNT }, (_, index) => new UsbPort(this, index, SPEED_MASK.high));
  }

  protected override realize(): void {
    const { maxframes } = this.props;
    if (maxframes < 8 || maxframes > 512)
      throw new SouthbridgeError('ERR_PROPERTY_RANGE', `maxframes ${maxframes} out if range (8 .. 512)`);
    const { services } = this;
    const bus = new UsbBus(usbBusName(this), {
      services,
      home: this.pciBus.home,
      owner: this,
      hub: usbHub,
      ...(!this.type.hotpluggable && { registerCompanion: (ports, first) => this.#registerCompanion(ports, first) }),
    });
    for (const port of this.#ports) bus.addPort(port);
    this.addBus(bus);
    this.onUnrealize(() => {
      for (const { queues } of [this.#async, this.#periodic]) queues.closeAll();
    });
  }

  // Companions (section 4.2)

  #registerCompanion(ports: readonly UsbPort[], first: number): void {
    if (first + ports.length > PORT_COUNT)
      throw new SouthbridgeError('ERR_PROPERTY_RANGE', `firstport must be between 0 and ${PORT_COUNT - ports.length}`);
    const taken = ports.findIndex((_, index) => this.#companions[first + index] !== undefined);
    if (taken >= 0) {
      throw new SouthbridgeError(
        'ERR_BUS_ADDRESS',
        `firstport ${first} asks for ports ${first}-${first + ports.length - 1}, but port ${first + taken} has a companion assigned already`,
      );
    }
    for (const [index, companion] of ports.entries()) {
      const port = this.#ports[first + index];
      this.#companions[first + index] = companion;
      if (port === undefined) continue;
      port.capable |= COMPANION_SPEEDS;
      // What is plugged in before the first reset goes to the companion.
      this.#setOwner(port, true);
    }
    this.#companionCount++;
    this.#regs.HCSPARAMS.N_CC = this.#companionCount;
    this.#regs.HCSPARAMS.N_PCC = ports.length;
  }

  #setOwner(port: UsbPort, companion: boolean): void {
    this.#regs.PORTSC.at(port.index).OWNER = companion;
    port.speeds = companion ? COMPANION_SPEEDS : port.capable;
  }

  /** The companion's port, where that owns it now. */
  #owner(port: UsbPort): UsbPort | undefined {
    return this.#regs.PORTSC.at(port.index).OWNER ? this.#companions[port.index] : undefined;
  }

  /** Hands a port over, or takes it back: the device sees a disconnect and a connect. */
  #handOver(port: UsbPort, companion: boolean): void {
    if (this.#companions[port.index] === undefined) return;
    const { device } = port;
    const attached = device?.attached ?? false;
    if (attached) device?.disconnect();
    this.#setOwner(port, companion);
    if (attached) device?.connect();
  }

  #configure(configured: boolean): void {
    if (!configured) return;
    for (const port of this.#ports) if (this.#regs.PORTSC.at(port.index).OWNER) this.#handOver(port, false);
  }

  // Registers (section 2.3)

  #command(value: number, previous: number, written: number): void {
    const { USBCMD } = this.#regs;
    if ((written & COMMAND_RESET) !== 0) {
      this.#resetController();
      return;
    }
    if (((value ^ previous) & RUN_BITS) !== 0) {
      this.#frameIndex();
      if (USBCMD.RS) this.#regs.USBSTS.HALTED = false;
      this.#s.idleLooks = 0;
      this.#timer.arm(0);
    } else if (USBCMD.DOORBELL) this.#timer.arm(0);
  }

  #updateInterrupt(): void {
    const { USBSTS, USBINTR } = this.#regs;
    this.irq.set((USBSTS.value & USBINTR.value & INTERRUPTS) !== 0);
  }

  /** Whether FRINDEX counts. */
  get #counting(): boolean {
    return this.#regs.USBCMD.RS || this.#s.wasPeriodic;
  }

  /** Moves FRINDEX to now without processing anything, where nobody else moves it. Shown in whole frames. */
  #frameIndex(): number {
    if (!this.#counting) this.#s.indexNs = this.clock.now();
    else if (!this.#s.wasPeriodic) this.#count(Math.floor((this.clock.now() - this.#s.indexNs) / MICROFRAME_NS));
    return this.#regs.FRINDEX.value & ~(FRAME_MICROFRAMES - 1);
  }

  #setFrameIndex(value: number): number {
    this.#s.indexNs = this.clock.now();
    return value;
  }

  #count(microframes: number): void {
    if (microframes <= 0) return;
    const { FRINDEX, USBSTS } = this.#regs;
    const before = FRINDEX.value;
    if ((before % ROLLOVER) + microframes >= ROLLOVER) {
      USBSTS.ROLLOVER = true;
      this.#updateInterrupt();
    }
    FRINDEX.value = (before + microframes) % INDEX_COUNT;
    this.#s.indexNs += microframes * MICROFRAME_NS;
  }

  // Work

  /** Something may have changed: look again soon. */
  #busy(): void {
    this.#s.idleLooks = Math.min(this.#s.idleLooks, EAGER_LOOKS);
    if (this.#regs.USBCMD.RS && !this.#working) this.#timer.arm(0);
  }

  /** A device has finished a packet. It is written back at once, so that a snapshot need not know of it. */
  #finished(): void {
    if (!this.#regs.USBCMD.RS) return;
    this.#s.idleLooks = 0;
    this.#work();
  }

  #work(): void {
    if (this.#working) return;
    this.#working = true;
    this.#async.completed = 0;
    this.#periodic.completed = 0;
    this.#workPeriodic();
    this.#workAsync();
    this.#working = false;
    this.#tellInterrupts();
    const moved = this.#async.completed + this.#periodic.completed > 0;
    this.#s.idleLooks = moved ? 0 : Math.min(IDLE_LOOKS, this.#s.idleLooks + 1);
    const { USBCMD, USBSTS, USBINTR } = this.#regs;
    if (!USBCMD.RS && !this.#s.wasAsync && !this.#s.wasPeriodic) USBSTS.HALTED = true;
    if (this.#async.takeFinished() || this.#periodic.takeFinished()) this.#timer.arm(0);
    else if (this.#s.wasAsync || this.#s.wasPeriodic || (USBCMD.RS && USBINTR.ROLLOVER)) this.#timer.arm(this.#pause);
  }

  /** Until the next look. */
  get #pause(): number {
    const { idleLooks } = this.#s;
    if (idleLooks < EAGER_LOOKS && this.#s.wasAsync) return EAGER_NS;
    if (idleLooks < IDLE_LOOKS) return FRAME_NS;
    const attached = this.#ports.some(port => port.device?.attached && this.#owner(port) === undefined);
    return (attached ? IDLE_PACE : EMPTY_PACE) * FRAME_NS;
  }

  #workPeriodic(): void {
    const s = this.#s;
    const { USBCMD, USBSTS, FRINDEX, PERIODICLISTBASE } = this.#regs;
    const enabled = USBCMD.RS && USBCMD.PERIODIC_ENABLE;
    if (!s.wasPeriodic) {
      this.#frameIndex();
      if (!enabled) return;
      s.wasPeriodic = true;
      USBSTS.PERIODIC = true;
    }
    const late = Math.floor((this.clock.now() - s.indexNs) / MICROFRAME_NS);
    const skipped = Math.max(0, late - MAX_FRAMES_AT_ONCE * FRAME_MICROFRAMES);
    this.#count(skipped);
    for (let microframe = skipped; microframe < late; microframe++) {
      this.#count(1);
      if (FRINDEX.value % FRAME_MICROFRAMES !== 0 || !enabled) continue;
      const list = (PERIODICLISTBASE.value & ~0xfff) >>> 0;
      if (list !== 0) this.#periodic.periodic(this.dma.read32(list + ((FRINDEX.value & 0x1ff8) >> 1)));
    }
    this.#periodic.queues.closeOld(this.clock.now() - UNSEEN_NS);
    if (enabled) return;
    this.#periodic.queues.closeAll();
    s.wasPeriodic = false;
    USBSTS.PERIODIC = false;
  }

  #workAsync(): void {
    const s = this.#s;
    const { USBCMD, USBSTS, ASYNCLISTADDR } = this.#regs;
    if (!USBCMD.RS || !USBCMD.ASYNC_ENABLE) {
      if (s.wasAsync) this.#async.queues.closeAll();
      s.wasAsync = false;
      USBSTS.ASYNC = false;
      return;
    }
    s.wasAsync = true;
    USBSTS.ASYNC = true;
    if (ASYNCLISTADDR.value !== 0) {
      const head = this.#async.asynchronous(ASYNCLISTADDR.value);
      USBSTS.RECLAMATION = head && this.#async.completed > 0;
      this.#async.queues.closeOld(this.clock.now() - UNSEEN_NS);
    }
    // The driver may free what it has unlinked (section 4.8.2).
    if (!USBCMD.DOORBELL || USBSTS.ASYNC_ADVANCE) return;
    this.#async.queues.closeUnseen(this.#async.pass);
    USBCMD.DOORBELL = false;
    USBSTS.ASYNC_ADVANCE = true;
  }

  #tellInterrupts(): void {
    const s = this.#s;
    const { USBSTS } = this.#regs;
    if (s.interrupt) USBSTS.INT = true;
    if (s.error) USBSTS.ERROR = true;
    s.interrupt = false;
    s.error = false;
    this.#updateInterrupt();
  }

  #device(address: number): UsbDevice | undefined {
    for (const port of this.#ports) {
      const found = this.#regs.PORTSC.at(port.index).ENABLED ? port.find(address) : undefined;
      if (found !== undefined) return found;
    }
    return undefined;
  }

  // Ports (section 2.3.9)

  #portWritten(value: number, previous: number, index: number): void {
    const port = this.#ports[index];
    const register = this.#regs.PORTSC.at(index);
    if (port === undefined) return;
    const owner = register.OWNER;
    register.OWNER = (previous & PORT_OWNER) !== 0;
    if (owner !== register.OWNER) this.#handOver(port, owner);
    if ((previous & PORT_RESET) !== 0 && (value & PORT_RESET) === 0) this.#resetPort(port);
    if ((previous & PORT_RESUME) !== 0 && (value & PORT_RESUME) === 0) register.SUSPEND = false;
    this.#busy();
  }

  /** The end of reset signalling. Only a high-speed device's port becomes enabled (section 4.2.2). */
  #resetPort(port: UsbPort): void {
    const { device } = port;
    const register = this.#regs.PORTSC.at(port.index);
    if (device === undefined || !device.attached || this.#owner(port) !== undefined) return;
    device.disconnect();
    device.connect();
    device.resetSignal();
    register.CONNECT_CHANGE = false;
    if (device.supportsHighSpeed) register.ENABLED = true;
  }

  #portChanged(): void {
    this.#regs.USBSTS.PORT_CHANGE = true;
    this.#updateInterrupt();
  }

  portAttached(port: UsbPort): void {
    const companion = this.#owner(port);
    if (companion !== undefined) {
      companion.device = port.device;
      companion.handler.portAttached(companion);
      return;
    }
    const register = this.#regs.PORTSC.at(port.index);
    register.CONNECTED = true;
    register.CONNECT_CHANGE = true;
    this.#portChanged();
    this.#busy();
  }

  portDetached(port: UsbPort): void {
    const companion = this.#owner(port);
    if (companion !== undefined) {
      companion.handler.portDetached(companion);
      companion.device = undefined;
      // Section 4.2.2: a disconnect gives the port back.
      this.#setOwner(port, false);
      return;
    }
    const { device } = port;
    if (device !== undefined) for (const { queues } of [this.#async, this.#periodic]) queues.closeDevice(device);
    const register = this.#regs.PORTSC.at(port.index);
    register.CONNECTED = false;
    register.ENABLED = false;
    register.SUSPEND = false;
    register.CONNECT_CHANGE = true;
    this.#portChanged();
  }

  childDetached(port: UsbPort, child: UsbDevice): void {
    const companion = this.#owner(port);
    if (companion !== undefined) companion.handler.childDetached(companion, child);
    else for (const { queues } of [this.#async, this.#periodic]) queues.closeDevice(child);
  }

  wakeup(port: UsbPort): void {
    const companion = this.#owner(port);
    if (companion !== undefined) {
      companion.handler.wakeup(companion);
      return;
    }
    const register = this.#regs.PORTSC.at(port.index);
    if (!register.SUSPEND) return;
    register.FORCE_RESUME = true;
    this.#portChanged();
  }

  ready(port: UsbPort, endpoint: UsbEndpoint, stream: number): void {
    const companion = this.#owner(port);
    if (companion !== undefined) companion.handler.ready(companion, endpoint, stream);
    else this.#busy();
  }

  // Reset (section 4.1)

  protected override resetEnter(): void {
    // The registers are at their reset values; devices are put where these say in the next phase.
    for (const [index, companion] of this.#companions.entries())
      if (companion?.device !== undefined) this.#regs.PORTSC.at(index).OWNER = true;
  }

  protected override resetHold(): void {
    this.#resetPorts();
  }

  #resetController(): void {
    const owned = this.#ports.map(port => this.#owner(port) !== undefined);
    for (const bank of this.banks) bank.reset();
    owned.forEach((companion, index) => {
      this.#regs.PORTSC.at(index).OWNER = companion;
    });
    Object.assign(this.#s, {
      indexNs: 0,
      idleLooks: 0,
      interrupt: false,
      error: false,
      wasAsync: false,
      wasPeriodic: false,
    });
    this.#resetPorts();
  }

  /** All ports go to their companions, where they have one. */
  #resetPorts(): void {
    this.#timer.cancel();
    const attached = this.#ports.map(({ device }) => device?.attached ?? false);
    this.#ports.forEach((port, index) => {
      if (attached[index]) port.device?.disconnect();
    });
    for (const { queues } of [this.#async, this.#periodic]) queues.closeAll();
    this.#regs.USBSTS.PORT_CHANGE = false;
    this.#ports.forEach((port, index) => {
      const register = this.#regs.PORTSC.at(index);
      register.value = PORT_DEFAULT;
      this.#setOwner(port, this.#companions[index] !== undefined);
      if (!attached[index]) return;
      port.device?.connect();
      port.device?.resetSignal();
    });
    this.#s.indexNs = this.clock.now();
    this.#updateInterrupt();
  }

  override restore(saved: SavedValue): void {
    super.restore(saved);
    for (const port of this.#ports) {
      const companion = this.#companions[port.index];
      this.#setOwner(port, this.#regs.PORTSC.at(port.index).OWNER);
      if (companion !== undefined) companion.device = this.#owner(port) === undefined ? undefined : port.device;
    }
  }
}

const common = {
  summary: 'EHCI USB controller',
  category: 'usb',
  parents: ['pci-ehci-usb', 'pci-device', 'device'],
  properties,
  bars: {
    0: { size: MEMORY_SIZE, map: ehciRegisters, access: { valid: { min: 1, max: 4 }, impl: { min: 1, max: 4 } } },
  },
  create: Ehci,
} as const;

const identity = (device: number, revision: number) =>
  ({ vendor: 0x8086, device, revision, class: 0x0c0320, pin: 'D' }) as const;

export const usbEhci = deviceType({ ...common, type: 'usb-ehci', pci: identity(0x24cd, 0x10) });
export const ich9UsbEhci1 = deviceType({
  ...common,
  type: 'ich9-usb-ehci1',
  hotpluggable: false,
  pci: identity(0x293a, 0x03),
});
export const ich9UsbEhci2 = deviceType({
  ...common,
  type: 'ich9-usb-ehci2',
  hotpluggable: false,
  pci: identity(0x293c, 0x03),
});
