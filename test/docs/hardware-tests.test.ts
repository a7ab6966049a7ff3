/** The how-to pages on faults and traffic: their samples run as a reader's tests would. */
import t from 'tap';
import { runSamples } from './samples.ts';

t.setTimeout(240_000);
t.test('the samples pass', async t => {
  const output = await runSamples(['how-to/faults.md', 'how-to/traffic.md']);
  for (const name of ['a busy bit that never clears', 'real hardware, by mmiotrace'])
    t.match(output, new RegExp(`ok \\d+ - ${name}`));
  t.match(output, /# pass 6\n# fail 0/);
});
