import { crc32 } from 'node:zlib';
import type { Machine } from '../../machine/machine.ts';
import type { GuestRam } from '../../memory/guest-ram.ts';
import type { Value } from '../qapi/declare.ts';
import { QmpError } from '../qapi/error.ts';
import type { DirtyRateInfo } from '../qapi/schema/dirty-rate.ts';

type Info = Value<typeof DirtyRateInfo>;

const PAGE = 4096;
const MIB = 2 ** 20;
const GIB = 2 ** 30;
const SECONDS = { min: 1, max: 60 } as const;
/** Per GiB. */
const SAMPLES = { min: 128, max: 16_384, default: 512 } as const;
/** Smaller stretches of RAM say little. */
const MIN_RAM = 128 * 1024;

interface Sample {
  readonly ram: GuestRam;
  readonly offset: number;
  readonly checksum: number;
}

/** How fast the guest writes its memory, from the checksums of some pages before and after. */
export class DirtyRate {
  readonly #machine: Machine;
  #status: Info['status'] = 'unstarted';
  #startTime = 0;
  #seconds = 0;
  #samplesPerGib: number = SAMPLES.default;
  #rate = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  /** `query-dirty-rate`. */
  get info(): Info {
    return {
      status: this.#status,
      'start-time': this.#startTime,
      'calc-time': this.#seconds,
      'sample-pages': this.#samplesPerGib,
      mode: 'page-sampling',
      ...(this.#status === 'measured' && { 'dirty-rate': this.#rate }),
    };
  }

  /**
   * `calc-dirty-rate`: measures for `seconds`.
   * @throws QmpError in QEMU's words
   */
  start(seconds: number, mode: Info['mode'] = 'page-sampling', samplesPerGib?: number): void {
    if (this.#status === 'measuring') throw new QmpError('the dirty rate is already being measured.');
    if (seconds < SECONDS.min || seconds > SECONDS.max)
      throw new QmpError(`calc-time is out of range[${SECONDS.min}, ${SECONDS.max}].`);
    if (samplesPerGib !== undefined && mode === 'dirty-ring')
      throw new QmpError('either sample-pages or dirty-ring can be specified.');
    if (samplesPerGib !== undefined && (samplesPerGib < SAMPLES.min || samplesPerGib > SAMPLES.max))
      throw new QmpError(`sample-pages is out of range[${SAMPLES.min}, ${SAMPLES.max}].`);
    if (mode !== 'page-sampling') throw new QmpError(`mode ${mode} is not enabled, use other method instead.`);
    this.#status = 'measuring';
    this.#seconds = seconds;
    this.#samplesPerGib = samplesPerGib ?? SAMPLES.default;
    [this.#startTime] = process.hrtime();
    const before = performance.now();
    const samples = this.#sample();
    this.#timer = setTimeout(() => this.#finish(samples, performance.now() - before), 1000 * seconds);
    this.#timer.unref();
  }

  dispose(): void {
    clearTimeout(this.#timer);
  }

  get #blocks(): readonly GuestRam[] {
    return this.#machine.ram.filter(ram => ram.size >= MIN_RAM && !ram.readonly);
  }

  #sample(): Sample[] {
    return this.#blocks.flatMap(ram => {
      const count = Math.floor((ram.size * this.#samplesPerGib) / GIB);
      return Array.from({ length: count }, () => {
        const offset = PAGE * Math.floor(Math.random() * (ram.size / PAGE));
        return { ram, offset, checksum: checksum(ram, offset) };
      });
    });
  }

  #finish(samples: readonly Sample[], ms: number): void {
    const dirty = samples.filter(({ ram, offset, checksum: before }) => checksum(ram, offset) !== before).length;
    const mib = this.#blocks.reduce((sum, ram) => sum + ram.size / MIB, 0);
    this.#rate = samples.length === 0 ? 0 : Math.floor((dirty * mib * 1000) / (samples.length * ms));
    this.#status = 'measured';
  }
}

function checksum({ bytes }: GuestRam, offset: number): number {
  return crc32(bytes.slice(offset, offset + PAGE));
}
