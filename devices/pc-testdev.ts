import { IsaDevice } from '../core/bus/isa.ts';
import { deviceType } from '../core/device/device-type.ts';
import { IrqLine } from '../core/irq/line.ts';
import { MemoryRegion } from '../core/memory/memory-region.ts';
import { field } from '../core/state/fields.ts';

const DATA_PORT = 0xe0;
const FLUSH_PORT = 0xe4;
/** Shows the same latch as {@link DATA_PORT}, but takes wide accesses apart into bytes. */
const BYTE_PORT = 0xe8;
const IRQ_PORT = 0x2000;
const IRQ_COUNT = 24;
const ISA_IRQS = 16;
const MEMORY_BASE = 0xff00_0000;
const MEMORY_SIZE = 0x1_0000;

/** What kvm-unit-tests measure a hypervisor with: a latch, memory behind an exit, and a write-only pin for each ISA IRQ. */
class PcTestDevice extends IsaDevice {
  readonly #state = this.state(1, { latch: field.u32(), memory: field.bytes(MEMORY_SIZE) }, { onReset: 'keep' });
  readonly #pins = Array.from({ length: ISA_IRQS }, (_, irq) => new IrqLine(`irq${irq}`));

  protected override resetHold(): void {
    for (const pin of this.#pins) pin.lower();
  }

  protected override realize(): void {
    this.onUnrealize(() => this.resetHold());
    const latch = {
      read: (offset: number, size: number): number => ((this.#state.latch >>> (8 * (offset & 3))) & maskOf(size)) >>> 0,
      write: (offset: number, size: number, value: number): void => this.#writeLatch(offset, size, value),
    };
    this.ports(DATA_PORT, 4, latch, {}, 'pc-testdev-ioport');
    this.ports(BYTE_PORT, 4, latch, { impl: { max: 1 } }, 'pc-testdev-ioport-byte');
    // Where QEMU takes a page's mapping away and back; there is no such mapping to disturb here.
    this.ports(FLUSH_PORT, 4, { read: () => 0, write: () => {} }, { valid: { min: 4 } }, 'pc-testdev-flush-page');
    for (const [irq, pin] of this.#pins.entries()) this.connectIrq(pin, irq);
    const setPin = (irq: number, value: number): void => this.#pins[irq]?.set(value !== 0);
    this.ports(
      IRQ_PORT,
      IRQ_COUNT,
      { read: () => 0, write: (irq, _size, value) => setPin(irq, value) },
      { valid: { max: 1 } },
      'pc-testdev-irq-line',
    );
    const window = MemoryRegion.io('pc-testdev-iomem', MEMORY_SIZE, {
      read: (offset, size) => littleEndian(this.#state.memory, offset, size),
      write: (offset, size, value) => {
        for (let at = 0; at < size; at++) this.#state.memory[offset + at] = value >>> (8 * at);
      },
    });
    this.memoryWindow(MEMORY_BASE, window);
  }

  #writeLatch(offset: number, size: number, value: number): void {
    const shift = 8 * (offset & 3);
    const mask = maskOf(size) << shift;
    this.#state.latch = ((this.#state.latch & ~mask) | ((value << shift) & mask)) >>> 0;
  }
}

const maskOf = (size: number): number => (size === 4 ? 0xffff_ffff : size === 2 ? 0xffff : 0xff);

function littleEndian(bytes: Uint8Array, offset: number, size: number): number {
  let value = 0;
  for (let at = 0; at < size; at++) value |= (bytes[offset + at] ?? 0) << (8 * at);
  return value >>> 0;
}

export const pcTestdev = deviceType({
  type: 'pc-testdev',
  summary: 'Latch, memory and interrupts for hypervisor tests',
  bus: 'ISA',
  parents: ['isa-device', 'device'],
  create: PcTestDevice,
});
