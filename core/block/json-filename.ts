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

/** The members in the order in which QEMU writes options down: that of its hash table, by which tools compare such names. */
export function inOptionOrder<T>(options: Readonly<Record<string, T>>): Record<string, T> {
  const buckets = Object.entries(options).map(([key, value]) => ({ key, value, bucket: bucketOf(key) }));
  return Object.fromEntries(buckets.sort((a, b) => a.bucket - b.bucket).map(({ key, value }) => [key, value]));
}

/** QDict's: tdb's hash of the key, over 512 buckets. */
function bucketOf(key: string): number {
  const bytes = Buffer.from(key);
  let value = Math.imul(0x238f13af, bytes.length);
  for (const [index, byte] of bytes.entries()) value = (value + (byte << ((index * 5) % 24))) | 0;
  return (Math.imul(1103515243, value) + 12345) & 511;
}
