import type { BlockDriver, OpenContext } from '../driver.ts';
import { BlockError } from '../io-error.ts';
import type { IoVector } from '../io-vector.ts';
import type { Pending } from '../pending.ts';
import { Qcow2Node } from '../qcow2/node.ts';
import { writeFlag } from '../requests.ts';
import { VmdkNode } from '../vmdk/node.ts';
import { FilterNode } from './filter-node.ts';

/** Has all that is written to it compressed. */
class CompressNode extends FilterNode {
  protected override pwrite(offset: number, bytes: number, iov: IoVector, at: number, flags: number): Pending {
    return super.pwrite(offset, bytes, iov, at, flags | writeFlag.COMPRESSED);
  }
}

export const compressDriver: BlockDriver = {
  name: 'compress',
  kind: 'filter',
  async open(context: OpenContext) {
    const file = await context.child('file');
    const { withoutFilters: image } = file;
    if (!(image instanceof Qcow2Node || image instanceof VmdkNode))
      throw new BlockError('Compression is not supported for underlying format: ' + file.driver.name);
    context.followReadOnly(file);
    const node = new CompressNode(context.graph, compressDriver, context.settings);
    // Only whole clusters can be compressed.
    node.requestAlignment = file.clusterSize;
    node.attach('file', file);
    return node;
  },
};
