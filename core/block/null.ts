import type { BlockDriver, OpenContext } from './driver.ts';
import type { BlockGraph } from './graph.ts';
import { BlockError } from './io-error.ts';
import type { IoVector } from './io-vector.ts';
import { BlockNode } from './node.ts';
import type { BlockOptions } from './options.ts';
import type { Pending } from './pending.ts';
import type { BlockStatus, NodeSettings } from './requests.ts';

/** A disk that forgets all that is written to it: for measuring what is above. */
class NullNode extends BlockNode {
  readonly #size: number;
  readonly #latencyMs: number;
  readonly #readZeroes: boolean;

  constructor(
    graph: BlockGraph,
    driver: BlockDriver,
    settings: NodeSettings,
    size: number,
    latencyNs: number,
    readZeroes: boolean,
  ) {
    super(graph, driver, settings);
    this.#size = size;
    this.#latencyMs = latencyNs / 1e6;
    this.#readZeroes = readZeroes;
    this.filename = `${driver.name}://`;
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
    async open({ graph, options, settings }: OpenContext) {
      const size = options.bytes('size') ?? 2 ** 30;
      const latencyNs = options.number('latency-ns') ?? 0;
      const readZeroes = options.bool('read-zeroes') ?? false;
      return new NullNode(graph, driver, settings, Math.floor(size / 512) * 512, latencyNs, readZeroes);
    },
  };
  return driver;
}

export const nullCoDriver = nullDriver('null-co');
export const nullAioDriver = nullDriver('null-aio');
