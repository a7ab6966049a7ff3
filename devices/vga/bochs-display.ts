import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { fitted, type ScreenSource, type Surface } from '../../core/display/screen.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { SharedRam } from '../../core/memory/guest-ram.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { field } from '../../core/state/fields.ts';
import { edidProperties, edidRegion, QEMU_REGISTERS, VGA_MMIO, VGA_MMIO_SIZE } from './adapter.ts';
import { rowReader } from './pixels.ts';
import { VBE, VBE_ENABLE, VBE_ID5 } from './state.ts';

const MIB = 2 ** 20;
const MIN_SIDE = 64;
const REGISTERS = 10;

const properties = {
  vgamem: prop.size({ default: 16 * MIB }),
  edid: prop.bool({ default: true }),
  ...edidProperties,
};

interface Mode {
  readonly bpp: number;
  readonly width: number;
  readonly height: number;
  readonly pitch: number;
  readonly start: number;
}

/** The Bochs display interface alone, in memory: modes of 16 and 32 bits, and nothing of a VGA. */
class BochsDisplayAdapter extends PciDevice<typeof properties> implements ScreenSource {
  readonly head = 0;
  readonly polled = true;
  readonly #s = this.state(1, { vbe: field.words(REGISTERS) });
  readonly #ram = new SharedRam('bochs-display-vram', memorySize(this.props.vgamem));

  get device(): string | undefined {
    return this.id;
  }

  draw(surface: Surface): Surface {
    const mode = this.#mode();
    if (mode === undefined) return surface;
    const fit = fitted(surface, mode.width, mode.height);
    const reader = rowReader(mode.bpp);
    for (let y = 0; y < mode.height; y++)
      reader?.(this.#ram.view, mode.start + y * mode.pitch, fit.pixels, y * mode.width, mode.width);
    return fit;
  }

  protected override realize(): void {
    this.bar(0, MemoryRegion.ram(this.#ram), { size: this.#ram.size, prefetchable: true });
    this.onUnrealize(this.services.guestRam(this.#ram));
    const bar = MemoryRegion.container('bochs-display-mmio', VGA_MMIO_SIZE);
    const registers = {
      read: (offset: number) => this.#read(offset >> 1),
      write: (offset: number, _size: number, value: number) => {
        if (offset >> 1 < REGISTERS) this.#s.vbe[offset >> 1] = value;
      },
    };
    bar.add(MemoryRegion.io('bochs dispi interface', 0x16, registers, { impl: { min: 2, max: 2 } }), VGA_MMIO.BOCHS);
    bar.add(MemoryRegion.io('qemu extended regs', 8, QEMU_REGISTERS, { impl: { min: 4, max: 4 } }), VGA_MMIO.QEMU);
    if (this.props.edid) bar.add(edidRegion(this.props), VGA_MMIO.EDID);
    this.bar(2, bar, { size: VGA_MMIO_SIZE });
    const screen = this.services.displays.add(this);
    this.onUnrealize(() => this.services.displays.remove(screen));
  }

  #read(index: number): number {
    if (index === VBE.ID) return VBE_ID5;
    if (index === VBE.MEMORY_64K) return this.#ram.size / 0x1_0000;
    return this.#s.vbe[index] ?? 0xffff;
  }

  /** What the registers ask for; undefined where it is no mode, and the screen stays as it is. */
  #mode(): Mode | undefined {
    const vbe = (index: number): number => this.#s.vbe[index] ?? 0;
    const bpp = vbe(VBE.BPP);
    if ((vbe(VBE.ENABLE) & VBE_ENABLE.ENABLED) === 0 || (bpp !== 16 && bpp !== 32)) return undefined;
    const [width, height] = [vbe(VBE.XRES), vbe(VBE.YRES)];
    const bytes = bpp / 8;
    const pitch = Math.max(vbe(VBE.VIRT_WIDTH), width) * bytes;
    const start = vbe(VBE.X_OFFSET) * bytes + vbe(VBE.Y_OFFSET) * pitch;
    if (width < MIN_SIDE || height < MIN_SIDE || start + pitch * height > this.#ram.size) return undefined;
    return { bpp, width, height, pitch, start };
  }
}

/** @throws SouthbridgeError ERR_PROPERTY_RANGE with QEMU's words */
function memorySize(size: number): number {
  if (size < 4 * MIB) throw new SouthbridgeError('ERR_PROPERTY_RANGE', 'bochs-display: video memory too small');
  if (size > 256 * MIB) throw new SouthbridgeError('ERR_PROPERTY_RANGE', 'bochs-display: video memory too big');
  return 2 ** Math.ceil(Math.log2(size));
}

export const bochsDisplay = deviceType({
  type: 'bochs-display',
  summary: 'The Bochs display interface without a VGA',
  category: 'display',
  parents: ['pci-device', 'device'],
  properties,
  pci: {
    vendor: 0x1234,
    device: 0x1111,
    revision: 2,
    class: 0x03_8000,
    express: 'endpoint',
    rom: 'vgabios-bochs-display.bin',
  },
  create: BochsDisplayAdapter,
});
