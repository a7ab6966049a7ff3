// Writes numbered sectors into a qcow2 image for as long as it lives, and says after each flush how far it got.
import { IoVector } from '../../../core/block/io-vector.ts';
import { openQcow2, quietGraph } from './images.ts';

const [file = ''] = process.argv.slice(2);
const node = await openQcow2(quietGraph().graph, file);
const slots = node.length / 4096;
for (let number = 1; ; number++) {
  const data = Buffer.alloc(4096);
  data.writeUInt32LE(number, 0);
  await node.writev(((number * 611) % slots) * 4096, 4096, IoVector.of(data));
  if (number % 7 === 0) {
    await node.flush();
    process.stdout.write(`${number}\n`);
  }
  if (number % 31 === 0) await node.writeZeroes(((number * 37) % slots) * 4096 + 2048, 1024);
}
