import { IsaDevice } from '../core/bus/isa.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';

const properties = { iobase: prop.u32({ default: 0x501 }), iosize: prop.u32({ default: 0x02 }) };

/** Ends the machine with an exit status of the guest's choice: twice the value written, plus one. */
class DebugExit extends IsaDevice<typeof properties> {
  protected override realize(): void {
    this.ports(
      this.props.iobase,
      this.props.iosize,
      {
        read: () => 0,
        write: (_offset, _size, value) =>
          this.services.system.requestShutdown('guest-shutdown', ((value << 1) | 1) & 0xff),
      },
      { impl: { min: 1, max: 4 } },
    );
  }
}

export const isaDebugExit = deviceType({
  type: 'isa-debug-exit',
  summary: 'Lets the guest end the machine with an exit status',
  bus: 'ISA',
  parents: ['isa-device', 'device'],
  properties,
  create: DebugExit,
});
