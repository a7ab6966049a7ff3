import { SouthbridgeError } from '../../errors.ts';
import { GuestCache } from './guest-cache.ts';
import { ITEMS } from './items.ts';

// npm run guests [-- NAME...]: fetches what is named, or lists what there is.
const names = process.argv.slice(2);
const cache = new GuestCache();

async function main(): Promise<number> {
  if (names.length === 0) {
    for (const [name, { summary }] of Object.entries(ITEMS)) console.log(`${name.padEnd(14)} ${summary}`);
    console.log(`\nnpm run guests -- NAME... fetches them into ${cache.directory}; 'all' fetches all.`);
    return 0;
  }
  for (const name of names.includes('all') ? Object.keys(ITEMS) : names) {
    for (const [file, path] of Object.entries(await cache.getByName(name))) console.log(`${name}.${file}\t${path}`);
  }
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof SouthbridgeError)) throw error;
  console.error(`southbridge: ${error.message} (${error.code})${error.hint === undefined ? '' : `\n  ${error.hint}`}`);
  process.exitCode = 1;
}
