/** The checked-in reference is what the declarations say now; `npm run reference` renews it. */
import { readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { referencePages } from './reference.ts';

const FOLDER = resolve(dirname(fileURLToPath(import.meta.url)), '../../../docs/reference');

t.test('docs/reference is current', async t => {
  for (const [name, text] of await referencePages()) t.equal(readFileSync(join(FOLDER, name), 'utf8'), text, name);
});
