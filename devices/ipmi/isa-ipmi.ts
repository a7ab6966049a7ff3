import { IsaDevice } from '../../core/bus/isa.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { type PropValues, prop } from '../../core/device/property.ts';
import { type Bmc, bmcLink, type DescribedInterface, type IpmiDescription, namedBmc } from './bmc.ts';
import { Bt, btRegisters, btState } from './bt.ts';
import { Kcs, kcsRegisters, kcsState } from './kcs.ts';

const BYTES = { impl: { min: 1, max: 1 } } as const;
const KCS_PORTS = 2;
const BT_PORTS = 4;
/** Of the four ports that are decoded, those that there are. */
const BT_REGISTERS = 3;

const irq = prop.i32({ default: 5, help: 'ISA interrupt request; 0 for none' });
const kcsProperties = { ...bmcLink, ioport: prop.u32({ default: 0xca2 }), irq } as const;
const btProperties = { ...bmcLink, ioport: prop.u32({ default: 0xe4 }), irq } as const;
type Properties = typeof kcsProperties | typeof btProperties;

/** An IPMI interface at ports of the ISA bus. */
abstract class IsaIpmi<S extends Properties> extends IsaDevice<S> implements DescribedInterface {
  protected readonly interrupt = this.unlistedOutput('irq');

  abstract readonly ipmi: IpmiDescription;

  protected connect({ ioport, irq: line }: PropValues<Properties>, front: Kcs | Bt, ports: number, bmc: Bmc): void {
    this.onUnrealize(bmc.join(front));
    if (line > 0) this.connectIrq(this.interrupt, line);
    this.ports(ioport, ports, front.handler, BYTES);
  }
}

class IsaIpmiKcs extends IsaIpmi<typeof kcsProperties> {
  readonly #bmc = namedBmc(this.props);
  readonly #kcs = new Kcs({
    bmc: this.#bmc,
    bank: this.bank(kcsRegisters),
    state: this.state(1, kcsState),
    irq: this.interrupt,
  });

  get ipmi(): IpmiDescription {
    const { ioport, irq: line } = this.props;
    return { kind: 'kcs', base: ioport, length: KCS_PORTS, slaveAddress: this.#bmc.slaveAddress, irq: line };
  }

  protected override realize(): void {
    this.connect(this.props, this.#kcs, KCS_PORTS, this.#bmc);
  }
}

class IsaIpmiBt extends IsaIpmi<typeof btProperties> {
  readonly #bmc = namedBmc(this.props);
  readonly #bt = new Bt({
    bmc: this.#bmc,
    bank: hooks => this.bank(btRegisters, hooks),
    state: this.state(1, btState),
    irq: this.interrupt,
  });

  get ipmi(): IpmiDescription {
    const { ioport, irq: line } = this.props;
    return { kind: 'bt', base: ioport, length: BT_REGISTERS, slaveAddress: 0, irq: line };
  }

  protected override realize(): void {
    this.connect(this.props, this.#bt, BT_PORTS, this.#bmc);
  }
}

const common = { bus: 'ISA', category: 'misc', parents: ['isa-device', 'device'] } as const;

export const isaIpmiKcs = deviceType({
  type: 'isa-ipmi-kcs',
  summary: 'IPMI interface, keyboard controller style',
  properties: kcsProperties,
  ...common,
  create: IsaIpmiKcs,
});

export const isaIpmiBt = deviceType({
  type: 'isa-ipmi-bt',
  summary: 'IPMI interface, block transfer',
  properties: btProperties,
  ...common,
  create: IsaIpmiBt,
});
