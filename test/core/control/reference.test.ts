import { mkdirSync, writeFileSync } from 'node:fs';
import t from 'tap';
import { qmpReference } from '../../../core/control/qapi/reference.ts';
import { commands, events } from '../../../core/control/qmp/catalog.ts';

/** The page in the source tree; with UPDATE=1 this test writes it. */
const FOLDER = new URL('../../../../docs/reference/', import.meta.url);

t.test('the reference has every command and event, and its links lead somewhere', async t => {
  const page = qmpReference(commands, events);
  if (process.env['UPDATE'] === '1') {
    mkdirSync(FOLDER, { recursive: true });
    writeFileSync(new URL('qmp.md', FOLDER), page);
  }
  const headings = new Set([...page.matchAll(/^### (.*)$/gm)].map(match => match[1]?.toLowerCase()));
  for (const name of [...Object.keys(commands), ...Object.keys(events)]) t.ok(headings.has(name.toLowerCase()), name);
  for (const match of page.matchAll(/\]\(#([^)]+)\)/g)) t.ok(headings.has(match[1]), String(match[1]));
});
