import { IsaBus } from '../../core/bus/isa.ts';
import { type DeviceContext, deviceType } from '../../core/device/device-type.ts';
import type { IrqLine } from '../../core/irq/line.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { CFG, STATUS } from '../../core/pci/config-space.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { BusMaster, busMasterState } from './bus-master.ts';
import { AtaChannel, channelState } from './channel.ts';
import { busNames, IdeBus } from './ide-bus.ts';
import { unitState } from './unit.ts';

/** Where the two channels are in compatibility mode (PCI IDE Controller Specification 1.0, section 2.1). */
const LEGACY = [
  { command: 0x1f0, control: 0x3f6, irq: 14 },
  { command: 0x170, control: 0x376, irq: 15 },
] as const;
const COMMAND_BLOCK_SIZE = 8;
const BUS_MASTER_BAR = 4;
const BUS_MASTER_SIZE = 16;
const CHANNEL_SIZE = 8;
/** Bus Master Interface Base Address: all but the low bits are cleared on reset (82371SB datasheet, section 2.3.9). */
const BMIBA = 0x20;

interface Channel {
  readonly bus: IdeBus;
  readonly master: BusMaster;
  readonly interrupt: IrqLine;
}

/** The IDE function of PIIX3 and PIIX4: two channels at the addresses of the AT, with bus masters. */
export class PiixIde extends PciDevice {
  readonly #channels: readonly Channel[];

  constructor(context: DeviceContext) {
    super(context);
    const names = busNames(this, this.id);
    this.#channels = LEGACY.map((_, number) => this.#makeChannel(number, names(number)));
    this.bar(
      BUS_MASTER_BAR,
      this.shielded({
        read: (offset, size) => this.#master(offset).registers.read(offset % CHANNEL_SIZE, size),
        write: (offset, size, value) => this.#master(offset).registers.write(offset % CHANNEL_SIZE, size, value),
      }),
      { size: BUS_MASTER_SIZE, space: 'io' },
    );
  }

  get ideBuses(): readonly IdeBus[] {
    return this.#channels.map(({ bus }) => bus);
  }

  #makeChannel(number: number, busName: string): Channel {
    const name = `channel${number}`;
    const keep = { onReset: 'keep' } as const;
    const interrupt = this.unlistedOutput(name);
    const master = new BusMaster(this.dma, this.state(1, busMasterState, { name: `${name}.bmdma`, ...keep }));
    const channel = new AtaChannel({
      transport: master,
      dma: this.dma,
      state: this.state(1, channelState, { name, ...keep }),
      units: [
        this.state(1, unitState, { name: `${name}.0`, ...keep }),
        this.state(1, unitState, { name: `${name}.1`, ...keep }),
      ],
      irq: level => {
        if (level) master.interrupt();
        interrupt.set(level);
      },
    });
    master.serve(channel);
    const parts = { services: this.services, home: this.pciBus.home, owner: this, channel, units: 2, number } as const;
    return { bus: this.addBus(new IdeBus(busName, parts)), master, interrupt };
  }

  #master(offset: number): BusMaster {
    const channel = this.#channels[offset < CHANNEL_SIZE ? 0 : 1];
    if (channel === undefined) throw new RangeError('there are two channels');
    return channel.master;
  }

  protected override realize(): void {
    const { io } = this.pciBus;
    const isa = this.#isaBus();
    this.#channels.forEach(({ bus: { channel }, interrupt }, number) => {
      const place = LEGACY[number === 0 ? 0 : 1];
      const regions: readonly (readonly [number, MemoryRegion])[] = [
        [place.command, MemoryRegion.io('ide', COMMAND_BLOCK_SIZE, this.shielded(channel.commandBlock))],
        [place.control, MemoryRegion.io('ide', 1, this.shielded(channel.controlPort))],
      ];
      for (const [at, region] of regions) {
        io.add(region, at, 0);
        this.onUnrealize(() => io.remove(region));
      }
      const input = isa?.irq(place.irq, `${this.typeName}.${number}`);
      if (input !== undefined) interrupt.connect(level => input.set(level));
    });
  }

  /** The interrupts of compatibility mode are ISA's, whichever function has that bus. */
  #isaBus(): IsaBus | undefined {
    for (const { buses } of this.pciBus.functions) {
      const isa = buses.find(bus => bus instanceof IsaBus);
      if (isa instanceof IsaBus) return isa;
    }
    return undefined;
  }

  protected override resetHold(): void {
    this.config.set16(CFG.STATUS, STATUS.DEVSEL_MEDIUM | STATUS.FAST_BACK);
    this.config.set32(BMIBA, 1);
    for (const { bus } of this.#channels) bus.channel.reset();
  }
}

const common = {
  category: 'storage',
  hotpluggable: false,
  parents: ['pci-ide', 'pci-device', 'device'],
  summary: 'IDE controller',
  create: PiixIde,
} as const;

export const piix3Ide = deviceType({
  ...common,
  type: 'piix3-ide',
  pci: { vendor: 0x8086, device: 0x7010, class: 0x010180 },
});
export const piix4Ide = deviceType({
  ...common,
  type: 'piix4-ide',
  pci: { vendor: 0x8086, device: 0x7111, class: 0x010180 },
});
