import { BlockError, reason } from './io-error.ts';
import { BlockOptions } from './options.ts';

/** The options in a `json:{...}` file name, without the prefix. */
export function parseJson(text: string): BlockOptions {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new BlockError(`Could not parse the JSON options: ${reason(error)}`, { cause: error });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new BlockError('Invalid JSON object given');
  const options = new BlockOptions();
  flatten('', value, options, 0);
  return options;
}

function flatten(prefix: string, value: object, options: BlockOptions, depth: number): void {
  if (depth > 64) throw new BlockError('Could not parse the JSON options: too deeply nested');
  for (const [name, member] of Object.entries(value)) {
    const key = prefix === '' ? name : `${prefix}.${name}`;
    if (typeof member === 'object' && member !== null) flatten(key, member, options, depth + 1);
    else if (
      typeof member === 'string' ||
      typeof member === 'number' ||
      typeof member === 'boolean' ||
      member === null
    ) {
      options.set(key, member);
    }
  }
}
