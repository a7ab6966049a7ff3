import type { DeviceContext } from '../../core/device/device-type.ts';
import { deviceType } from '../../core/device/device-type.ts';
import type { IrqLine } from '../../core/irq/line.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { CFG } from '../../core/pci/config-space.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { BusMaster, busMasterRegisters } from './bus-master.ts';
import { channelState, IdeChannel } from './channel.ts';
import type { IdeDrive } from './drive.ts';
import type { IdeHost } from './host.ts';
import { IdeBus } from './ide-bus.ts';

/** Command block, control port and interrupt of the two legacy channels. */
const LEGACY = [
  { command: 0x1f0, control: 0x3f6 },
  { command: 0x170, control: 0x376 },
] as const;
const BUS_MASTER_BAR = 4;
const BUS_MASTER_SIZE = 16;
const CHANNEL_SIZE = 8;

/** The IDE function of the 82371SB (PIIX3): two legacy channels with bus masters. */
export class Piix3Ide extends PciDevice {
  readonly interrupts: readonly IrqLine[] = [this.output('irq', 'primary'), this.output('irq', 'secondary')];
  readonly ideBuses: readonly IdeBus[];
  readonly #channels: readonly IdeChannel[];
  readonly #masters: readonly BusMaster[];

  constructor(context: DeviceContext) {
    super(context);
    this.#masters = LEGACY.map(() => new BusMaster(this.dma));
    const banks = this.#masters.map(master => {
      const bank = this.bank(busMasterRegisters, master.hooks);
      master.bind(bank.regs);
      return bank;
    });
    this.ideBuses = LEGACY.map((_, number) =>
      this.addBus(
        new IdeBus(`ide.${number}`, {
          services: this.services,
          home: context.bus.home,
          owner: this,
          host: this.#host(number),
          units: 2,
          number,
        }),
      ),
    );
    this.#channels = this.ideBuses.map(
      (bus, number) => new IdeChannel(bus, this.state(1, channelState, { name: `channel${number}` })),
    );
    this.bar(
      BUS_MASTER_BAR,
      {
        read: (offset, size) => (offset < CHANNEL_SIZE ? banks[0] : banks[1])?.read(offset % CHANNEL_SIZE, size) ?? 0,
        write: (offset, size, value) =>
          (offset < CHANNEL_SIZE ? banks[0] : banks[1])?.write(offset % CHANNEL_SIZE, size, value),
      },
      { size: BUS_MASTER_SIZE, space: 'io' },
    );
  }

  protected override realize(): void {
    // Compatibility mode: the channels answer at the AT's addresses.
    const io = this.pciBus.io;
    for (const [number, { command, control }] of LEGACY.entries()) {
      const channel = this.#channels[number];
      if (channel === undefined) continue;
      const regions: [number, MemoryRegion][] = [
        [command, MemoryRegion.io(`ide${number}`, 8, channel.commandBlock, { impl: { min: 1, max: 4 } })],
        [control, MemoryRegion.io(`ide${number}-control`, 1, channel.controlPort)],
      ];
      for (const [at, region] of regions) {
        io.add(region, at, 0);
        this.onUnrealize(() => io.remove(region));
      }
    }
  }

  protected override resetHold(): void {
    const { config } = this;
    config.set16(CFG.STATUS, 0x0280);
    config.set8(0x20, 0x01);
    for (const channel of this.#channels) channel.reset();
    for (const master of this.#masters) master.reset();
  }

  #host(number: number): IdeHost {
    return {
      dma: this.#masters[number],
      setIrq: (drive: IdeDrive, level: boolean) => this.#setIrq(number, drive, level),
      pioPhase: () => false,
      commandDone: () => {},
    };
  }

  #setIrq(number: number, drive: IdeDrive, level: boolean): void {
    const channel = this.#channels[number];
    const line = this.interrupts[number];
    if (level && (channel === undefined || channel.selected !== drive || !channel.interruptsEnabled)) return;
    if (level) this.#masters[number]?.interrupt();
    line?.set(level);
  }
}

export const piix3Ide = deviceType({
  type: 'piix3-ide',
  summary: 'IDE controller of the PIIX3',
  category: 'storage',
  userCreatable: false,
  hotpluggable: false,
  parents: ['pci-ide', 'pci-device', 'device'],
  pci: { vendor: 0x8086, device: 0x7010, class: 0x010180 },
  create: Piix3Ide,
});
