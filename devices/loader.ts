/** What puts values, files and program counters in place before the guest runs (QEMU docs/system/generic-loader). */
import { Device } from '../core/device/device.ts';
import { type DeviceContext, deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { SystemBus } from '../core/device/system-bus.ts';
import { SouthbridgeError } from '../core/errors.ts';
import { parseElf } from '../core/loader/elf.ts';
import { type Segment, segment } from '../core/loader/image.ts';
import { parseIntelHex } from '../core/loader/intel-hex.ts';
import { parseUImage } from '../core/loader/uimage.ts';
import { Dma } from '../core/memory/dma.ts';

/** `cpu-num` of a loader that leaves all CPUs alone. */
const NO_CPU = 0xffff_ffff;
const MAX_DATA = 8;

const properties = {
  addr: prop.u64({ default: 0n }),
  data: prop.u64({ default: 0n }),
  'data-len': prop.u8({ default: 0 }),
  'data-be': prop.bool({ default: false }),
  'cpu-num': prop.u32({ default: NO_CPU }),
  'force-raw': prop.bool({ default: false }),
  file: prop.string(),
};

interface Program {
  readonly segments: readonly Segment[];
  /** Where it begins, as the file says. */
  readonly entry: number;
}

class GenericLoader extends Device<typeof properties> {
  readonly #dma: Dma;

  constructor(context: DeviceContext<typeof properties>) {
    super(context);
    if (!(context.bus instanceof SystemBus))
      throw new SouthbridgeError('ERR_DEVICE_TYPE', `'${context.type.type}' goes onto the system bus`);
    this.#dma = new Dma(context.bus.dmaSpace);
  }

  protected override realize(): void {
    const { boot } = this.services;
    const { file, 'cpu-num': cpu } = this.props;
    this.#check();
    if (cpu !== NO_CPU && !boot.hasCpu(cpu))
      throw new SouthbridgeError('ERR_LOADER', `Specified boot CPU#${cpu | 0} is nonexistent`);
    let start = this.props.addr;
    if (file !== undefined) {
      const program = this.#load(file);
      start = BigInt(program.entry);
      this.onUnrealize(boot.images.add(file, program.segments));
    }
    const data = this.#data();
    const address = Number(this.props.addr);
    this.onUnrealize(
      boot.onReset(() => {
        if (cpu !== NO_CPU && data === undefined) boot.setProgramCounter(cpu, start);
        if (data !== undefined) this.#dma.write(address, data);
      }),
    );
  }

  /** Values, a file or a program counter: one of them. @throws SouthbridgeError ERR_LOADER with QEMU's words */
  #check(): void {
    const { addr, data, 'data-len': length, 'data-be': bigEndian, 'cpu-num': cpu } = this.props;
    const { file, 'force-raw': raw } = this.props;
    const refuse = (message: string): SouthbridgeError => new SouthbridgeError('ERR_LOADER', message);
    if (data !== 0n || length !== 0 || bigEndian) {
      if (file !== undefined) throw refuse('Specifying a file is not supported when loading memory values');
      if (raw) throw refuse('Specifying force-raw is not supported when loading memory values');
      if (length === 0) throw refuse('Both data and data-len must be specified');
      if (length > MAX_DATA) throw refuse('data-len cannot be greater then 8 bytes');
    } else if (file === undefined && !raw) {
      if (addr === 0n) throw refuse('please include valid arguments');
      if (cpu === NO_CPU) throw refuse('cpu_num must be specified when setting a program counter');
    }
  }

  /** The first `data-len` bytes of the value, in the order in which memory gets them. */
  #data(): Uint8Array | undefined {
    const { data, 'data-len': length, 'data-be': bigEndian } = this.props;
    if (length === 0) return undefined;
    const bytes = Buffer.alloc(MAX_DATA);
    if (bigEndian) bytes.writeBigUInt64BE(data);
    else bytes.writeBigUInt64LE(data);
    return bytes.subarray(0, length);
  }

  /** By what the file says it is: ELF, U-Boot's image, Intel's hexadecimal records; else its bytes as they are. */
  #load(file: string): Program {
    const { ramSize } = this.services;
    const bytes = this.#read(file);
    const raw = (): Program => ({
      segments: [segment(Number(this.props.addr), bytes)],
      entry: Number(this.props.addr),
    });
    const program = this.props['force-raw']
      ? raw()
      : (elfProgram(bytes) ?? parseUImage(bytes) ?? parseIntelHex(bytes) ?? raw());
    if (program.segments.some(({ size }) => size > ramSize)) throw cannotLoad(file);
    return program;
  }

  #read(file: string): Uint8Array {
    try {
      return this.services.romImage(file);
    } catch (error) {
      throw cannotLoad(file, error);
    }
  }
}

/** Undefined where QEMU, too, would take the file for something else. */
function elfProgram(bytes: Uint8Array): Program | undefined {
  try {
    const { segments, physicalEntry } = parseElf(bytes, 'any');
    return { segments, entry: physicalEntry };
  } catch {
    return undefined;
  }
}

const cannotLoad = (file: string, cause?: unknown): SouthbridgeError =>
  new SouthbridgeError('ERR_LOADER', `Cannot load specified image ${file}`, 'it is not there, or larger than the RAM', {
    cause,
  });

export const loader = deviceType({
  type: 'loader',
  summary: 'Generic Loader',
  category: 'misc',
  parents: ['device'],
  properties,
  hotpluggable: false,
  create: GenericLoader,
});
