import { Bus } from '../device/bus.ts';
import { Device } from '../device/device.ts';
import type { DeviceContext } from '../device/device-type.ts';
import { type PropSet, prop } from '../device/property.ts';
import { SouthbridgeError } from '../errors.ts';

const ANY = 0xffff_ffff;
const MAX_CODECS = 15;

/** The property that places a codec: the line of the link that it drives. */
export const hdaProperties = { cad: prop.u32({ default: ANY }) } as const;

/** The controller, as its codecs reach it. */
export interface HdaController {
  /** @param solicited in answer to a command */
  response(codec: HdaCodec, solicited: boolean, value: number): void;
  /**
   * Moves samples of a running stream to (`output`) or from a codec. False where no stream of the number runs.
   * @param stream number of the stream, 1 to 15
   */
  transfer(stream: number, output: boolean, bytes: Uint8Array): boolean;
}

/** The High Definition Audio link (HD Audio 1.0a, section 5): up to fifteen codecs. */
export class HdaBus extends Bus {
  readonly controller: HdaController;

  constructor(busName: string, controller: HdaController, parts: ConstructorParameters<typeof Bus>[2]) {
    super('HDA', busName, parts);
    this.controller = controller;
  }

  get codecs(): readonly HdaCodec[] {
    return this.devices.filter(device => device instanceof HdaCodec);
  }

  at(address: number): HdaCodec | undefined {
    return this.codecs.find(codec => codec.address === address);
  }

  protected override attached(device: Device): void {
    if (!(device instanceof HdaCodec)) return;
    const used = new Set(this.codecs.filter(codec => codec !== device).map(codec => codec.address));
    const wanted = device.requestedAddress;
    let address = wanted === ANY ? 0 : wanted;
    while (wanted === ANY && used.has(address)) address++;
    if (address >= MAX_CODECS) throw new SouthbridgeError('ERR_BUS_ADDRESS', 'HDA audio codec address is full');
    if (used.has(address))
      throw new SouthbridgeError('ERR_BUS_ADDRESS', `HDA audio codec address ${address} is in use`);
    device.address = address;
  }
}

/** A codec on the link. */
export abstract class HdaCodec<S extends PropSet = PropSet> extends Device<S> {
  address = 0;
  protected readonly link: HdaBus;

  constructor(context: DeviceContext<S>) {
    super(context);
    if (!(context.bus instanceof HdaBus))
      throw new SouthbridgeError('ERR_DEVICE_TYPE', `'${context.type.type}' is a codec; its type must say bus: 'HDA'`);
    this.link = context.bus;
  }

  get requestedAddress(): number {
    const { cad } = this.props as { readonly cad?: number };
    return cad ?? ANY;
  }

  /** A verb for a node of the codec; the answer goes to the controller. */
  abstract command(node: number, verb: number): void;

  /** A stream of the controller's has begun to run, or stopped. */
  abstract streamChanged(stream: number, running: boolean, output: boolean): void;
}
