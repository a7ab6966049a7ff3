import type { DeviceContext } from '../../core/device/device-type.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { AddressSpace } from '../../core/memory/address-space.ts';
import { Dma } from '../../core/memory/dma.ts';
import { CFG } from '../../core/pci/config-space.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import type { RegisterBank, Registers } from '../../core/register/register.ts';
import { ScsiBus, type ScsiHostAdapter } from '../../core/scsi/scsi-bus.ts';
import type { ScsiRequest, ScsiTask } from '../../core/scsi/scsi-request.ts';
import { asRecord, field, loadValues, type SavedValue, saveValues } from '../../core/state/fields.ts';
import { initiatorFields, LsiInitiator, LsiTask, taskFields } from './initiator.ts';
import {
  CTEST2,
  DCNTL,
  DMODE,
  DSTAT,
  ISTAT0,
  ISTAT1_SRUN,
  lsiRegisters,
  REGISTER_SPACE,
  SCNTL1,
  SCNTL2,
  SIST0,
  SIST1,
  SSTAT0,
  SSTAT2_LDSC,
} from './registers.ts';
import { ScriptsProcessor } from './scripts.ts';

const BAR = { IO: 0, MEMORY: 1, RAM: 2 } as const;
const RAM_BYTES = 0x2000;
const LATENCY = 0xff;
/** Interrupts that stop the processor only where they are enabled (LSI53C895A Technical Manual, section 2.2.16.3). */
const NOT_FATAL_0 = SIST0.CMP | SIST0.SEL | SIST0.RSL;
const NOT_FATAL_1 = SIST1.GEN | SIST1.HTH;
/** The general purpose timer's period; 0 for none. */
const TIMER_PERIOD = 0x0f;

/** LSI53C895A (and NCR 53C810) SCSI controller: registers, on-chip RAM, interrupts. */
export class LsiChip extends PciDevice implements ScsiHostAdapter {
  readonly maxChannel = 0;
  readonly maxTarget = 7;
  readonly maxLun = 0;
  readonly taggedQueuing = true;
  readonly scsiBus: ScsiBus;
  readonly registers: RegisterBank<typeof lsiRegisters> = this.bank(lsiRegisters, {
    SCNTL1: {
      write: value => value & ~SCNTL1.SST,
      wrote: value => this.#busReset((value & SCNTL1.RST) !== 0),
    },
    SCNTL2: { write: value => value & ~(SCNTL2.WSR | SCNTL2.WSS) },
    DSTAT: { read: status => this.#takeDmaStatus(status) },
    SSTAT2: { read: () => (this.#initiator.connected ? 0 : SSTAT2_LDSC) },
    ISTAT0: {
      write: (value, previous) => (previous & ~ISTAT0.HOST) | (value & ISTAT0.HOST),
      wrote: (_value, _previous, _index, written) => this.#commanded(written),
    },
    CTEST2: {
      read: value => this.#takeSignal(value),
      write: value => value & CTEST2.PCICIE,
    },
    DSP: { wrote: (_value, _previous, _index, _written, touched) => this.#pointed(touched) },
    DIEN: { wrote: () => this.updateIrq() },
    DCNTL: {
      write: value => value & ~(DCNTL.PFF | DCNTL.STD),
      wrote: (_value, _previous, _index, written) => {
        if ((written & DCNTL.STD) !== 0) this.#start();
      },
    },
    SIEN0: { wrote: () => this.updateIrq() },
    SIEN1: { wrote: () => this.updateIrq() },
    SIST0: { read: status => this.#takeScsiStatus(status, this.regs.SIST0) },
    SIST1: { read: status => this.#takeScsiStatus(status, this.regs.SIST1) },
    STIME1: {
      wrote: value => {
        // There is nothing to time: the timer is over at once.
        if ((value & TIMER_PERIOD) !== 0) this.scsiInterrupt(0, SIST1.GEN);
      },
    },
    SBDL: { read: () => this.#initiator.messageByte },
  });
  readonly regs: Registers<typeof lsiRegisters> = this.registers.regs;
  readonly s = this.state(1, { carry: field.bool() });
  readonly #ram = this.state(1, { bytes: field.bytes(RAM_BYTES) }, { name: 'ram', onReset: 'keep' });
  readonly #initiator: LsiInitiator;
  readonly #scripts: ScriptsProcessor;
  #ioSpace: { readonly space: AddressSpace; readonly dma: Dma } | undefined;

  constructor(context: DeviceContext) {
    super(context);
    this.scsiBus = this.addBus(new ScsiBus(this));
    const state = this.state(1, initiatorFields, { name: 'initiator' });
    this.#initiator = new LsiInitiator(this, this.scsiBus, state);
    this.#scripts = new ScriptsProcessor(this, this.#initiator);
  }

  protected override realize(): void {
    this.config.set8(CFG.LATENCY_TIMER, LATENCY);
    const registers = {
      read: (offset: number, size: number) => this.registers.read(offset % REGISTER_SPACE, size),
      write: (offset: number, size: number, value: number) =>
        this.registers.write(offset % REGISTER_SPACE, size, value),
    };
    // Open to the chip's own accesses: SCRIPTS of the 53C810 move data to its registers by their addresses.
    this.bar(BAR.IO, registers);
    this.bar(BAR.MEMORY, registers);
    this.bar(BAR.RAM, {
      read: (offset, size) => readLittle(this.#ram.bytes, offset, size),
      write: (offset, size, value) => writeLittle(this.#ram.bytes, offset, size, value),
    });
    this.onUnrealize(() => this.#ioSpace?.space.dispose());
  }

  guestError(message: string): void {
    this.log.guestError(message);
  }

  // Interrupts (section 2.2.16)

  updateIrq(): void {
    const { regs } = this;
    const dma = regs.DSTAT.value;
    const scsi = regs.SIST0.value | regs.SIST1.value;
    let status = regs.ISTAT0.value & ~(ISTAT0.DIP | ISTAT0.SIP);
    if (dma !== 0) status |= ISTAT0.DIP;
    if (scsi !== 0) status |= ISTAT0.SIP;
    regs.ISTAT0.value = status;
    const level =
      (dma & regs.DIEN.value) !== 0 ||
      (regs.SIST0.value & regs.SIEN0.value) !== 0 ||
      (regs.SIST1.value & regs.SIEN1.value) !== 0 ||
      (status & ISTAT0.INTF) !== 0;
    this.irq.set(level);
    // Software that was interrupted is done: a target that waits may reselect now.
    const initiator = this.#initiator;
    if (level || initiator.current !== undefined) return;
    if (initiator.interruptsOnReselection && !initiator.connected) initiator.reselectPending();
  }

  /** Something has happened on the SCSI bus. A failed selection stops the processor later, at the next use of the bus. */
  scsiInterrupt(status0: number, status1: number): void {
    const { regs } = this;
    regs.SIST0.value |= status0;
    regs.SIST1.value |= status1;
    const fatal0 = regs.SIEN0.value | (~NOT_FATAL_0 & 0xff);
    const fatal1 = (regs.SIEN1.value | (~NOT_FATAL_1 & 0xff)) & ~SIST1.STO;
    if ((regs.SIST0.value & fatal0) !== 0 || (regs.SIST1.value & fatal1) !== 0) this.stop();
    this.updateIrq();
  }

  dmaInterrupt(status: number): void {
    this.regs.DSTAT.value |= status;
    this.updateIrq();
    this.stop();
  }

  /** INTFLY: interrupts, and goes on. */
  interruptOnTheFly(): void {
    this.regs.ISTAT0.value |= ISTAT0.INTF;
    this.updateIrq();
  }

  #takeDmaStatus(status: number): number {
    if ((this.regs.ISTAT0.value & ISTAT0.INTF) === 0) this.regs.DSTAT.value = 0;
    this.updateIrq();
    return status | DSTAT.DFE;
  }

  #takeScsiStatus(status: number, register: { value: number }): number {
    register.value = 0;
    this.updateIrq();
    return status;
  }

  #takeSignal(value: number): number {
    const { regs } = this;
    const signalled = (regs.ISTAT0.value & ISTAT0.SIGP) !== 0;
    regs.ISTAT0.value &= ~ISTAT0.SIGP;
    return value | CTEST2.DACK | CTEST2.CM | (signalled ? CTEST2.SIGP : 0);
  }

  // What software commands

  #commanded(written: number): void {
    const { regs } = this;
    if ((written & ISTAT0.ABRT) !== 0) this.dmaInterrupt(DSTAT.ABRT);
    if ((written & ISTAT0.INTF) !== 0) {
      regs.ISTAT0.value &= ~ISTAT0.INTF;
      this.updateIrq();
    }
    if ((written & ISTAT0.SIGP) !== 0 && this.#initiator.s.waiting === 'reselection') {
      this.#initiator.s.waiting = 'nothing';
      regs.DSP.value = regs.DNAD.value;
      this.#scripts.run();
    }
    if ((written & ISTAT0.SRST) !== 0) this.#softwareReset();
  }

  #pointed(touched: number): void {
    if (touched >>> 24 !== 0 && (this.regs.DMODE.value & DMODE.MAN) === 0) this.#start();
  }

  #start(): void {
    if ((this.regs.ISTAT1.value & ISTAT1_SRUN) === 0) this.#scripts.run();
  }

  stop(): void {
    this.regs.ISTAT1.value &= ~ISTAT1_SRUN;
  }

  /** What the processor has waited for is there. */
  resume(): void {
    const { s } = this.#initiator;
    const inStep = s.waiting === 'data-started';
    s.waiting = 'nothing';
    if (!inStep) this.#scripts.run();
  }

  spend(bytes: number): void {
    this.#scripts.spend(bytes);
  }

  /** All registers but those of configuration space are as after power-on. */
  #softwareReset(): void {
    this.#resetBus();
    this.registers.reset();
    this.s.carry = false;
    this.#initiator.reset();
    this.updateIrq();
  }

  #resetBus(): void {
    for (const phase of ['enter', 'hold', 'exit'] as const) this.scsiBus.resetPhase(phase);
    this.#initiator.clear();
  }

  #busReset(asserted: boolean): void {
    const { SSTAT0: status } = this.regs;
    const was = (status.value & SSTAT0.RST) !== 0;
    if (!asserted) status.value &= ~SSTAT0.RST;
    if (!asserted || was) return;
    this.#resetBus();
    status.value |= SSTAT0.RST;
    this.scsiInterrupt(SIST0.RST, 0);
  }

  protected override resetHold(): void {
    super.resetHold();
    this.#initiator.clear();
  }

  // Memory, or I/O space where DMODE says so

  readMemory(address: number, target: Uint8Array, at: number, length: number): void {
    const io = (this.regs.DMODE.value & DMODE.SIOM) !== 0;
    (io ? this.#ioDma : this.dma).read(address, target, at, length);
  }

  writeMemory(address: number, source: Uint8Array, at: number, length: number): void {
    const io = (this.regs.DMODE.value & DMODE.DIOM) !== 0;
    (io ? this.#ioDma : this.dma).write(address, source, at, length);
  }

  get #ioDma(): Dma {
    if (this.#ioSpace === undefined) {
      const space = new AddressSpace(`${this.typeName}-io`, this.pciBus.io);
      this.#ioSpace = { space, dma: new Dma(space) };
    }
    this.#ioSpace.dma.enabled = this.dma.enabled;
    return this.#ioSpace.dma;
  }

  // State

  protected override restored(): void {
    super.restored();
    this.#initiator.dropTasks();
  }

  saveTask({ task }: ScsiRequest): SavedValue {
    return task instanceof LsiTask ? saveValues(taskFields, this.#initiator.saveTask(task)) : null;
  }

  loadTask(saved: SavedValue, request: ScsiRequest): ScsiTask | undefined {
    const values = loadValues(taskFields, asRecord(saved, this.path), this.path);
    return this.#initiator.loadTask(values, request);
  }
}

function readLittle(bytes: Uint8Array, offset: number, size: number): number {
  let value = 0;
  for (let index = 0; index < size; index++) value |= (bytes[offset + index] ?? 0) << (8 * index);
  return value >>> 0;
}

function writeLittle(bytes: Uint8Array, offset: number, size: number, value: number): void {
  for (let index = 0; index < size; index++) bytes[offset + index] = value >>> (8 * index);
}

const VENDOR_LSI = 0x1000;
const common = {
  category: 'storage',
  bars: {
    [BAR.IO]: { size: REGISTER_SPACE, space: 'io' },
    [BAR.MEMORY]: { size: 0x400, map: lsiRegisters },
    [BAR.RAM]: { size: RAM_BYTES },
  },
  create: LsiChip,
} as const;
const identity = { vendor: VENDOR_LSI, class: 0x01_0000, subsystemVendor: 0, subsystem: 0x1000, pin: 'A' } as const;

export const lsi53c895a = deviceType({
  ...common,
  type: 'lsi53c895a',
  aliases: ['lsi'],
  summary: 'LSI53C895A SCSI controller',
  pci: { ...identity, device: 0x0012 },
});
export const lsi53c810 = deviceType({
  ...common,
  type: 'lsi53c810',
  parents: ['lsi53c895a', 'pci-device', 'device'],
  summary: 'NCR 53C810 SCSI controller',
  pci: { ...identity, device: 0x0001 },
});
