import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { RunningProgram } from './program.ts';

/** A debugger's end of the remote protocol, acknowledging as the protocol starts out. */
class Debugger {
  readonly #socket: Socket;
  #buffer = '';
  #arrived: () => void = () => undefined;

  constructor(socket: Socket) {
    this.#socket = socket.setEncoding('latin1');
    socket.on('data', (text: string) => {
      this.#buffer += text;
      this.#arrived();
    });
  }

  send(body: string): void {
    const sum = [...body].reduce((total, character) => (total + character.charCodeAt(0)) & 0xff, 0);
    this.#socket.write(`$${body}#${sum.toString(16).padStart(2, '0')}`, 'latin1');
  }

  async reply(): Promise<string> {
    for (;;) {
      const match = /^\+?\$([^#]*)#..\+?/s.exec(this.#buffer);
      if (match !== null) {
        this.#buffer = this.#buffer.slice(match[0].length);
        this.#socket.write('+');
        return match[1] ?? '';
      }
      await new Promise<void>(resolve => {
        this.#arrived = resolve;
      });
    }
  }

  async ask(body: string): Promise<string> {
    this.send(body);
    return this.reply();
  }
}

t.test('a debugger reads and writes registers and memory', async t => {
  const path = join(mkdtempSync(join(tmpdir(), 'southbridge-')), 'gdb');
  const program = await RunningProgram.start(
    '-machine',
    'pc',
    '-smp',
    '2',
    '-S',
    '-gdb',
    `unix:${path},server=on,wait=off`,
  );
  const socket = connect(path);
  await once(socket, 'connect');
  const gdb = new Debugger(socket);
  t.match(await gdb.ask('qSupported:xmlRegisters=i386'), /qXfer:features:read\+/);
  const xml = await gdb.ask('qXfer:features:read:target.xml:0,ffff');
  t.match(xml, /^l<\?xml .*i386:x86-64.*name="rip".*name="cr3"/s);
  t.equal(await gdb.ask('qfThreadInfo'), 'm01,02');
  t.equal(await gdb.ask('p10'), 'f0ff000000000000', 'rip at reset');
  t.equal(await gdb.ask('P0=8877665544332211'), 'OK');
  t.match(await gdb.ask('g'), /^8877665544332211/);
  t.equal(await gdb.ask('M1000,4:01020304'), 'OK');
  t.equal(await gdb.ask('m1000,6'), '010203040000');
  t.equal(await program.command('readl 0x1000'), 'OK 0x0000000004030201');
  t.equal(await gdb.ask('vMustReplyEmpty'), '');
  gdb.send(`qRcmd,${Buffer.from('info status').toString('hex')}`);
  t.equal(Buffer.from((await gdb.reply()).slice(1), 'hex').toString(), 'VM status: paused (prelaunch)\r\n');
  t.equal(await gdb.reply(), 'OK');
  gdb.send('c');
  await new Promise(resolve => setTimeout(resolve, 50));
  socket.write('\x03');
  t.match(await gdb.reply(), /^T02thread:01;/);
  socket.destroy();
  await program.execute('qmp_capabilities');
  t.match(await program.execute('query-status'), { return: { status: 'paused' } });
  t.equal(await program.stop(), 0);
});
