import { IsaDevice } from '../../core/bus/isa.ts';
import { type DeviceContext, deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { AtaChannel, channelState } from './channel.ts';
import { IdeBus } from './ide-bus.ts';
import type { AtaTransport } from './transport.ts';
import { unitState } from './unit.ts';

const properties = {
  iobase: prop.u32({ default: 0x1f0 }),
  iobase2: prop.u32({ default: 0x3f6 }),
  irq: prop.u32({ default: 14 }),
} as const;

const COMMAND_BLOCK_SIZE = 8;

/** A cable without a bus master: DMA commands wait for one that never comes. */
const WITHOUT_DMA: AtaTransport = {
  startDma() {},
  prepare: () => 0,
  commit() {},
  copyOut: () => false,
  setInactive() {},
  commandDone() {},
  restartDma() {},
  restart() {},
  reset() {},
};

/** One channel on the ISA bus, as on the AT's disk adapters. */
export class IsaIde extends IsaDevice<typeof properties> {
  readonly #interrupt = this.unlistedOutput('irq');
  readonly ideBus: IdeBus;

  constructor(context: DeviceContext<typeof properties>) {
    super(context);
    const keep = { onReset: 'keep' } as const;
    const channel = new AtaChannel({
      transport: WITHOUT_DMA,
      dma: this.dma,
      state: this.state(1, channelState, { name: 'channel', ...keep }),
      units: [
        this.state(1, unitState, { name: 'unit0', ...keep }),
        this.state(1, unitState, { name: 'unit1', ...keep }),
      ],
      irq: level => this.#interrupt.set(level),
    });
    const parts = {
      services: this.services,
      home: this.isaBus.home,
      owner: this,
      channel,
      units: 2,
      number: 0,
    } as const;
    this.ideBus = this.addBus(new IdeBus(`${this.id ?? 'ide'}.0`, parts));
  }

  protected override realize(): void {
    const { iobase, iobase2, irq } = this.props;
    const { channel } = this.ideBus;
    this.ports(iobase, COMMAND_BLOCK_SIZE, channel.commandBlock, undefined, 'ide');
    this.ports(iobase2, 1, channel.controlPort, undefined, 'ide');
    this.connectIrq(this.#interrupt, irq);
  }

  protected override resetHold(): void {
    this.ideBus.channel.reset();
  }
}

export const isaIde = deviceType({
  type: 'isa-ide',
  summary: 'ISA IDE channel',
  bus: 'ISA',
  category: 'storage',
  parents: ['isa-device', 'device'],
  properties,
  create: IsaIde,
});
