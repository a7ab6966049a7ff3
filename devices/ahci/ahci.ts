import { type DeviceContext, deviceType } from '../../core/device/device-type.ts';
import type { IoHandler } from '../../core/memory/memory-region.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { field } from '../../core/state/fields.ts';
import { channelState } from '../ide/channel.ts';
import { busNames, IdeBus } from '../ide/ide-bus.ts';
import { unitState } from '../ide/unit.ts';
import { AhciPort, portState } from './port.ts';
import { queueState } from './queue.ts';
import { capabilities, GHC, HBA, PORT_SIZE, PORTS_AT, VERSION } from './registers.ts';

const PORT_COUNT = 6;
const MEMORY_BAR = 5;
const MEMORY_SIZE = 4096;
/** Index and data registers, a second way to the memory registers (AHCI 1.3.1, section 2.4.1.1). */
const INDEX_BAR = 4;
const INDEX_SIZE = 32;
const INDEX_AT = 0x10;
const DATA_AT = 0x14;
/** In configuration space (82801IR datasheet, section 15.1): MSI first in the list, then the SATA capability. */
const CAPABILITIES = 0x34;
const MSI_AT = 0x80;
const ADDRESS_MAP = 0x90;
const ADDRESS_MAP_AHCI = 0x40;
const SATA_AT = 0xa8;
const SATA_ID = 0x12;
const SATA_SIZE = 8;
const SATA_REVISION = 0x10;

/** The SATA controller of the ICH9 in AHCI mode: six ports. */
export class Ich9Ahci extends PciDevice {
  readonly #s = this.state(
    1,
    { ghc: field.u32(GHC.AHCI), IS: field.u32(), index: field.u32() },
    { name: 'hba', onReset: 'keep' },
  );
  readonly #ports: readonly AhciPort[];
  readonly ideBuses: readonly IdeBus[];

  constructor(context: DeviceContext) {
    super(context);
    this.#ports = Array.from({ length: PORT_COUNT }, (_, number) => this.#makePort(number));
    const names = busNames(this, this.id);
    this.ideBuses = this.#ports.map(({ channel }, number) =>
      this.addBus(
        new IdeBus(names(number), {
          services: this.services,
          home: this.pciBus.home,
          owner: this,
          channel,
          units: 1,
          number,
        }),
      ),
    );
    this.bar(MEMORY_BAR, this.shielded(this.#registers), { size: MEMORY_SIZE });
    this.bar(INDEX_BAR, this.shielded(this.#indexed), { size: INDEX_SIZE, space: 'io' });
    const { config } = this;
    config.set8(ADDRESS_MAP, ADDRESS_MAP_AHCI);
    config.addCapability(SATA_ID, SATA_SIZE, SATA_AT);
    config.set16(SATA_AT + 2, SATA_REVISION);
    config.set32(SATA_AT + 4, (INDEX_BAR + 4) | ((INDEX_AT / 4) << 4));
    config.set8(CAPABILITIES, MSI_AT);
    config.set8(MSI_AT + 1, SATA_AT);
    config.set8(SATA_AT + 1, 0);
  }

  #makePort(number: number): AhciPort {
    const name = `port${number}`;
    const keep = { onReset: 'keep' } as const;
    return new AhciPort({
      dma: this.dma,
      state: this.state(1, portState, { name, ...keep }),
      channel: this.state(1, channelState, { name: `${name}.channel`, ...keep }),
      units: [
        this.state(1, unitState, { name: `${name}.0`, ...keep }),
        this.state(1, unitState, { name: `${name}.1`, ...keep }),
      ],
      queue: this.state(1, queueState, { name: `${name}.queue`, ...keep }),
      interruptsChanged: () => this.#updateInterrupt(),
    });
  }

  // Memory registers (section 3)

  readonly #registers: IoHandler = {
    read: (offset, size) => this.#read(offset, size),
    write: (offset, _size, value) => this.#write(offset, value >>> 0),
  };

  /** Reads need not be aligned. */
  #read(offset: number, size: number): number {
    const within = offset & 3;
    let value = this.#readRegister(offset - within) >>> (8 * within);
    if (within + size > 4) value |= this.#readRegister(offset - within + 4) << (8 * (4 - within));
    return lowest(value, size);
  }

  #readRegister(offset: number): number {
    if (offset >= PORTS_AT) return this.#port(offset)?.read(offset % PORT_SIZE) ?? 0;
    switch (offset) {
      case HBA.CAP:
        return capabilities(PORT_COUNT);
      case HBA.GHC:
        return this.#s.ghc;
      case HBA.IS:
        return this.#s.IS;
      case HBA.PI:
        return 2 ** PORT_COUNT - 1;
      case HBA.VS:
        return VERSION;
      default:
        return 0;
    }
  }

  #port(offset: number): AhciPort | undefined {
    return this.#ports[Math.floor((offset - PORTS_AT) / PORT_SIZE)];
  }

  #write(offset: number, value: number): void {
    if ((offset & 3) !== 0) {
      this.log.guestError(`write to 0x${offset.toString(16)}, which is not aligned`);
    } else if (offset >= PORTS_AT) {
      this.#port(offset)?.write(offset % PORT_SIZE, value);
    } else if (offset === HBA.GHC) {
      if ((value & GHC.RESET) !== 0) this.#resetHba();
      else this.#s.ghc = ((value & GHC.WRITABLE) | GHC.AHCI) >>> 0;
      this.#updateInterrupt();
    } else if (offset === HBA.IS) {
      this.#s.IS = (this.#s.IS & ~value) >>> 0;
      this.#updateInterrupt();
    }
  }

  readonly #indexed: IoHandler = {
    read: (offset, size) =>
      offset === INDEX_AT ? lowest(this.#s.index, size) : offset === DATA_AT ? this.#read(this.#s.index, size) : 0,
    write: (offset, _size, value) => {
      if (offset === INDEX_AT) this.#s.index = value & (MEMORY_SIZE - 1) & ~3;
      else if (offset === DATA_AT) this.#write(this.#s.index, value >>> 0);
    },
  };

  /** IS follows the ports; a message is sent at each occasion, INTx is a level (section 10.7). */
  #updateInterrupt(): void {
    let pending = 0;
    this.#ports.forEach(({ s }, number) => {
      if ((s.IS & s.IE) !== 0) pending |= 1 << number;
    });
    this.#s.IS = pending;
    const active = pending !== 0 && (this.#s.ghc & GHC.INTERRUPTS) !== 0;
    if (!this.messageSignalled) this.irq.set(active);
    else if (active) this.notify(0);
  }

  /** Section 10.4.3. */
  #resetHba(): void {
    this.#s.IS = 0;
    this.#s.ghc = GHC.AHCI;
    for (const port of this.#ports) port.resetHba();
  }

  protected override resetHold(): void {
    this.#s.index = 0;
    this.#s.IS = 0;
    this.#s.ghc = GHC.AHCI;
    for (const port of this.#ports) port.powerOn();
  }

  protected override restored(): void {
    for (const port of this.#ports) port.restored();
  }
}

/** The low `size` bytes of a register. */
const lowest = (value: number, size: number): number =>
  (size === 4 ? value : value & (size === 2 ? 0xffff : 0xff)) >>> 0;

export const ich9Ahci = deviceType({
  type: 'ich9-ahci',
  aliases: ['ahci'],
  summary: 'AHCI controller of the ICH9',
  category: 'storage',
  pci: {
    vendor: 0x8086,
    device: 0x2922,
    revision: 0x02,
    class: 0x010601,
    pin: 'A',
    msi: { vectors: 1, offset: MSI_AT },
  },
  create: Ich9Ahci,
});
