import { I2cBus } from '../../core/bus/i2c.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { CFG } from '../../core/pci/config-space.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { PmSmbus, pmSmbusState } from '../pm-smbus.ts';

/** ICH9 datasheet, section 20.1: host configuration. */
const HOSTC = 0x40;
const HOSTC_HST_EN = 1 << 0;
const HOSTC_SSRESET = 1 << 3;
const HOSTC_DEFINED = 0x0f;
const BASE_BAR = 4;
/** QEMU's decodes twice what section 5.21 has registers for. */
const IO_SIZE = 64;

/** The SMBus controller of ICH9. */
export class Ich9Smbus extends PciDevice {
  readonly smbus = this.addBus(new I2cBus('i2c', { services: this.services, home: this.pciBus.home, owner: this }));
  readonly #host = new PmSmbus(this.state(1, pmSmbusState, { name: 'smbus' }), this.smbus, this.irq);

  protected override realize(): void {
    const { config } = this;
    config.set16(CFG.STATUS, 0);
    config.set8(HOSTC, 0);
    config.writable[HOSTC] = HOSTC_DEFINED;
    this.bar(
      BASE_BAR,
      MemoryRegion.io(
        'ich9-smbus',
        IO_SIZE,
        {
          read: offset => (this.#enabled ? this.#host.read(offset) : 0xff),
          write: (offset, size, value) => {
            if (this.#enabled) this.#host.write(offset, size, value);
          },
        },
        { impl: { min: 1, max: 1 } },
      ),
      { size: IO_SIZE, space: 'io' },
    );
  }

  get #enabled(): boolean {
    return (this.config.get8(HOSTC) & HOSTC_HST_EN) !== 0;
  }

  /** SSRESET resets the host controller and clears itself (20.1.17). */
  protected override configWritten(): void {
    const hostc = this.config.get8(HOSTC);
    if ((hostc & HOSTC_SSRESET) === 0) return;
    this.config.set8(HOSTC, hostc & ~HOSTC_SSRESET);
    this.#host.reset();
  }

  protected override resetHold(): void {
    this.config.set8(HOSTC, 0);
  }
}

export const ich9Smbus = deviceType({
  type: 'ICH9-SMB',
  summary: 'ICH9 SMBUS Bridge',
  parents: ['pci-device', 'device'],
  category: 'bridge',
  userCreatable: false,
  hotpluggable: false,
  pci: { vendor: 0x8086, device: 0x2930, revision: 2, class: 0x0c0500, pin: 'A' },
  create: Ich9Smbus,
});
