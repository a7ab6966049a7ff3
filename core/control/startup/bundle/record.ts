/** `node --import`: writes the URL of each module that the program loads to its standard output, between what it says itself. */
import { writeSync } from 'node:fs';
import { type LoadHook, register } from 'node:module';
import { isMainThread } from 'node:worker_threads';

if (isMainThread) register(import.meta.url);

export const load: LoadHook = (url, context, next) => {
  writeSync(1, `${url}\n`);
  return next(url, context);
};
