import type { BlockDriver, OpenContext } from '../driver.ts';
import type { BlockGraph } from '../graph.ts';
import { BlockError, errnoOf, IoError } from '../io-error.ts';
import { IoVector } from '../io-vector.ts';
import { BlockNode } from '../node.ts';
import type { Pending } from '../pending.ts';
import type { NodeSettings } from '../requests.ts';

/** Does everything with two images, `test` and `raw`, and ends the program where they differ: for testing a format. */
class BlkverifyNode extends BlockNode {
  constructor(graph: BlockGraph, settings: NodeSettings) {
    super(graph, blkverifyDriver, settings);
  }

  #child(name: 'test' | 'raw'): BlockNode {
    const node = this.children.get(name)?.node;
    if (node === undefined) throw new BlockError(`blkverify has no '${name}'`);
    return node;
  }

  override get file(): BlockNode | undefined {
    return this.children.get('raw')?.node;
  }

  override get length(): number {
    return this.children.get('test')?.node.length ?? 0;
  }

  protected override async pread(offset: number, bytes: number, iov: IoVector, at: number): Promise<void> {
    const other = new Uint8Array(bytes);
    await this.#both(
      'read',
      offset,
      bytes,
      () => this.#child('test').readv(offset, bytes, iov, at),
      () => this.#child('raw').readv(offset, bytes, IoVector.of(other)),
    );
    const data = new Uint8Array(bytes);
    iov.gather(at, data, 0, bytes);
    const difference = data.findIndex((byte, index) => byte !== other[index]);
    if (difference >= 0) this.#mismatch('read', offset, bytes, `contents mismatch at offset ${offset + difference}`);
  }

  protected override pwrite(offset: number, bytes: number, iov: IoVector, at: number, flags: number): Pending {
    return this.#both(
      'write',
      offset,
      bytes,
      () => this.#child('test').writev(offset, bytes, iov, at, flags),
      () => this.#child('raw').writev(offset, bytes, iov, at, flags),
    );
  }

  /** @throws IoError what both failed with */
  async #both(way: 'read' | 'write', offset: number, bytes: number, ...requests: (() => Pending)[]): Promise<void> {
    const [tested = 0, raw = 0] = await Promise.all(requests.map(resultOf));
    if (tested !== raw) this.#mismatch(way, offset, bytes, `return value mismatch ${-tested} != ${-raw}`);
    if (tested !== 0) throw new IoError(tested);
  }

  #mismatch(way: 'read' | 'write', offset: number, bytes: number, what: string): void {
    this.graph.abort(`blkverify: ${way} offset=${offset} bytes=${bytes} ${what}`);
  }
}

/** The number of the error; 0 for none. */
async function resultOf(request: () => Pending): Promise<number> {
  try {
    await request();
    return 0;
  } catch (error) {
    return errnoOf(error);
  }
}

export const blkverifyDriver: BlockDriver = {
  name: 'blkverify',
  kind: 'filter',
  isProtocol: true,
  schemes: ['blkverify'],
  parseFilename(filename, options) {
    const rest = filename.replace(/^blkverify:/, '');
    const colon = rest.indexOf(':');
    if (colon < 0) throw new BlockError('blkverify requires raw copy and original image path');
    options.set('x-raw', rest.slice(0, colon));
    options.set('x-image', rest.slice(colon + 1));
  },
  async open(context: OpenContext) {
    const { options } = context;
    const raw = await context.child('raw', {}, options.string('x-raw'), true);
    const test = await context.child('test', {}, options.string('x-image'));
    context.followReadOnly(test);
    const node = new BlkverifyNode(context.graph, context.settings);
    node.attach('raw', raw);
    node.attach('test', test);
    return node;
  },
};
