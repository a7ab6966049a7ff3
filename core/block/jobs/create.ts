import type { BlockGraph } from '../graph.ts';
import { BlockError } from '../io-error.ts';
import type { BlockOptions } from '../options.ts';
import { Job, type JobOptions } from './job.ts';

/** Makes an image: `blockdev-create`. */
export class CreateJob extends Job {
  override readonly type = 'create';
  override readonly isBlockJob = false;
  readonly #options: BlockOptions;

  constructor(graph: BlockGraph, options: JobOptions, image: BlockOptions) {
    super(graph, { ...options, autoDismiss: false });
    this.#options = image;
  }

  protected override async work(): Promise<void> {
    this.total = 1;
    const driver = this.graph.driver(this.#options.string('driver') ?? '');
    if (driver.create === undefined) throw new BlockError(`Driver does not support blockdev-create`);
    await driver.create(this.graph, this.#options);
    const [unknown] = this.#options.keys();
    if (unknown !== undefined) throw new BlockError(`Parameter '${unknown}' is unexpected`);
    this.offset = 1;
  }
}
