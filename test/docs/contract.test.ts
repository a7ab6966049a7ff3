/** The how-to page on the device contract: its sample runs as a reader's test would. */
import t from 'tap';
import { runSamples } from './samples.ts';

t.setTimeout(120_000);
t.test('the sample keeps its promises', async t => {
  const output = await runSamples(['how-to/contract.md', 'how-to/plugins.md']);
  t.match(output, /ok \d+ - blinker: any offset, width and value never throws/);
  t.match(output, /ok \d+ - blinker: properties out of range are named errors/);
  t.match(output, /# fail 0/);
});
