import { ms } from '../../../core/clock/units.ts';
import { type DeviceContext, deviceType } from '../../../core/device/device-type.ts';
import { prop } from '../../../core/device/property.ts';
import { SouthbridgeError } from '../../../core/errors.ts';
import { PciDevice } from '../../../core/pci/pci-device.ts';
import type { Registers } from '../../../core/register/register.ts';
import { field, type SavedRecord } from '../../../core/state/fields.ts';
import { masterBus, UsbBus, usbBusName } from '../../../core/usb/bus.ts';
import type { UsbDevice } from '../../../core/usb/device.ts';
import { type PortHandler, UsbPort } from '../../../core/usb/port.ts';
import { SPEED_MASK } from '../../../core/usb/speed.ts';
import { usbHub } from '../hub.ts';
import { HCCA, MAX_PORTS, ohciRegisters } from './registers.ts';
import { NO_DELAY, OhciSchedule } from './schedule.ts';

const MEMORY_SIZE = 256;
const FRAME_NS = ms(1);
/** Frames that are made up for at once, when the host was late. */
const MAX_FRAMES_AT_ONCE = 16;
/** Frames without anything moved, after which the lists are looked at less often. */
const IDLE_FRAMES = 64;
const IDLE_PACE = 8;
/** Commands in HcRhStatus and HcRhPortStatus (sections 7.4.3, 7.4.4). */
const HUB = { CLEAR_POWER: 1 << 0, SET_WAKEUP: 1 << 15, SET_POWER: 1 << 16, CLEAR_WAKEUP: 1 << 31 } as const;
const PORT = {
  CLEAR_ENABLE: 1 << 0,
  SET_ENABLE: 1 << 1,
  SET_SUSPEND: 1 << 2,
  CLEAR_SUSPEND: 1 << 3,
  RESET: 1 << 4,
  SET_POWER: 1 << 8,
  CLEAR_POWER: 1 << 9,
  CHANGES: 0x1f << 16,
} as const;
const STATE = 0xc0;
const MASTER_INTERRUPT = 0x8000_0000;

const properties = {
  masterbus: prop.string(),
  'num-ports': prop.u32({ default: 3 }),
  firstport: prop.u32({ default: 0 }),
} as const;

/** An OHCI host controller: ports at low and full speed. */
class Ohci extends PciDevice<typeof properties> implements PortHandler {
  readonly #regs: Registers<typeof ohciRegisters> = this.bind(ohciRegisters, {
    HcControl: { wrote: (value, previous) => this.#controlWritten(value, previous) },
    HcCommandStatus: { wrote: () => this.#commandWritten() },
    HcInterruptStatus: { wrote: () => this.#updateInterrupt() },
    HcInterruptEnable: { wrote: () => this.#updateInterrupt() },
    HcInterruptDisable: {
      read: () => this.#regs.HcInterruptEnable.value,
      write: (_value, _previous, _index, written) => this.#disableInterrupts(written),
    },
    HcDoneHead: { read: () => this.#schedule.done },
    HcFmRemaining: { read: () => this.#remaining() },
    HcFmNumber: { read: () => this.#frameNumber() },
    HcRhStatus: { write: (_value, previous, _index, written) => this.#hubCommand(previous, written) },
    HcRhPortStatus: {
      wrote: (_value, _previous, index, written) => this.#portCommand(index, written),
    },
  });
  readonly #s = this.state(1, {
    nextFrameNs: field.number(),
    idleFrames: field.u16(),
    done: field.u32(),
    delay: field.u8(NO_DELAY),
  });
  readonly #timer = this.clock.timer('frame', () => this.#tick());
  readonly #ports: readonly UsbPort[];
  readonly #schedule = new OhciSchedule({ dma: this.dma, device: address => this.#device(address) });

  constructor(context: DeviceContext<typeof properties>) {
    super(context);
    const { 'num-ports': count } = this.props;
    this.#ports = Array.from(
      { length: Math.min(count, MAX_PORTS) },
      (_, index) => new UsbPort(this, index, SPEED_MASK.low | SPEED_MASK.full),
    );
    this.#schedule.onFinished(() => this.#collect());
  }

  protected override realize(): void {
    const { masterbus, firstport, 'num-ports': count } = this.props;
    if (count > MAX_PORTS)
      throw new SouthbridgeError(
        'ERR_PROPERTY_RANGE',
        `OHCI num-ports=${count} is too big (limit is ${MAX_PORTS} ports)`,
      );
    this.#regs.HcRhDescriptorA.NDP = count;
    this.onUnrealize(() => this.#schedule.cancelAll());
    if (masterbus !== undefined) {
      masterBus(this, masterbus).register(this.#ports, firstport);
      return;
    }
    const { services } = this;
    const bus = new UsbBus(usbBusName(this), { services, home: this.pciBus.home, owner: this, hub: usbHub });
    for (const port of this.#ports) bus.addPort(port);
    this.addBus(bus);
  }

  // Interrupts (section 5.3)

  #updateInterrupt(): void {
    const { HcInterruptEnable, HcInterruptStatus } = this.#regs;
    const enabled = HcInterruptEnable.value;
    this.irq.set((enabled & MASTER_INTERRUPT) !== 0 && (enabled & HcInterruptStatus.value) !== 0);
  }

  #disableInterrupts(mask: number): number {
    const { HcInterruptEnable } = this.#regs;
    HcInterruptEnable.value = (HcInterruptEnable.value & ~mask) >>> 0;
    this.#updateInterrupt();
    return 0;
  }

  #interrupt(name: 'RD' | 'RHSC' | 'SF' | 'WDH' | 'FNO'): void {
    this.#regs.HcInterruptStatus[name] = true;
    this.#updateInterrupt();
  }

  // Control (sections 5.1 and 7.1)

  get #operational(): boolean {
    return this.#regs.HcControl.HCFS === 'operational';
  }

  #controlWritten(value: number, previous: number): void {
    this.#busy();
    const { HcControl, HcInterruptStatus } = this.#regs;
    // What was on a list that is switched off is the driver's again.
    if ((previous & ~value & 0x30) !== 0) this.#schedule.cancelAll();
    if (((value ^ previous) & STATE) === 0) return;
    switch (HcControl.HCFS) {
      case 'operational':
        this.#s.nextFrameNs = this.clock.now() + FRAME_NS;
        this.#busy();
        break;
      case 'suspend':
        this.#timer.cancel();
        HcInterruptStatus.SF = false;
        this.#updateInterrupt();
        break;
      case 'reset':
        this.#timer.cancel();
        this.#resetHub();
        break;
    }
  }

  #commandWritten(): void {
    if (!this.#regs.HcCommandStatus.HCR) {
      this.#busy();
      return;
    }
    // A software reset suspends the bus, and leaves routing and the root hub alone (section 7.1.3).
    const { IR } = this.#regs.HcControl;
    const ports = this.#ports.map((_, index) => this.#regs.HcRhPortStatus.at(index).value);
    const wakeup = this.#regs.HcRhStatus.DRWE;
    for (const bank of this.banks) bank.reset();
    ports.forEach((value, index) => {
      this.#regs.HcRhPortStatus.at(index).value = value;
    });
    this.#regs.HcRhStatus.DRWE = wakeup;
    this.#regs.HcControl.IR = IR;
    this.#regs.HcControl.HCFS = 'suspend';
    this.#stop();
  }

  #stop(): void {
    this.#timer.cancel();
    this.#schedule.cancelAll();
    this.#schedule.done = 0;
    this.#schedule.delay = NO_DELAY;
    this.#updateInterrupt();
  }

  // Frames

  #busy(): void {
    this.#s.idleFrames = 0;
    if (this.#operational) this.#timer.armAt(this.#s.nextFrameNs);
  }

  #tick(): void {
    if (!this.#operational) return;
    this.#catchUp();
    const often = this.#s.idleFrames < IDLE_FRAMES || this.#regs.HcInterruptEnable.SF;
    this.#timer.armAt(this.#s.nextFrameNs + (often ? 0 : IDLE_PACE - 1) * FRAME_NS);
  }

  #catchUp(): void {
    const s = this.#s;
    const late = Math.floor((this.clock.now() - s.nextFrameNs) / FRAME_NS) + 1;
    const skipped = Math.max(0, late - MAX_FRAMES_AT_ONCE);
    if (skipped > 0) this.#advance(skipped);
    for (let frame = skipped; frame < late && this.#operational; frame++) {
      this.#schedule.completed = 0;
      this.#frame();
      s.idleFrames = this.#schedule.completed > 0 ? 0 : Math.min(IDLE_FRAMES, s.idleFrames + 1);
    }
    if (this.#schedule.takeFinished()) this.#collect();
  }

  #advance(frames: number): void {
    const { HcFmNumber } = this.#regs;
    const before = HcFmNumber.FN;
    HcFmNumber.FN = (before + frames) & 0xffff;
    this.#s.nextFrameNs += frames * FRAME_NS;
    if (((before ^ HcFmNumber.FN) & 0x8000) !== 0) this.#interrupt('FNO');
  }

  #frame(): void {
    const { HcControl, HcHCCA, HcFmNumber } = this.#regs;
    if (HcControl.PLE) {
      const entry = HcHCCA.value + HCCA.INTERRUPT_TABLE + 4 * (HcFmNumber.FN % HCCA.ENTRIES);
      this.#schedule.list(this.dma.read32(entry));
    }
    this.#lists();
    this.#advance(1);
    this.dma.write32(HcHCCA.value + HCCA.FRAME_NUMBER, HcFmNumber.FN);
    this.#writeDone();
    this.#interrupt('SF');
  }

  /** Control and bulk lists are looked at while they are said to be filled (section 6.4.3). */
  #lists(): void {
    const { HcControl, HcCommandStatus, HcControlHeadED, HcBulkHeadED } = this.#regs;
    if (HcControl.CLE && HcCommandStatus.CLF) HcCommandStatus.CLF = this.#schedule.list(HcControlHeadED.value);
    if (HcControl.BLE && HcCommandStatus.BLF) HcCommandStatus.BLF = this.#schedule.list(HcBulkHeadED.value);
  }

  /** The done queue goes to the driver once it has taken the last one (section 6.4.4). */
  #writeDone(): void {
    const schedule = this.#schedule;
    const { HcInterruptStatus, HcInterruptEnable, HcHCCA } = this.#regs;
    if (schedule.delay === 0 && !HcInterruptStatus.WDH) {
      const others = (HcInterruptStatus.value & HcInterruptEnable.value) !== 0 ? 1 : 0;
      this.dma.write32(HcHCCA.value + HCCA.DONE_HEAD, schedule.done | others);
      schedule.done = 0;
      schedule.delay = NO_DELAY;
      this.#interrupt('WDH');
    } else if (schedule.delay !== NO_DELAY && schedule.delay > 0) schedule.delay--;
  }

  /** A device has finished a packet: it is written back at once, so that a snapshot need not know of it. */
  #collect(): void {
    if (!this.#operational) return;
    const { HcControl, HcHCCA, HcFmNumber } = this.#regs;
    if (HcControl.PLE) this.#schedule.list(this.dma.read32(HcHCCA.value + 4 * (HcFmNumber.FN % HCCA.ENTRIES)));
    this.#lists();
    this.#busy();
  }

  #frameNumber(): number {
    if (this.#operational) this.#catchUp();
    return this.#regs.HcFmNumber.value;
  }

  /** Bit times until the end of the frame (section 7.3.2). */
  #remaining(): number {
    const { HcFmInterval } = this.#regs;
    const toggle = HcFmInterval.FIT ? MASTER_INTERRUPT : 0;
    if (!this.#operational) return toggle;
    const left = Math.max(0, Math.min(FRAME_NS, this.#s.nextFrameNs - this.clock.now()));
    return (toggle | Math.floor((HcFmInterval.FI * left) / FRAME_NS)) >>> 0;
  }

  #device(address: number): UsbDevice | undefined {
    for (const [index, port] of this.#ports.entries()) {
      const found = this.#regs.HcRhPortStatus.at(index).PES ? port.find(address) : undefined;
      if (found !== undefined) return found;
    }
    return undefined;
  }

  // Root hub (section 7.4)

  #hubCommand(previous: number, written: number): number {
    if ((written & HUB.CLEAR_POWER) !== 0) this.#ports.forEach((_, index) => this.#power(index, false));
    if ((written & HUB.SET_POWER) !== 0) this.#ports.forEach((_, index) => this.#power(index, true));
    let status = previous;
    if ((written & HUB.SET_WAKEUP) !== 0) status |= HUB.SET_WAKEUP;
    if ((written & HUB.CLEAR_WAKEUP) !== 0) status &= ~HUB.SET_WAKEUP;
    if (status !== previous) this.#interrupt('RHSC');
    return status >>> 0;
  }

  #power(index: number, on: boolean): void {
    const port = this.#regs.HcRhPortStatus.at(index);
    port.PPS = on;
    if (on) return;
    port.CCS = false;
    port.PSS = false;
    port.PRS = false;
  }

  #portCommand(index: number, written: number): void {
    const port = this.#regs.HcRhPortStatus.at(index);
    const device = this.#ports[index]?.device;
    if (this.#ports[index] === undefined) return;
    const before = port.value;
    port.value = (before & ~(written & PORT.CHANGES)) >>> 0;
    if ((written & PORT.CLEAR_ENABLE) !== 0) port.PES = false;
    if ((written & (PORT.SET_ENABLE | PORT.SET_SUSPEND | PORT.RESET)) !== 0) {
      if (!port.CCS) port.CSC = true;
      else {
        if ((written & PORT.SET_ENABLE) !== 0) port.PES = true;
        if ((written & PORT.SET_SUSPEND) !== 0) port.PSS = true;
        if ((written & PORT.RESET) !== 0) {
          device?.resetSignal();
          port.PES = true;
          port.PSS = false;
          port.PRSC = true;
        }
      }
    }
    if ((written & PORT.CLEAR_SUSPEND) !== 0 && port.PSS) {
      port.PSS = false;
      port.PSSC = true;
    }
    if ((written & PORT.CLEAR_POWER) !== 0) this.#power(index, false);
    if ((written & PORT.SET_POWER) !== 0) this.#power(index, true);
    if (port.value !== before) this.#interrupt('RHSC');
    this.#busy();
  }

  portAttached(port: UsbPort): void {
    const register = this.#regs.HcRhPortStatus.at(port.index);
    register.CCS = true;
    register.CSC = true;
    register.LSDA = port.device?.speed === 'low';
    if (this.#regs.HcControl.HCFS === 'suspend') this.#interrupt('RD');
    this.#interrupt('RHSC');
  }

  portDetached(port: UsbPort): void {
    if (port.device !== undefined) this.#schedule.cancelDevice(port.device);
    const register = this.#regs.HcRhPortStatus.at(port.index);
    if (register.CCS) register.CSC = true;
    if (register.PES) register.PESC = true;
    register.CCS = false;
    register.PES = false;
    this.#interrupt('RHSC');
  }

  childDetached(_port: UsbPort, child: UsbDevice): void {
    this.#schedule.cancelDevice(child);
  }

  /** The only change of state that the controller makes by itself (section 5.1.2.3). */
  wakeup(port: UsbPort): void {
    const register = this.#regs.HcRhPortStatus.at(port.index);
    const suspended = this.#regs.HcControl.HCFS === 'suspend';
    if (register.PSS) {
      register.PSS = false;
      register.PSSC = true;
      if (!suspended) this.#interrupt('RHSC');
    }
    if (!suspended) return;
    this.#regs.HcControl.HCFS = 'resume';
    this.#interrupt('RD');
  }

  ready(): void {
    this.#busy();
  }

  #resetHub(): void {
    this.#schedule.cancelAll();
    for (const [index, port] of this.#ports.entries()) {
      this.#regs.HcRhPortStatus.at(index).value = 0;
      this.#regs.HcRhPortStatus.at(index).PPS = true;
      if (!port.device?.attached) continue;
      this.portAttached(port);
      port.device.resetSignal();
    }
  }

  // Reset and snapshots

  protected override resetHold(): void {
    this.#stop();
    this.#resetHub();
  }

  override save(): SavedRecord {
    this.#s.done = this.#schedule.done;
    this.#s.delay = this.#schedule.delay;
    return super.save();
  }

  protected override restored(): void {
    super.restored();
    this.#schedule.done = this.#s.done;
    this.#schedule.delay = this.#s.delay;
  }
}

export const pciOhci = deviceType({
  type: 'pci-ohci',
  summary: 'Apple USB Controller',
  category: 'usb',
  parents: ['pci-device', 'device'],
  properties,
  hotpluggable: false,
  pci: { vendor: 0x106b, device: 0x003f, class: 0x0c0310, pin: 'A' },
  bars: { 0: { size: MEMORY_SIZE, map: ohciRegisters, access: { impl: { min: 4, max: 4 } } } },
  create: Ohci,
});
