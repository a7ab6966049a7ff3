import { spawn } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';

const MIB = 2 ** 20;

/** Touching `process.stderr` makes the shared socket non-blocking: from then on write(2) fails once the reader is behind. */
const program = `
  process.stderr.on('error', () => undefined);
  const { writeFully } = await import(${JSON.stringify(new URL('../../../core/host/files.js', import.meta.url).href)});
  const bytes = Buffer.alloc(${2 * MIB});
  for (let i = 0; i < bytes.length; i++) bytes[i] = i % 251;
  writeFully(2, bytes);
  process.stdout.write('written');
`;

t.test('writeFully waits for a reader that is behind, and loses nothing', async t => {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const exit = new Promise(resolve => child.once('exit', resolve));
  let said = '';
  child.stdout.on('data', chunk => {
    said += String(chunk);
  });
  child.stderr.pause();
  await delay(300);
  t.equal(said, '', 'it still waits: nobody has read');
  const pieces: Buffer[] = [];
  child.stderr.on('data', chunk => pieces.push(chunk)).resume();
  t.equal(await exit, 0);
  const all = Buffer.concat(pieces);
  t.equal(all.length, 2 * MIB);
  t.ok(
    all.every((byte, at) => byte === at % 251),
    'in order',
  );
  t.equal(said, 'written');
});
