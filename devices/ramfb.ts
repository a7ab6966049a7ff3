/** A screen in guest RAM, of which firmware says where it is (QEMU docs/specs: `etc/ramfb`): for who has no display driver. */
import { Device } from '../core/device/device.ts';
import { type DeviceContext, deviceType } from '../core/device/device-type.ts';
import { SystemBus } from '../core/device/system-bus.ts';
import { fitted, type ScreenSource, type Surface } from '../core/display/screen.ts';
import { SouthbridgeError } from '../core/errors.ts';
import { Dma } from '../core/memory/dma.ts';
import { field } from '../core/state/fields.ts';
import { writableFwCfg } from './fw-cfg.ts';
import { rowReader } from './vga/pixels.ts';

const CONFIG_FILE = 'etc/ramfb';
const ROM = 'vgabios-ramfb.bin';

/** The file's fields, big-endian. */
const ADDRESS_HIGH = 0;
const ADDRESS_LOW = 4;
const FOURCC = 8;
const WIDTH = 16;
const HEIGHT = 20;
const STRIDE = 24;
const FILE_SIZE = 28;

/** Bits a pixel of the formats that there are, by Linux's names of them (drm_fourcc.h): RGB888, ARGB8888, XRGB8888. */
const FORMATS: ReadonlyMap<number, number> = new Map([
  [0x3432_4752, 24],
  [0x3432_5241, 32],
  [0x3432_5258, 32],
]);

const MIN_SIDE = 16;
const MAX_WIDTH = 16_000;
const MAX_HEIGHT = 12_000;

class RamFramebuffer extends Device implements ScreenSource {
  readonly head = 0;
  readonly polled = true;
  /** The last screen that could be shown outlives a reset. */
  readonly #mode = this.state(
    1,
    { address: field.number(), bpp: field.u32(), width: field.u32(), height: field.u32(), stride: field.u32() },
    { onReset: 'keep' },
  );
  readonly #file = new Uint8Array(FILE_SIZE);
  readonly #dma: Dma;
  #line = new Uint8Array(0);

  constructor(context: DeviceContext) {
    super(context);
    if (!(context.bus instanceof SystemBus))
      throw new SouthbridgeError('ERR_DEVICE_TYPE', `'${context.type.type}' goes onto the system bus`);
    this.#dma = new Dma(context.bus.dmaSpace);
  }

  get device(): string | undefined {
    return this.id;
  }

  draw(surface: Surface): Surface {
    const { address, bpp, width, height, stride } = this.#mode;
    const reader = rowReader(bpp);
    const length = width * (bpp / 8);
    if (reader === undefined || length === 0) return surface;
    if (this.#line.length !== length) this.#line = new Uint8Array(length);
    const view = new DataView(this.#line.buffer);
    const fit = fitted(surface, width, height);
    for (let y = 0; y < height; y++) {
      this.#dma.read(address + y * stride, this.#line);
      reader(view, 0, fit.pixels, y * width, width);
    }
    return fit;
  }

  protected override realize(): void {
    const fwCfg = writableFwCfg(this.bus, this.type.type);
    fwCfg.addFile(`vgaroms/${ROM}`, this.services.romImage(ROM));
    fwCfg.addFile(CONFIG_FILE, this.#file, { written: () => this.#configured() });
    const screen = this.services.displays.add(this);
    this.onUnrealize(() => this.services.displays.remove(screen));
  }

  /** What cannot be shown changes nothing: too small or large, of no known format, or not all in RAM. */
  #configured(): void {
    const view = new DataView(this.#file.buffer);
    const address = view.getUint32(ADDRESS_HIGH) * 2 ** 32 + view.getUint32(ADDRESS_LOW);
    const [width, height] = [view.getUint32(WIDTH), view.getUint32(HEIGHT)];
    const bpp = FORMATS.get(view.getUint32(FOURCC));
    if (bpp === undefined || width < MIN_SIDE || width > MAX_WIDTH || height < MIN_SIDE || height > MAX_HEIGHT) return;
    const line = width * (bpp / 8);
    const stride = view.getUint32(STRIDE) || line;
    const size = stride * (height - 1) + line;
    if (this.#dma.window(address, size, false)?.length !== size) return;
    Object.assign(this.#mode, { address, bpp, width, height, stride });
  }
}

export const ramfb = deviceType({
  type: 'ramfb',
  summary: 'ram framebuffer standalone device',
  category: 'display',
  parents: ['sys-bus-device', 'device'],
  hotpluggable: false,
  create: RamFramebuffer,
});
