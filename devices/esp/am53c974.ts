import type { DeviceContext } from '../../core/device/device-type.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import type { Registers } from '../../core/register/register.ts';
import { ScsiBus, type ScsiHostAdapter } from '../../core/scsi/scsi-bus.ts';
import type { ScsiRequest, ScsiTask } from '../../core/scsi/scsi-request.ts';
import type { SavedValue } from '../../core/state/fields.ts';
import { Esp, type EspHost, espFields } from './esp.ts';
import {
  COMMAND,
  DMA_COMMAND,
  DMA_STATUS,
  espDmaRegisters,
  espRegisters,
  REGISTERS,
  SBAC_WRITE_CLEARS,
  STATUS,
} from './registers.ts';

/** What the high byte of the transfer count reads as until it is written: the Am53C974. */
const CHIP_ID = 0x12;
const FIFO_COUNT = 0x1f;

/** AMD Am53C974 PCscsi: a fast SCSI core of the NCR 53C9x family with a DMA engine. */
export class Am53c974 extends PciDevice implements ScsiHostAdapter, EspHost {
  readonly maxChannel = 0;
  readonly maxTarget = 7;
  readonly maxLun = 7;
  readonly taggedQueuing = false;
  readonly scsiBus: ScsiBus;
  readonly s = this.state(1, espFields, { name: 'esp' });
  readonly #esp = new Esp(this);
  readonly #registers = this.bank(espRegisters, {
    CTCLO: { read: () => this.s.count & 0xff },
    CTCMID: { read: () => (this.s.count >>> 8) & 0xff },
    CTCHI: { read: () => (this.s.countHighWritten ? (this.s.count >>> 16) & 0xff : CHIP_ID) },
    STCLO: { wrote: () => this.#esp.startCountWritten(false) },
    STCMID: { wrote: () => this.#esp.startCountWritten(false) },
    STCHI: { wrote: () => this.#esp.startCountWritten(true) },
    FFREG: { read: () => this.#esp.readFifo(), wrote: value => this.#esp.fifoWritten(value) },
    CMDREG: { wrote: value => this.#execute(value) },
    INSTREG: { read: cause => this.#esp.takeInterrupt(cause) },
    CFIREG: { read: () => this.s.fifo.length & FIFO_COUNT },
  });
  readonly #dmaRegisters = this.bank(espDmaRegisters, {
    CMD: { wrote: value => this.#commandDma(value) },
    STATUS: {
      read: value => this.#takeDmaStatus(value),
      write: (_value, previous, _index, written) => this.#clear(previous, written),
    },
  });
  readonly regs: Registers<typeof espRegisters> = this.#registers.regs;
  readonly #engine: Registers<typeof espDmaRegisters> = this.#dmaRegisters.regs;

  constructor(context: DeviceContext) {
    super(context);
    this.scsiBus = this.addBus(new ScsiBus(this));
  }

  protected override realize(): void {
    const [core, engine] = [this.#registers, this.#dmaRegisters];
    const at = REGISTERS.ESP;
    this.bar(
      0,
      this.shielded({
        read: (offset, size) => (offset < at ? core.read(offset, size) : engine.read(offset - at, size)),
        write: (offset, size, value) => {
          if (offset < at) core.write(offset, size, value);
          else engine.write(offset - at, size, value);
        },
      }),
    );
  }

  #execute(command: number): void {
    if ((command & COMMAND.CODE) === COMMAND.RESET_DEVICE) this.#registers.reset();
    this.#esp.execute(command);
  }

  unimplemented(what: string): void {
    this.log.unimplemented(what);
  }

  interruptChanged(level: boolean): void {
    this.irq.set(level);
  }

  // The DMA engine (chapter 3.6)

  #commandDma(value: number): void {
    const engine = this.#engine;
    switch (value & DMA_COMMAND.MASK) {
      case DMA_COMMAND.IDLE:
        this.#esp.enableDma(false);
        break;
      case DMA_COMMAND.BLAST:
        // Nothing is ever left in the engine's FIFO.
        engine.STATUS.value |= DMA_STATUS.BLAST_COMPLETE;
        break;
      case DMA_COMMAND.ABORT:
        this.#esp.request?.cancel();
        break;
      case DMA_COMMAND.START:
        if ((value & DMA_COMMAND.MDL) !== 0) this.log.unimplemented('memory descriptor lists');
        engine.WBC.value = engine.STC.value;
        engine.WAC.value = engine.SPA.value;
        engine.WMAC.value = engine.SMDLA.value;
        engine.STATUS.value = 0;
        this.#esp.enableDma(true);
        break;
    }
  }

  #takeDmaStatus(value: number): number {
    const engine = this.#engine;
    if ((engine.SBAC.value & SBAC_WRITE_CLEARS) === 0) engine.STATUS.value &= ~DMA_STATUS.LATCHED;
    return (this.regs.STATREG.value & STATUS.INTERRUPT) !== 0 ? value | DMA_STATUS.SCSI_INTERRUPT : value;
  }

  #clear(previous: number, written: number): number {
    return (this.#engine.SBAC.value & SBAC_WRITE_CLEARS) !== 0 ? previous & ~(written & DMA_STATUS.LATCHED) : previous;
  }

  readMemory(target: Uint8Array, at: number, length: number): void {
    const engine = this.#engine;
    const given = (engine.CMD.value & DMA_COMMAND.TO_MEMORY) === 0 ? Math.min(length, engine.WBC.value) : 0;
    this.dma.read(engine.WAC.value, target, at, given);
    target.fill(0, at + given, at + length);
    this.#count(given);
  }

  writeMemory(source: Uint8Array, at: number, length: number): void {
    const engine = this.#engine;
    const taken = (engine.CMD.value & DMA_COMMAND.TO_MEMORY) !== 0 ? Math.min(length, engine.WBC.value) : 0;
    this.dma.write(engine.WAC.value, source, at, taken);
    this.#count(taken);
  }

  #count(bytes: number): void {
    const engine = this.#engine;
    if (bytes === 0) return;
    engine.WBC.value -= bytes;
    engine.WAC.value = engine.WAC.value + bytes;
    if (engine.WBC.value === 0) engine.STATUS.value |= DMA_STATUS.DONE;
  }

  commandEnded(): void {
    this.#engine.WBC.value = 0;
    this.#engine.STATUS.value |= DMA_STATUS.DONE;
  }

  // State

  protected override resetHold(): void {
    super.resetHold();
    this.#esp.request = undefined;
  }

  protected override restored(): void {
    super.restored();
    this.#esp.request = undefined;
  }

  saveTask(): SavedValue {
    return null;
  }

  loadTask(_saved: SavedValue, request: ScsiRequest): ScsiTask | undefined {
    if (this.#esp.request !== undefined) return undefined;
    this.#esp.request = request;
    return this.#esp;
  }
}

export const am53c974 = deviceType({
  type: 'am53c974',
  summary: 'AMD Am53c974 PCscsi-PCI SCSI adapter',
  category: 'storage',
  pci: { vendor: 0x1022, device: 0x2020, revision: 0x10, class: 0x01_0000, pin: 'A' },
  bars: { 0: { size: REGISTERS.SPACE, space: 'io' } },
  create: Am53c974,
});
