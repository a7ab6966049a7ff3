import { spawnSync } from 'node:child_process';
import t from 'tap';
import { imageFolder, noQemuImg, noZstd, qemuCheck } from './images.ts';
import { VICTIMS, Victim } from './killed-program.ts';

const folder = imageFolder();
t.teardown(() => folder.remove());
t.setTimeout(300_000);

// A moment for each; the nightly run goes on for longer.
for (const options of VICTIMS.slice(0, 4)) {
  const skip = noQemuImg || (options.includes('zstd') && noZstd);
  t.test(`kill -9 under load: no corruption, and every flush is there: ${options}`, { skip }, async t => {
    const victim = new Victim(folder.dir, options, options.length);
    t.ok((await victim.kill(700)) > 0, 'it had flushed');
    // Lazy refcounts are put right by whoever opens the image next.
    if (options.includes('lazy')) spawnSync('qemu-img', ['check', '-q', '-r', 'all', victim.file]);
    const { status, output } = qemuCheck(victim.file);
    t.ok(status === 0 || status === 3, `clean or leaks: ${output}`);
    t.same(victim.wrongSectors(), []);
  });
}
