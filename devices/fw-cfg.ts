/** The firmware configuration device (QEMU docs/specs/fw_cfg): the ports behind which {@link FwCfg} lies. */

import type { Bus } from '../core/device/bus.ts';
import { Device } from '../core/device/device.ts';
import { type DeviceContext, deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { SystemBus } from '../core/device/system-bus.ts';
import { SouthbridgeError } from '../core/errors.ts';
import { FW_CFG_KEYS, FwCfg, type FwCfgMemory } from '../core/firmware/fw-cfg.ts';
import { Dma } from '../core/memory/dma.ts';
import { type IoHandler, MemoryRegion } from '../core/memory/memory-region.ts';
import { field } from '../core/state/fields.ts';

/** "QEMU CFG": what the DMA address register reads as, the first character at the lowest address. */
const DMA_SIGNATURE = Buffer.from('QEMU CFG', 'latin1');
/** The selector, where a PC has it; data is the next. */
export const FW_CFG_PORT = 0x510;
const PORTS = 2;
const DMA_REGISTER_SIZE = 8;
/** Where the DMA address register lies, counted from the selector port. */
const DMA_OFFSET = 4;

const properties = {
  iobase: prop.u16({ default: FW_CFG_PORT, listed: 'no', help: 'the selector port; data is the next' }),
  dma_enabled: prop.bool({ default: true }),
  'x-file-slots': prop.u16({ default: 0x20 }),
  'acpi-mr-restore': prop.bool({ default: true }),
} as const;

function swap32(value: number): number {
  return (((value & 0xff) << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | (value >>> 24)) >>> 0;
}

export class FwCfgIo extends Device<typeof properties> {
  readonly #state = this.state(1, { selector: field.u16(), offset: field.u32(), dmaHigh: field.u32() });
  /** What the guest finds here; the machine puts it in. */
  readonly content: FwCfg;
  readonly #dma: Dma;
  readonly #memory: FwCfgMemory;

  constructor(context: DeviceContext<typeof properties>) {
    super(context);
    if (!(context.bus instanceof SystemBus)) {
      throw new SouthbridgeError('ERR_DEVICE_TYPE', `'${context.type.type}' goes onto the system bus`);
    }
    this.content = new FwCfg({
      dma: this.props.dma_enabled,
      fileSlots: this.props['x-file-slots'],
      position: this.#state,
    });
    const dma = new Dma(context.bus.dmaSpace);
    this.#dma = dma;
    this.#memory = {
      read: (address, into) => dma.read(address, into),
      write: (address, from) => dma.write(address, from),
    };
  }

  protected override realize(): void {
    const { bus } = this;
    if (!(bus instanceof SystemBus)) return;
    const { iobase } = this.props;
    this.#map(
      bus.io,
      iobase,
      MemoryRegion.io('fwcfg', PORTS, this.#ports(), {
        valid: { min: 1, max: 2, unaligned: true },
        impl: { min: 1, max: 2, unaligned: true },
      }),
    );
    if (!this.props.dma_enabled) return;
    this.#map(bus.io, iobase + DMA_OFFSET, MemoryRegion.io('fwcfg.dma', DMA_REGISTER_SIZE, this.#dmaRegister()));
  }

  protected override resetHold(): void {
    this.content.select(FW_CFG_KEYS.SIGNATURE);
  }

  protected override restored(): void {
    this.content.resume();
  }

  #map(space: MemoryRegion, at: number, region: MemoryRegion): void {
    space.add(region, at);
    this.onUnrealize(() => space.remove(region));
  }

  /** The selector takes words; bytes are data, at either port. Data cannot be written. */
  #ports(): IoHandler {
    return {
      read: (_offset, size) => (size === 1 ? this.content.readByte() : 0),
      write: (_offset, size, value) => {
        if (size === 2) this.content.select(value);
      },
    };
  }

  /** The 64-bit address of a request, big-endian; writing its low half starts the transfer. */
  #dmaRegister(): IoHandler {
    return {
      read: (offset, size) => {
        let value = 0;
        for (let at = size - 1; at >= 0; at--) value = value * 256 + (DMA_SIGNATURE[offset + at] ?? 0);
        return value;
      },
      write: (offset, size, value) => {
        if (size !== 4 || this.#dma.active) return;
        if (offset === 0) {
          this.#state.dmaHigh = swap32(value);
          return;
        }
        const address = this.#state.dmaHigh * 2 ** 32 + swap32(value);
        this.#state.dmaHigh = 0;
        this.content.dma(address, this.#memory);
      },
    };
  }
}

/**
 * The machine's fw_cfg, for a device whose guest writes into it.
 *
 * @throws SouthbridgeError ERR_FW_CFG_FILE where the machine has none, or only one that guests cannot write to
 */
export function writableFwCfg(bus: Bus, type: string): FwCfg {
  const found = bus.devices.find(device => device instanceof FwCfgIo);
  if (found?.content.dmaEnabled === true) return found.content;
  throw new SouthbridgeError('ERR_FW_CFG_FILE', `${type} device requires fw_cfg with DMA`);
}

export const fwCfgIo = deviceType({
  type: 'fw_cfg_io',
  summary: 'Firmware configuration: what the firmware and boot loaders ask the machine',
  parents: ['fw_cfg', 'sys-bus-device', 'device'],
  userCreatable: false,
  properties,
  create: FwCfgIo,
});
