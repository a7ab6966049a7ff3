import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { IoVector } from '../../../core/block/io-vector.ts';
import { imageFolder, noQemuImg, openQcow2, qemuCheck, qemuImg, quietGraph } from './images.ts';

const folder = imageFolder();
t.teardown(() => folder.remove());

t.test('kill -9 under load: no corruption, and every flush is there', { skip: noQemuImg }, async t => {
  const file = folder.file('killed.qcow2');
  const slots = 2048;
  for (const options of ['cluster_size=4k', 'cluster_size=64k']) {
    qemuImg('create', '-q', '-f', 'qcow2', '-o', options, file, String(slots * 4096));
    const writer = spawn(process.execPath, [fileURLToPath(new URL('writer-process.js', import.meta.url)), file]);
    let flushed = 0;
    writer.stdout.on('data', (text: Buffer) => {
      flushed = Number(text.toString().trim().split('\n').at(-1));
    });
    await new Promise(resolve => writer.stdout.once('data', resolve));
    await new Promise(resolve => setTimeout(resolve, 300));
    writer.kill('SIGKILL');
    await new Promise(resolve => writer.once('close', resolve));
    t.ok(flushed > 0);
    const { status, output } = qemuCheck(file);
    t.ok(status === 0 || status === 3, `clean or leaks: ${output}`);
    const { graph } = quietGraph();
    const image = await openQcow2(graph, file);
    let missing = 0;
    for (let number = Math.max(1, flushed - slots + 1); number <= flushed; number++) {
      const sector = Buffer.alloc(4);
      await image.readv(((number * 611) % slots) * 4096, 4, IoVector.of(sector));
      // A later write to the same place may be there as well.
      if (sector.readUInt32LE(0) < number) missing++;
    }
    t.equal(missing, 0);
    await graph.close();
  }
});
