import type { BlockDriver, OpenContext } from './driver.ts';
import { BlockError } from './io-error.ts';
import type { IoVector } from './io-vector.ts';
import { BlockNode } from './node.ts';
import type { BlockOptions } from './options.ts';
import type { Pending } from './pending.ts';
import type { BlockStatus } from './requests.ts';

const DEFAULT_SIZE = 2 ** 30;

interface NullOptions {
  /** In bytes. */
  readonly size: number | undefined;
  readonly latencyNs: number | undefined;
  readonly readZeroes: boolean | undefined;
}

/** A disk that forgets all that is written to it: for measuring what is above. */
class NullNode extends BlockNode {
  readonly #size: number;
  readonly #latencyMs: number;
  readonly #readZeroes: boolean;
  readonly #identity: { readonly [option: string]: number | boolean };

  constructor(context: OpenContext, options: NullOptions) {
    super(context.graph, context.driver, context.settings);
    const { size, readZeroes, latencyNs = 0 } = options;
    this.#size = Math.floor((size ?? DEFAULT_SIZE) / 512) * 512;
    this.#latencyMs = latencyNs / 1e6;
    this.#readZeroes = readZeroes ?? false;
    this.#identity = {
      ...(size !== undefined && { size }),
      ...(readZeroes !== undefined && { 'read-zeroes': readZeroes }),
    };
    // What shows something else than the plain name does has to say so.
    this.filename = Object.keys(this.#identity).length === 0 ? `${context.driver.name}://` : '';
  }

  override get identity(): { readonly [option: string]: number | boolean } {
    return this.#identity;
  }

  override get length(): number {
    return this.#size;
  }

  #delay(): Pending {
    if (this.#latencyMs === 0) return undefined;
    return new Promise(resolve => {
      setTimeout(resolve, this.#latencyMs);
    });
  }

  protected override pread(_offset: number, bytes: number, iov: IoVector, at: number): Pending {
    if (this.#readZeroes) iov.fill(at, bytes, 0);
    return this.#delay();
  }

  protected override pwrite(): Pending {
    return this.#delay();
  }

  protected override pwriteZeroes(): Pending {
    return this.#delay();
  }

  protected override flushToDisk(): Pending {
    return this.#delay();
  }

  protected override pstatus(_offset: number, bytes: number): BlockStatus {
    return { bytes, allocated: true, data: !this.#readZeroes, zero: this.#readZeroes };
  }
}

function nullDriver(name: string): BlockDriver {
  const driver: BlockDriver = {
    name,
    kind: 'protocol',
    schemes: [name],
    parseFilename(filename: string, _options: BlockOptions) {
      if (filename !== `${name}://`) throw new BlockError(`The only allowed filename for this driver is '${name}://'`);
    },
    async open(context: OpenContext) {
      const { options } = context;
      return new NullNode(context, {
        size: options.bytes('size'),
        latencyNs: options.number('latency-ns'),
        readZeroes: options.bool('read-zeroes'),
      });
    },
  };
  return driver;
}

export const nullCoDriver = nullDriver('null-co');
export const nullAioDriver = nullDriver('null-aio');
