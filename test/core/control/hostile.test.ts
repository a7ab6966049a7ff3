/** Clients that mean no good, on every socket that the program has: they get an error, and the machine runs on. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { SeededRandom } from '../../../core/testing/stand-ins.ts';

t.setTimeout(300_000);
const PROGRAM = fileURLToPath(new URL('../../../southbridge.js', import.meta.url));
const MIB = 2 ** 20;

const folder = mkdtempSync(join(tmpdir(), 'southbridge-hostile-'));
const at = (name: string): string => join(folder, name);
const server = (name: string): string => `unix:${at(name)},server=on,wait=off`;
const program = spawn(
  process.execPath,
  [
    ...[PROGRAM, '-machine', 'pc', '-accel', 'qtest', '-nodefaults', '-display', 'none', '-qtest-log', '/dev/null'],
    ...['-qmp', server('good'), '-qmp', server('qmp'), '-monitor', server('hmp'), '-gdb', server('gdb')],
    ...['-qtest', server('qtest'), '-vnc', `unix:${at('vnc')}`],
  ],
  { stdio: ['ignore', 'ignore', 'pipe'] },
);
let complaints = '';
program.stderr.on('data', chunk => (complaints += String(chunk)));
t.teardown(async () => {
  program.kill('SIGKILL');
  rmSync(folder, { recursive: true });
});
const listening = (name: string): boolean => existsSync(at(name)) || program.exitCode !== null;
while (!['good', 'qmp', 'hmp', 'gdb', 'qtest', 'vnc'].every(listening))
  await new Promise(resolve => setTimeout(resolve, 20));

async function open(name: string): Promise<Socket> {
  const socket = connect(at(name)).on('error', () => undefined);
  await once(socket, 'connect');
  return socket;
}

/** Says something and hangs up, without waiting for an answer. */
async function hitAndRun(name: string, bytes: Uint8Array): Promise<void> {
  const socket = await open(name);
  await new Promise<void>(resolve => socket.write(bytes, () => resolve()));
  const closed = once(socket, 'close');
  socket.destroy();
  await closed;
}

/** Says something, and hears the other end out until it has said what is expected. */
async function converse(name: string, bytes: Uint8Array, expected: RegExp): Promise<string> {
  const socket = await open(name);
  let heard = '';
  const done = new Promise<void>(resolve => {
    socket
      .on('close', () => resolve())
      .on('data', chunk => {
        heard += chunk.toString('latin1');
        if (expected.test(heard)) resolve();
      });
  });
  socket.write(bytes);
  await done;
  socket.destroy();
  return heard;
}

interface Conversation {
  readonly socket: string;
  readonly says: Buffer;
  readonly hears: RegExp;
}

const gdbPacket = (body: string): string => {
  const sum = [...body].reduce((total, character) => (total + character.charCodeAt(0)) & 0xff, 0);
  return `$${body}#${sum.toString(16).padStart(2, '0')}`;
};
const conversations: readonly Conversation[] = [
  {
    socket: 'qmp',
    says: Buffer.from('{"execute":"qmp_capabilities"}\n{"execute":"query-name","id":{"a":[1,2.5,null,"\\u00e4"]}}\n'),
    hears: /"id": \{"a": \[1, 2.5, null, "\\u00e4"\]\}/i,
  },
  { socket: 'hmp', says: Buffer.from('info version\nxp /4xb 0x1000\n'), hears: /0000000000001000: 0x00/ },
  {
    socket: 'qtest',
    says: Buffer.from('writel 0x1000 0x0\nb64write 0x2000 3 AAAA\nreadl 0x1000\n'),
    hears: /OK 0x0000/,
  },
  {
    socket: 'gdb',
    says: Buffer.from(
      `+${gdbPacket('qSupported:xmlRegisters=i386')}${gdbPacket('g')}${gdbPacket('X3000,2:}]\0')}${gdbPacket('m1000,4')}`,
    ),
    hears: /\$00000000#80/,
  },
  {
    socket: 'vnc',
    // The version, no security, a shared session, a pixel format, encodings, and a request for all of the screen.
    says: Buffer.concat([
      Buffer.from('RFB 003.008\n\x01\x01'),
      Buffer.from('00000000 20180001 00ff00ff 00ff1008 00000000'.replaceAll(' ', ''), 'hex'),
      Buffer.from('02000002 00000000 00000007'.replaceAll(' ', ''), 'hex'),
      Buffer.from('0300000000000a000a00', 'hex'),
    ]),
    hears: /^RFB 003\.008\n[\s\S]{6}/,
  },
];

/** Whether a client who means well is served, and the machine is still there. */
async function alive(t: Test): Promise<void> {
  t.equal(program.exitCode, null, complaints);
  const status = await converse(
    'good',
    Buffer.from('{"execute":"qmp_capabilities"}{"execute":"query-status"}'),
    /"status"/,
  );
  t.match(status, /"status": "(?:running|paused)"/);
}

for (const { socket, says, hears } of conversations) {
  t.test(`${socket}: a client that leaves after each byte`, async t => {
    for (let length = 0; length <= says.length; length++) await hitAndRun(socket, says.subarray(0, length));
    t.match(await converse(socket, says, hears), hears, 'and one that stays is served');
    await alive(t);
  });

  t.test(`${socket}: noise`, async t => {
    const random = new SeededRandom(socket.length + 1);
    for (const length of [1, 17, 4096, 65536])
      await hitAndRun(socket, Buffer.from(Array.from({ length }, () => random.below(256))));
    // The beginning of a good conversation, and then something else.
    for (let cut = 1; cut < says.length; cut += 7) {
      const noise = Buffer.from(Array.from({ length: 64 }, () => random.below(256)));
      await hitAndRun(socket, Buffer.concat([says.subarray(0, cut), noise]));
    }
    t.match(await converse(socket, says, hears), hears);
    await alive(t);
  });
}

t.test('QMP: a string of 100 MB, and lists and objects without end', async t => {
  const resident = (): number =>
    Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${program.pid}/status`, 'latin1'))?.[1]) / 1024;
  for (const [head, piece] of [
    ['{"execute":"', 'A'],
    ['', '['],
    ['{"a":', '{"a":'],
  ] as const) {
    const socket = await open('qmp');
    const block = Buffer.from(piece.repeat(MIB / piece.length));
    let heard = '';
    socket.on('data', chunk => (heard += chunk.toString('latin1')));
    const gone = new Promise<void>(resolve => socket.on('close', () => resolve()));
    socket.write(`{"execute":"qmp_capabilities"}${head}`);
    // One string is sent whole; what has no end, until the program has had enough of it.
    for (let sent = 0; sent < 100 && !socket.destroyed && (piece === 'A' || !/"error"/.test(heard)); sent++)
      if (!socket.write(block)) await Promise.race([once(socket, 'drain'), gone]);
    while (!/"error"/.test(heard) && !socket.destroyed) await new Promise(resolve => setTimeout(resolve, 20));
    t.match(
      heard,
      /"error": \{"class": "GenericError", "desc": "JSON (?:parse error|token size limit|token count limit|nesting)/i,
      piece,
    );
    socket.destroy();
    await alive(t);
  }
  t.ok(resident() < 1500, `${resident().toFixed(0)} MiB resident afterwards`);
});

t.test('QMP: a client that asks and does not listen is not heard for long', async t => {
  const resident = (): number =>
    Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${program.pid}/status`, 'latin1'))?.[1]) / 1024;
  const before = resident();
  const socket = await open('qmp');
  socket.pause();
  let taken = false;
  // Each number is an error of some ninety bytes: answers to all of them would be 360 MB.
  socket.write('0 '.repeat(4 * MIB), () => {
    taken = true;
  });
  await new Promise(resolve => setTimeout(resolve, 3000));
  t.notOk(taken, 'it is not all read');
  t.ok(resident() - before < 100, 'MiB that wait for a reader');
  await alive(t);
  socket.destroy();
});

t.test('more clients than are served wait, and go', async t => {
  const crowd = await Promise.all(Array.from({ length: 50 }, () => open('qmp')));
  for (const socket of crowd) socket.destroy();
  t.match(await converse('qmp', Buffer.from('{"execute":"qmp_capabilities"}'), /"return"/), /"return"/);
  await alive(t);
});
