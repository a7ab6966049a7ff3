/** For minutes: the program is killed again and again while it writes, and goes on with the image that it left. */
import { spawnSync } from 'node:child_process';
import t from 'tap';
import { imageFolder, noQemuImg, noZstd, qemuCheck, randomNumbers } from './images.ts';
import { VICTIMS, Victim } from './killed-program.ts';

const KILLS = 12;

const folder = imageFolder();
t.teardown(() => folder.remove());
t.setTimeout(3_600_000);

for (const options of VICTIMS) {
  const skip = noQemuImg || (options.includes('zstd') && noZstd);
  t.test(`killed ${KILLS} times: ${options}`, { skip }, async t => {
    const victim = new Victim(folder.dir, options, options.length);
    const random = randomNumbers(KILLS + options.length);
    let flushes = 0;
    for (let round = 0; round < KILLS; round++) {
      flushes += await victim.kill(20 + random(1500));
      // Now and then the next program finds the image as it is, dirty and with leaks.
      const repair = options.includes('lazy') ? round % 3 !== 0 : round % 5 === 4;
      if (repair) spawnSync('qemu-img', ['check', '-q', '-r', options.includes('lazy') ? 'all' : 'leaks', victim.file]);
      if (!options.includes('lazy') || repair) {
        const { status, output } = qemuCheck(victim.file);
        t.ok(status === 0 || status === 3, `round ${round}: clean or leaks: ${output}`);
      }
      t.same(victim.wrongSectors(), [], `round ${round}: what was flushed is there`);
    }
    t.comment(`${flushes} flushes were answered`);
  });
}
