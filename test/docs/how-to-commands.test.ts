/** The commands of how-to pages start the machine that they are about; only the terminal and the host's ports are others. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { noSlirp } from '../core/host/libslirp.ts';
import { credentialsFolder, folder as write } from '../core/tls/pki.ts';
import { commandsOf, ROOT } from './samples.ts';

const PAGES = ['debug-with-gdb', 'network', 'storage', 'tls', 'trace'];
const PORTS = /(?<=:|port=)(?:1234|2222|5555|10222)\b/g;

t.setTimeout(300_000);
const folder = mkdtempSync(join(tmpdir(), 'southbridge-how-to-'));
t.teardown(() => rmSync(folder, { recursive: true }));
write(credentialsFolder(join(folder, 'pki')), { 'keys.psk': 'qemu:00112233445566778899aabbccddeeff\n' });
for (const name of ['disk.img', 'cd.iso']) {
  writeFileSync(join(folder, name), '');
  truncateSync(join(folder, name), 2 ** 24);
}

/** Runs the command with a monitor in the terminal's place; returns what it said and its exit status. */
async function monitored(command: string): Promise<{ status: number | null; said: string }> {
  // A port that is free, and that somebody listens at where the command connects.
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = String(typeof address === 'object' ? address?.port : 0);
  if (!command.includes('connect=')) await new Promise(resolve => server.close(resolve));
  const options = command
    .replace(/^(southbridge|npm start --) /, '')
    .replace(PORTS, port)
    .replaceAll("'", '')
    .replace('-nographic', '-display none -serial none -monitor stdio')
    .split(' ');
  const accelerator = options.includes('-accel') ? [] : ['-accel', 'qtest'];
  const child = spawn(process.execPath, [join(ROOT, 'dist/southbridge.js'), ...accelerator, ...options], {
    cwd: folder,
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', chunk => {
      said += String(chunk);
    });
  child.stdin.end('info status\nquit\n');
  const [status] = (await once(child, 'close')) as [number | null];
  server.close();
  return { status, said };
}

for (const page of PAGES)
  for (const command of commandsOf(`how-to/${page}.md`)) {
    const skip = command.includes('-netdev user') ? noSlirp : false;
    t.test(`${page}: ${command.slice(0, 100)}`, { skip }, async t => {
      const { status, said } = await monitored(command);
      t.equal(status, 0, said);
      t.match(said, /VM status: (running|paused)/);
    });
  }
