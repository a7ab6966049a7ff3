import path from 'node:path';
import { BlockError } from './io-error.ts';

/** Whether a file name says by which protocol it is to be had: `nbd:...`, `json:{...}`. */
export function hasProtocol(name: string): boolean {
  return /^[^/:]+:/.test(name);
}

/**
 * A file name as it stands in an image: relative to the image's own folder, if it is a plain relative path.
 *
 * @throws BlockError where the image has no folder
 */
export function relativeTo(image: string, name: string): string {
  if (name.startsWith('/') || hasProtocol(name) || image === '') return name;
  if (image.startsWith('json:')) {
    throw new BlockError(`Cannot use relative backing file names for '${image}'`);
  }
  const directory = path.dirname(image);
  return directory === '.' ? name : `${directory}/${name}`;
}
