/** What a page shows as a part of a file is that, to the letter; the files themselves are compiled and run by other tests. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ROOT, samplesOf } from './samples.ts';

/** Pages whose every block of code is an excerpt. */
const TUTORIALS = readdirSync(join(ROOT, 'docs/tutorials')).map(page => `tutorials/${page}`);

for (const page of TUTORIALS)
  t.test(page, async t => {
    const samples = samplesOf(page);
    t.not(samples.length, 0);
    for (const { from, text } of samples) {
      t.ok(
        from !== undefined && readFileSync(join(ROOT, from), 'utf8').includes(text),
        `${from ?? 'a block without a source'}: ${text.trim().split('\n')[0]}`,
      );
    }
  });
