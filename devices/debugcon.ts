import { IsaDevice } from '../core/bus/isa.ts';
import type { Chardev } from '../core/char/chardev.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';

const properties = {
  iobase: prop.u32({ default: 0xe9 }),
  readback: prop.u32({ default: 0xe9, help: 'what reading the port gives, so that software can find it' }),
  chardev: prop.backend<Chardev>('chardev', { required: false }),
};

/** A port whose every write is a character of the host's: firmware's debug output. */
class DebugConsole extends IsaDevice<typeof properties> {
  readonly #byte = new Uint8Array(1);

  protected override realize(): void {
    const { iobase, readback } = this.props;
    this.ports(
      iobase,
      1,
      {
        read: () => readback & 0xff,
        write: (_offset, _size, value) => {
          this.#byte[0] = value;
          this.props.chardev?.write(this.#byte);
        },
      },
      { impl: { min: 1, max: 1 }, valid: { min: 1, max: 1 } },
    );
  }
}

export const debugcon = deviceType({
  type: 'isa-debugcon',
  summary: 'Debug console port',
  bus: 'ISA',
  category: 'misc',
  parents: ['isa-device', 'device'],
  properties,
  create: DebugConsole,
});
