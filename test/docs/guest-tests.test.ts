/** The how-to page on guests: its suite and its test run as a reader's would. */
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { echoGuest } from '../core/testing/echo-guest.ts';
import { commandsOf, ROOT, runSamples, writeSamples } from './samples.ts';

const PAGE = 'how-to/guest-tests.md';
t.setTimeout(240_000);

t.test('the suite', async t => {
  const folder = writeSamples(PAGE);
  writeFileSync(join(folder, 'echo.elf'), echoGuest);
  const [, ...words] = commandsOf(PAGE)[0]?.split(' ') ?? [];
  const program = [join(ROOT, 'dist/southbridge.js'), ...words];
  const { stdout } = await promisify(execFile)(process.execPath, program, { cwd: folder });
  t.match(stdout, /ok 3 - echo: counts what it is told.*\n1\.\.3\n# 3 passed, 0 failed\n/);
});

t.test('the parts', async t => {
  const output = await runSamples([PAGE, 'how-to/determinism.md'], { 'echo.elf': echoGuest });
  t.match(output, /ok \d+ - back to a register access[\s\S]*# pass 3\n# fail 0/);
});
