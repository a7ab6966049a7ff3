import type { BlockDriver, OpenContext } from './driver.ts';
import { BlockError } from './io-error.ts';
import type { IoVector } from './io-vector.ts';
import { BlockNode } from './node.ts';
import type { BlockOptions } from './options.ts';
import type { Pending } from './pending.ts';
import { settingsAlone } from './reopen-steps.ts';
import type { BlockStatus } from './requests.ts';

const DEFAULT_SIZE = 2 ** 30;

type Identity = { readonly [option: string]: string | number | boolean };

interface NullOptions {
  /** In bytes. */
  readonly size: number | undefined;
  readonly latencyNs: number | undefined;
  readonly readZeroes: boolean | undefined;
  /** What the node shows depends on, as it was given. */
  readonly identity: Identity;
}

/** A disk that forgets all that is written to it: for measuring what is above. */
class NullNode extends BlockNode {
  readonly #size: number;
  readonly #latencyMs: number;
  readonly #readZeroes: boolean;
  readonly #identity: Identity;

  constructor(context: OpenContext, options: NullOptions) {
    super(context.graph, context.driver, context.settings);
    const { size, readZeroes, latencyNs = 0, identity } = options;
    this.#size = Math.floor((size ?? DEFAULT_SIZE) / 512) * 512;
    this.#latencyMs = latencyNs / 1e6;
    this.#readZeroes = readZeroes ?? false;
    this.#identity = identity;
    // What shows something else than the plain name does has to say so.
    this.filename = Object.keys(this.#identity).length === 0 ? `${context.driver.name}://` : '';
  }

  override get identity(): Identity {
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
    reopening: settingsAlone,
    async open(context: OpenContext) {
      const { options } = context;
      const identity: Record<string, string | number | boolean> = {};
      for (const name of ['size', 'read-zeroes']) {
        const given = options.peek(name);
        if (given !== undefined && given !== null) identity[name] = typeof given === 'bigint' ? Number(given) : given;
      }
      return new NullNode(context, {
        size: options.bytes('size'),
        latencyNs: options.number('latency-ns'),
        readZeroes: options.bool('read-zeroes'),
        identity,
      });
    },
  };
  return driver;
}

export const nullCoDriver = nullDriver('null-co');
export const nullAioDriver = nullDriver('null-aio');
