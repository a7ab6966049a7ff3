import type { OpenContext } from './driver.ts';
import { relativeTo } from './file-name.ts';
import { BlockError, reason } from './io-error.ts';
import type { BlockNode } from './node.ts';

/** What an image says backs it. */
export interface SaidBacking {
  /** As it stands there. */
  readonly backingFile: string | undefined;
  readonly backingFormat: string | undefined;
}

/**
 * Opens what backs an image, by its options or by what it says itself, and attaches it.
 *
 * @param refused the user wants none
 * @throws BlockError where it cannot be opened
 */
export async function openBacking(
  context: OpenContext,
  node: BlockNode,
  { backingFile, backingFormat }: SaidBacking,
  refused: boolean,
): Promise<void> {
  const { options } = context;
  node.backingFileName = backingFile;
  node.backingFormat = backingFormat;
  if (refused) {
    options.delete('backing');
    return;
  }
  const reference = options.peek('backing');
  if (reference === undefined && backingFile === undefined && !options.hasChild('backing')) return;
  let filename: string | undefined;
  if (
    reference === undefined &&
    !options.has('backing.file.filename') &&
    !options.has('backing.file') &&
    !options.has('backing.filename')
  ) {
    filename = backingFile === undefined ? undefined : relativeTo(node.filename, backingFile);
    if (backingFormat !== undefined && !options.has('backing.driver')) options.set('backing.driver', backingFormat);
  }
  let backing: BlockNode;
  try {
    backing = await context.child('backing', {}, filename);
  } catch (error) {
    throw new BlockError(`Could not open backing file: ${reason(error)}`, { cause: error });
  }
  node.attach('backing', backing);
}
