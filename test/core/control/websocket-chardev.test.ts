/** `-chardev socket,websocket=on`, spoken to by Node's own client, and beside QEMU. */

import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import t, { type Test } from 'tap';
import { freePort } from '../../free-port.ts';
import { until } from '../../until.ts';
import { RunningProgram } from './program.ts';

const HAS_QEMU = spawnSync('qemu-system-x86_64', ['--version']).status === 0;
/** Not of QMP: QEMU 7.2 does not hear what comes to it by a WebSocket. */
const MONITOR = ['-mon', 'chardev=m,mode=readline'];
const CLIENT = `
const [url] = process.argv.slice(1);
const socket = new WebSocket(url, 'binary');
socket.binaryType = 'arraybuffer';
let text = '';
socket.onmessage = ({ data }) => {
  text += Buffer.from(data).toString();
  if (text.endsWith('(qemu) ') && !text.includes('status')) socket.send(Buffer.from('info status\\r'));
  if (text.includes('VM status')) socket.close();
};
socket.onerror = () => process.exit(1);
socket.onclose = () => console.log(/VM status: \\w+/.exec(text)[0]);
`;

const chardev = (port: number, more = ''): string[] => [
  '-chardev',
  `socket,id=m,host=127.0.0.1,port=${port},server=on,wait=off,websocket=on${more}`,
];

/** What a client hears that asks how the machine is. */
function conversation(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(process.execPath, ['--experimental-websocket', '-e', CLIENT, url], (error, stdout) =>
      error === null ? resolve(stdout.trim()) : reject(error),
    );
  });
}

function running(t: Test, child: ChildProcess): void {
  t.teardown(() => child.kill('SIGKILL'));
}

t.test('a monitor in a WebSocket', async t => {
  const port = await freePort();
  const program = await RunningProgram.start('-M', 'none', ...chardev(port), ...MONITOR);
  t.teardown(() => program.stop('SIGKILL'));
  await program.execute('qmp_capabilities');
  const filename = async (): Promise<string> => {
    const reply = await program.execute('query-chardev');
    return (
      (reply['return'] as { label: string; filename: string }[]).find(({ label }) => label === 'm')?.filename ?? ''
    );
  };
  t.equal(await filename(), `disconnected:websocket:127.0.0.1:${port},server=on`);
  const said = await conversation(`ws://127.0.0.1:${port}`);
  t.equal(said, 'VM status: running');
  t.equal(await conversation(`ws://127.0.0.1:${port}`), said, 'the next client is served');
  await until(async () => (await filename()).startsWith('disconnected:'));

  const stranger = connect(port, '127.0.0.1');
  stranger.write('GET / HTTP/1.1\r\n\r\n');
  let heard = '';
  stranger.on('data', data => {
    heard += data;
  });
  await once(stranger, 'close');
  t.match(heard, /^HTTP\/1\.1 400 /, 'who asks for something else is refused');
  t.equal(await conversation(`ws://127.0.0.1:${port}`), said, 'and is in nobody’s way');
  t.match(JSON.stringify(await program.execute('query-yank')), /"id":"m"/);

  if (!HAS_QEMU) return;
  const theirs = await freePort();
  running(
    t,
    spawn('qemu-system-x86_64', ['-M', 'none', '-display', 'none', ...chardev(theirs), ...MONITOR], {
      stdio: 'ignore',
    }),
  );
  await until(
    () =>
      new Promise<boolean>(resolve => {
        const probe = connect(theirs, '127.0.0.1');
        probe.once('connect', () => resolve(true)).once('error', () => resolve(false));
        probe.once('connect', () => probe.destroy());
      }),
  );
  t.equal(await conversation(`ws://127.0.0.1:${theirs}`), said, 'as by QEMU');
});

t.test('there is no client', async t => {
  const program = await RunningProgram.start('-M', 'none');
  t.teardown(() => program.stop('SIGKILL'));
  await program.execute('qmp_capabilities');
  const data = { addr: { type: 'inet', data: { host: '127.0.0.1', port: '1' } }, server: false, websocket: true };
  const reply = await program.execute('chardev-add', { id: 'c', backend: { type: 'socket', data } });
  t.match(reply, { error: { desc: /Websocket client is not implemented$/ } });
});
