import type { BlockGraph } from './graph.ts';
import { BlockError, reason } from './io-error.ts';
import type { BlockNode } from './node.ts';
import { BlockOptions } from './options.ts';
import { cumulative, perm } from './permissions.ts';
import { reopen } from './reopen.ts';

/** An overlay that was put over a node. One of these follows. */
export interface InstalledOverlay {
  /** It stays: nobody writes to what is under it any more. Until then its dirty bitmaps can be worked on. */
  settle(): Promise<void>;
  takeBack(): Promise<void>;
}

/**
 * Puts `overlay` over `node`: all users of the node use the overlay from now on.
 *
 * @throws BlockError where the overlay cannot be one, or a user of the node does not allow it
 */
export async function installOverlay(
  graph: BlockGraph,
  node: BlockNode,
  overlay: BlockNode,
): Promise<InstalledOverlay> {
  if ((cumulative(overlay).perm & perm.CONSISTENT_READ) !== 0) throw new BlockError('The overlay is already in use');
  if (overlay.driver.kind === 'filter') throw new BlockError('Filters cannot be used as overlays');
  if (overlay.backing !== undefined) throw new BlockError('The overlay already has a backing image');
  if (overlay.driver.supportsBacking !== true) throw new BlockError('The overlay does not support backing images');
  const users = [...node.parents].filter(({ parent, sticky }) => parent !== overlay && !sticky);
  await graph.drained(async () => {
    await node.flush();
    overlay.attach('backing', node);
    try {
      graph.replace(node, overlay);
    } catch (error) {
      overlay.detach('backing');
      throw error;
    }
  });
  return {
    async settle() {
      if (node.readOnly) return;
      try {
        await reopen(node, { readOnly: true });
      } catch (error) {
        // The overlay is in use already; that more could be written below it harms nobody.
        graph.warn(`could not make node '${node.nodeName}' read-only: ${reason(error)}`);
      }
    },
    async takeBack() {
      await graph.drained(() => {
        for (const edge of users) {
          overlay.parents.delete(edge);
          node.parents.add(edge);
          edge.node = node;
        }
        overlay.detach('backing');
      });
      await graph.released(overlay);
    },
  };
}

export interface OverlayFile {
  readonly filename: string;
  readonly format: string;
  readonly mode: 'existing' | 'absolute-paths';
  readonly nodeName?: string | undefined;
}

/** Makes an image over `node`, unless it exists, and opens it without its backing file. */
export async function openOverlay(graph: BlockGraph, node: BlockNode, wanted: OverlayFile): Promise<BlockNode> {
  if (wanted.mode === 'absolute-paths') {
    await createImage(graph, wanted.filename, wanted.format, node.length, {
      file: node.withoutFilters.filename,
      format: node.withoutFilters.driver.name,
    });
  }
  const options = new BlockOptions([
    ['driver', wanted.format],
    ['backing', null],
  ]);
  if (wanted.nodeName !== undefined) options.set('node-name', wanted.nodeName);
  const { direct, noFlush, discard } = node.settings;
  return graph.openTree(wanted.filename, options, { direct, noFlush, discard }, false);
}

/** Makes a new image file. */
export async function createImage(
  graph: BlockGraph,
  filename: string,
  format: string,
  size: number,
  backing?: { readonly file: string; readonly format: string },
): Promise<void> {
  const driver = graph.driver(format);
  if (driver.create === undefined) throw new BlockError(`Format driver '${format}' does not support image creation`);
  const ofName = (bytes: number) =>
    new BlockOptions([
      ['filename', filename],
      ['size', bytes],
    ]);
  if (driver.kind === 'protocol') {
    // The file itself, with nothing over it.
    const options = ofName(size);
    graph.print(`Formatting '${filename}', fmt=${format} ${summary(format, options)}\n`);
    await driver.create(graph, options);
    return;
  }
  await graph.driver('file').create?.(graph, ofName(0));
  const file = await graph.openTree(filename, new BlockOptions(), {}, true);
  try {
    const options = new BlockOptions([
      ['file', file.nodeName],
      ['size', driver.imageSize?.(size) ?? size],
    ]);
    if (backing !== undefined && driver.supportsBacking === true) {
      options.set('backing-file', backing.file).set('backing-fmt', backing.format);
    }
    graph.print(`Formatting '${filename}', fmt=${format} ${summary(format, options)}\n`);
    await driver.create(graph, options);
  } finally {
    await graph.released(file);
  }
}

/** The options of a new image, those left out too, as QEMU says them. */
function summary(format: string, options: BlockOptions): string {
  const backing = options.has('backing-file')
    ? `backing_file=${String(options.peek('backing-file'))} backing_fmt=${String(options.peek('backing-fmt'))} `
    : '';
  const size = `size=${String(options.peek('size'))}`;
  if (format !== 'qcow2') return size;
  return `cluster_size=65536 extended_l2=off compression_type=zlib ${size} ${backing}lazy_refcounts=off refcount_bits=16`;
}
