import type { BlockNode } from '../node.ts';
import type { BlockOptions } from '../options.ts';
import { Job, type JobOptions } from './job.ts';

/** Changes what the format of an open image is like: `x-blockdev-amend`. */
export class AmendJob extends Job {
  override readonly type = 'amend';
  override readonly isBlockJob = false;
  readonly #node: BlockNode;
  readonly #options: BlockOptions;
  readonly #force: boolean;

  constructor(node: BlockNode, options: JobOptions, wanted: BlockOptions, force: boolean) {
    super(node.graph, { ...options, autoDismiss: false });
    this.#node = node;
    this.#options = wanted;
    this.#force = force;
  }

  protected override async work(): Promise<void> {
    this.total = 1;
    this.#options.delete('driver');
    await this.#node.driver.amend?.(this.#node, this.#options, this.#force);
    this.offset = 1;
  }
}
