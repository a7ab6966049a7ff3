import { us } from '../../../core/clock/units.ts';
import { type DeviceContext, type DeviceType, deviceType } from '../../../core/device/device-type.ts';
import { type PropSet, type PropValues, prop } from '../../../core/device/property.ts';
import type { PciIdentity } from '../../../core/pci/identity.ts';
import { PciDevice } from '../../../core/pci/pci-device.ts';
import type { Registers } from '../../../core/register/register.ts';
import { field } from '../../../core/state/fields.ts';
import { masterBus, UsbBus, usbBusName } from '../../../core/usb/bus.ts';
import type { UsbDevice } from '../../../core/usb/device.ts';
import { type PortHandler, UsbPort } from '../../../core/usb/port.ts';
import { SPEED_MASK } from '../../../core/usb/speed.ts';
import { usbHub } from '../hub.ts';
import { CAUSE, PORT_COUNT, uhciRegisters } from './registers.ts';
import { UhciSchedule } from './schedule.ts';

const FRAME_NS = us(1000);
const FRAME_ENTRIES = 1024;
const FRAME_NUMBERS = 2048;
/** Frames that are made up for at once, when the host was late. */
const MAX_FRAMES_AT_ONCE = 16;
/** Frames without anything moved, after which the schedule is looked at less often. */
const IDLE_FRAMES = 64;
/** Frames between two looks at an idle schedule, and where nothing is attached. */
const IDLE_PACE = 8;
const EMPTY_PACE = 64;
const REGISTERS_BAR = 4;
/** USBCMD.RS, USBSTS.USBINT and PORTSC.RESET in a raw value. */
const RUN = 0x01;
const INTERRUPTED = 0x01;
const PORT_RESET = 0x200;
/** Serial bus release number and USB clock, in configuration space (section 5.2). */
const SBRN = 0x60;
const CLOCK = 0x6a;

const properties = {
  bandwidth: prop.u32({ default: 1280 }),
  maxframes: prop.u32({ default: 128 }),
} as const;

const companionProperties = {
  masterbus: prop.string(),
  firstport: prop.u32({ default: 0 }),
  ...properties,
} as const;

/** A UHCI host controller: two ports, at low and full speed. */
class Uhci<S extends PropSet = typeof properties> extends PciDevice<S> implements PortHandler {
  readonly #regs: Registers<typeof uhciRegisters> = this.bind(uhciRegisters, {
    USBCMD: { wrote: (_value, previous) => this.#command(previous) },
    USBSTS: {
      wrote: (_value, _previous, _index, written) => {
        // The two causes of USBINT have no bits of their own.
        if ((written & INTERRUPTED) !== 0) this.#s.causes = 0;
        this.#updateInterrupt();
      },
    },
    USBINTR: { wrote: () => this.#updateInterrupt() },
    FRNUM: {
      read: () => this.#frameNumber(),
      write: (value, previous) => (this.#regs.USBSTS.HALTED ? value : previous),
    },
    PORTSC: { wrote: (_value, previous, index) => this.#portWritten(previous, index) },
  });
  readonly #s = this.state(1, {
    /** Bits of CAUSE behind USBSTS.USBINT. */
    causes: field.u8(),
    /** When the frame that comes next begins. */
    nextFrameNs: field.number(),
    idleFrames: field.u16(),
  });
  readonly #timer = this.clock.timer('frame', () => this.#tick());
  readonly #ports: readonly UsbPort[];
  readonly #schedule = new UhciSchedule({
    dma: this.dma,
    device: address => this.#device(address),
    transferFailed: () => {
      this.#regs.USBSTS.USBERRINT = true;
      this.#updateInterrupt();
    },
    processError: () => {
      this.#regs.USBSTS.HCPE = true;
      this.#regs.USBCMD.RS = false;
      this.#updateInterrupt();
    },
  });

  constructor(context: DeviceContext<S>) {
    super(context);
    this.config.set8(SBRN, 0x10);
    this.#ports = Array.from(
      { length: PORT_COUNT },
      (_, index) => new UsbPort(this, index, SPEED_MASK.low | SPEED_MASK.full),
    );
    this.#schedule.onFinished(() => this.#collect());
  }

  protected get uhciProps(): PropValues<typeof companionProperties> {
    // The types that are no companions have no `masterbus`; both have the rest.
    return this.props as PropValues<S> & PropValues<typeof companionProperties>;
  }

  protected override realize(): void {
    const { masterbus, firstport } = this.uhciProps;
    this.onUnrealize(() => this.#schedule.transfers.closeAll());
    if (masterbus !== undefined) {
      masterBus(this, masterbus).register(this.#ports, firstport);
      return;
    }
    const { services } = this;
    const bus = new UsbBus(usbBusName(this), { services, home: this.pciBus.home, owner: this, hub: usbHub });
    for (const port of this.#ports) bus.addPort(port);
    this.addBus(bus);
  }

  // Registers (section 2.1)

  #command(previous: number): void {
    const regs = this.#regs;
    const command = regs.USBCMD;
    const wasRunning = (previous & RUN) !== 0;
    if (command.GRESET) {
      for (const { device } of this.#ports) device?.resetSignal();
      this.#resetController();
      return;
    }
    if (command.HCRESET) {
      this.#resetController();
      return;
    }
    if (!command.RS) {
      regs.USBSTS.HALTED = true;
      // Packets under way are taken back at the end of the frame.
      if (wasRunning) this.#timer.armAt(this.#s.nextFrameNs);
    } else if (!wasRunning) {
      regs.USBSTS.HALTED = false;
      this.#s.nextFrameNs = this.clock.now() + FRAME_NS;
      this.#busy();
    }
    if (command.EGSM && this.#ports.some((_, index) => regs.PORTSC.at(index).RESUME_DETECT)) this.#resume();
  }

  #portWritten(previous: number, index: number): void {
    const port = this.#regs.PORTSC.at(index);
    if (port.RESET && (previous & PORT_RESET) === 0) this.#ports[index]?.device?.resetSignal();
    if (!port.CONNECTED) port.ENABLED = false;
    this.#busy();
  }

  #frameNumber(): number {
    if (this.#regs.USBCMD.RS) this.#catchUp();
    return this.#regs.FRNUM.value;
  }

  #updateInterrupt(): void {
    const { USBSTS, USBINTR } = this.#regs;
    const { causes } = this.#s;
    this.irq.set(
      ((causes & CAUSE.COMPLETE) !== 0 && USBINTR.IOC) ||
        ((causes & CAUSE.SHORT) !== 0 && USBINTR.SHORT_PACKET) ||
        (USBSTS.USBERRINT && USBINTR.TIMEOUT_CRC) ||
        (USBSTS.RESUME && USBINTR.RESUME) ||
        USBSTS.HSE ||
        USBSTS.HCPE,
    );
  }

  /** A resume signal on the bus wakes a suspended controller (section 2.1.1, EGSM). */
  #resume(): void {
    if (!this.#regs.USBCMD.EGSM) return;
    this.#regs.USBCMD.FGR = true;
    this.#regs.USBSTS.RESUME = true;
    this.#updateInterrupt();
  }

  // Frames

  /** Something may have changed: look at each frame again. */
  #busy(): void {
    this.#s.idleFrames = 0;
    if (this.#regs.USBCMD.RS) this.#timer.armAt(this.#s.nextFrameNs);
  }

  #tick(): void {
    if (!this.#regs.USBCMD.RS) {
      this.#schedule.transfers.closeAll();
      this.#regs.USBSTS.HALTED = true;
      return;
    }
    this.#catchUp();
    if (!this.#regs.USBCMD.RS) return;
    const attached = this.#ports.some(({ device }) => device?.attached);
    const idle = this.#s.idleFrames >= IDLE_FRAMES;
    const pace = !idle ? 1 : attached ? IDLE_PACE : EMPTY_PACE;
    this.#timer.armAt(this.#s.nextFrameNs + (pace - 1) * FRAME_NS);
  }

  /** Processes the frames that are over. */
  #catchUp(): void {
    const s = this.#s;
    const late = Math.floor((this.clock.now() - s.nextFrameNs) / FRAME_NS) + 1;
    if (late <= 0) return;
    const limit = Math.min(MAX_FRAMES_AT_ONCE, this.uhciProps.maxframes);
    const skipped = Math.max(0, late - limit);
    this.#advance(skipped);
    for (let frame = skipped; frame < late && this.#regs.USBCMD.RS; frame++) {
      this.#schedule.completed = 0;
      this.#processFrame(false);
      this.#schedule.transfers.age();
      s.idleFrames = this.#schedule.completed > 0 ? 0 : Math.min(IDLE_FRAMES, s.idleFrames + 1);
      // A driver that is interrupted looks at the frame before the current one.
      this.#advance(1);
    }
    this.#endFrame();
  }

  #advance(frames: number): void {
    this.#regs.FRNUM.value = (this.#regs.FRNUM.value + frames) % FRAME_NUMBERS;
    this.#s.nextFrameNs += frames * FRAME_NS;
  }

  #processFrame(collect: boolean): void {
    const { FRBASEADD, FRNUM } = this.#regs;
    const entry = (FRBASEADD.value + 4 * (FRNUM.value % FRAME_ENTRIES)) >>> 0;
    this.#schedule.frame(entry, this.uhciProps.bandwidth, collect);
  }

  #endFrame(): void {
    const { causes } = this.#schedule;
    if (causes === 0) return;
    this.#schedule.causes = 0;
    this.#s.causes |= causes;
    this.#regs.USBSTS.USBINT = true;
    this.#updateInterrupt();
  }

  /** A device has finished a packet: its descriptor is written back at once, so that a snapshot need not know of it. */
  #collect(): void {
    if (!this.#regs.USBCMD.RS) return;
    this.#processFrame(true);
    this.#busy();
  }

  #device(address: number): UsbDevice | undefined {
    for (const [index, port] of this.#ports.entries()) {
      if (!this.#regs.PORTSC.at(index).ENABLED) continue;
      const device = port.find(address);
      if (device !== undefined) return device;
    }
    return undefined;
  }

  // Ports (section 2.1.7)

  portAttached(port: UsbPort): void {
    const register = this.#regs.PORTSC.at(port.index);
    register.CONNECTED = true;
    register.CONNECT_CHANGE = true;
    register.LOW_SPEED = port.device?.speed === 'low';
    this.#resume();
    this.#busy();
  }

  portDetached(port: UsbPort): void {
    const { device } = port;
    if (device !== undefined) this.#schedule.transfers.closeDevice(device);
    const register = this.#regs.PORTSC.at(port.index);
    if (register.CONNECTED) {
      register.CONNECTED = false;
      register.CONNECT_CHANGE = true;
    }
    if (register.ENABLED) {
      register.ENABLED = false;
      register.ENABLE_CHANGE = true;
    }
    this.#resume();
    this.#busy();
  }

  childDetached(_port: UsbPort, child: UsbDevice): void {
    this.#schedule.transfers.closeDevice(child);
  }

  wakeup(port: UsbPort): void {
    const register = this.#regs.PORTSC.at(port.index);
    if (!register.SUSPEND || register.RESUME_DETECT) return;
    register.RESUME_DETECT = true;
    this.#resume();
  }

  ready(): void {
    this.#busy();
  }

  // Reset

  #resetController(): void {
    for (const bank of this.banks) bank.reset();
    Object.assign(this.#s, { causes: 0, idleFrames: 0 });
    this.resetHold();
  }

  protected override resetHold(): void {
    this.config.set8(CLOCK, 0x01);
    this.config.set8(CLOCK + 1, 0);
    this.#timer.cancel();
    this.#schedule.causes = 0;
    for (const port of this.#ports) {
      if (!port.device?.attached) continue;
      // Not through the device's port, which is the EHCI controller's where this one is a companion.
      this.portDetached(port);
      this.portAttached(port);
      port.device.resetSignal();
    }
    this.#schedule.transfers.closeAll();
    this.#updateInterrupt();
  }
}

const common = {
  summary: 'UHCI USB controller',
  category: 'usb',
  parents: ['pci-uhci-usb', 'pci-device', 'device'],
  bars: {
    [REGISTERS_BAR]: {
      size: 32,
      space: 'io',
      map: uhciRegisters,
      access: { valid: { min: 1, max: 4 }, impl: { min: 2, max: 2 } },
    },
  },
} as const;

const identity = (
  device: number,
  revision: number,
  pin: PciIdentity['pin'] & string,
  vendor = 0x8086,
): PciIdentity => ({
  vendor,
  device,
  revision,
  class: 0x0c0300,
  pin,
});

function standalone(type: string, pci: PciIdentity): DeviceType<typeof properties, Uhci<typeof properties>> {
  return deviceType({ ...common, type, properties, pci, create: Uhci<typeof properties> });
}

/** One of the six of the ICH9, which share ports with its EHCI controllers. */
function companion(
  number: number,
  device: number,
  pin: PciIdentity['pin'] & string,
): DeviceType<typeof companionProperties, Uhci<typeof companionProperties>> {
  return deviceType({
    ...common,
    type: `ich9-usb-uhci${number}`,
    properties: companionProperties,
    hotpluggable: false,
    pci: identity(device, 0x03, pin),
    create: Uhci<typeof companionProperties>,
  });
}

export const piix3UsbUhci = standalone('piix3-usb-uhci', identity(0x7020, 0x01, 'D'));
export const piix4UsbUhci = standalone('piix4-usb-uhci', identity(0x7112, 0x01, 'D'));
export const ich9UsbUhci1 = companion(1, 0x2934, 'A');
export const ich9UsbUhci2 = companion(2, 0x2935, 'B');
export const ich9UsbUhci3 = companion(3, 0x2936, 'C');
export const ich9UsbUhci4 = companion(4, 0x2937, 'A');
export const ich9UsbUhci5 = companion(5, 0x2938, 'B');
export const ich9UsbUhci6 = companion(6, 0x2939, 'C');
