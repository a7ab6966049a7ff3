/**
 * The virtual machine generation id (Microsoft, "Virtual Machine Generation ID"; QEMU docs/specs/vmgenid). The firmware
 * places a page with the GUID in memory and tells where; a machine that comes back from a snapshot finds another GUID there.
 */

import { Device } from '../core/device/device.ts';
import { type DeviceContext, deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { SystemBus } from '../core/device/system-bus.ts';
import { SouthbridgeError } from '../core/errors.ts';
import { uuidBytes } from '../core/firmware/aml.ts';
import type { FwCfg } from '../core/firmware/fw-cfg.ts';
import { VMGENID_ADDR_FILE, VMGENID_GUID_FILE, vmGenIdPage } from '../core/firmware/vmgenid.ts';
import { Dma } from '../core/memory/dma.ts';
import { field } from '../core/state/fields.ts';

const properties = {
  guid: prop.uuid({ default: 'auto' }),
} as const;

/** A random UUID (RFC 4122, version 4). */
function randomUuid(random: () => number): string {
  const bytes = Buffer.from(Array.from({ length: 16 }, () => Math.floor(random() * 256)));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

export class VmGenId extends Device<typeof properties> {
  /** The id, as management tools see it. */
  readonly guid: string;
  /** Pulses when the id changed under a running guest: general purpose event 5. */
  readonly changed = this.unlistedOutput('changed');
  readonly #state = this.state(1, { addressLow: field.u32(), addressHigh: field.u32() });
  /** The file in which the firmware writes where it placed the page. */
  readonly #addressFile = new Uint8Array(8);
  readonly #addressView = new DataView(this.#addressFile.buffer);
  readonly #update = this.clock.timer('update', () => this.#updateGuest());
  readonly #dma: Dma;

  constructor(context: DeviceContext<typeof properties>) {
    super(context);
    if (!(context.bus instanceof SystemBus)) {
      throw new SouthbridgeError('ERR_DEVICE_TYPE', `'${context.type.type}' goes onto the system bus`);
    }
    this.#dma = new Dma(context.bus.dmaSpace);
    const { guid } = this.props;
    this.guid = guid === 'auto' ? randomUuid(context.services.random) : guid;
    this.defineProperty({ name: 'guid', type: 'str', get: () => this.guid });
  }

  /** Offers the two files to the firmware. */
  addFiles(fwCfg: FwCfg): void {
    fwCfg.addFile(VMGENID_GUID_FILE, vmGenIdPage(this.guid));
    fwCfg.addFile(VMGENID_ADDR_FILE, this.#addressFile, { written: () => this.#addressWritten() });
  }

  protected override resetHold(): void {
    this.#addressFile.fill(0);
  }

  protected override restored(): void {
    this.#addressView.setUint32(0, this.#state.addressLow, true);
    this.#addressView.setUint32(4, this.#state.addressHigh, true);
    if (this.#state.addressLow !== 0) this.#update.arm(0);
  }

  #addressWritten(): void {
    this.#state.addressLow = this.#addressView.getUint32(0, true);
    this.#state.addressHigh = this.#addressView.getUint32(4, true);
  }

  /** The firmware's page lies below 4 GiB; zero says that it has not placed it. */
  #updateGuest(): void {
    const address = this.#state.addressLow;
    if (address !== 0 && this.#dma.write(address, uuidBytes(this.guid))) this.changed.pulse();
  }
}

export const vmgenid = deviceType({
  type: 'vmgenid',
  summary: 'Virtual machine generation id: tells a guest that it came back from a snapshot',
  properties,
  hotpluggable: false,
  create: VmGenId,
});
