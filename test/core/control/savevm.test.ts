import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { initramfs } from '../../../core/firmware/guest-cache/initramfs.ts';
import { guestOrSkip } from '../../guests/guest-or-skip.ts';
import { imageFolder, noQemuImg, qemuImg } from '../block/images.ts';
import { Lines } from './program.ts';

const ENTRY = fileURLToPath(new URL('../../../southbridge.js', import.meta.url));
/** Remembers a word and says it when asked. */
const INIT = `
dmesg -n 1
stty -echo
value=none
echo READY
while read -r word; do
  if [ "$word" = ask ]; then echo "value is $value"; else value=$word; fi
done`;

type Message = Readonly<Record<string, unknown>>;

/** Linux on the software CPU, as a process: its console, and QMP. */
class Guest {
  readonly #child: ReturnType<typeof spawn>;
  readonly #qmp: Lines;
  readonly #stderr: string[] = [];
  #output = '';
  #heard: () => void = () => {};

  private constructor(child: ReturnType<typeof spawn>, qmp: Lines) {
    this.#child = child;
    this.#qmp = qmp;
    child.stderr?.setEncoding('utf8').on('data', (text: string) => this.#stderr.push(text));
    child.stdout?.setEncoding('latin1').on('data', (text: string) => {
      this.#output += text;
      this.#heard();
    });
  }

  static async start(t: Test, folder: string, args: readonly string[]): Promise<Guest> {
    const path = `${folder}/qmp`;
    const server = createServer().listen(path);
    const options = [
      '-machine',
      'pc',
      '-accel',
      'tcg',
      '-m',
      '96',
      '-nodefaults',
      '-display',
      'none',
      '-serial',
      'stdio',
    ];
    const monitor = ['-chardev', `socket,id=char0,path=${path}`, '-mon', 'chardev=char0,mode=control'];
    const child = spawn(process.execPath, [ENTRY, ...options, ...monitor, ...args], { stdio: 'pipe' });
    t.teardown(() => child.kill('SIGKILL'));
    const [socket] = (await once(server, 'connection')) as [Socket];
    server.close();
    const guest = new Guest(child, new Lines(socket));
    await guest.#qmp.next();
    await guest.execute('qmp_capabilities');
    return guest;
  }

  async execute(name: string, args: object = {}): Promise<unknown> {
    this.#qmp.send(`${JSON.stringify({ execute: name, arguments: args })}\n`);
    for (;;) {
      const message: Message = JSON.parse(await this.#qmp.next());
      if ('return' in message) return message['return'];
      if ('error' in message) throw new Error(JSON.stringify(message['error']));
    }
  }

  hmp(line: string): Promise<unknown> {
    return this.execute('human-monitor-command', { 'command-line': line });
  }

  /** A job's end, and what went wrong with it. */
  async job(name: string, args: Message): Promise<string | undefined> {
    await this.execute(name, args);
    for (;;) {
      const jobs = (await this.execute('query-jobs')) as readonly { id: string; status: string; error?: string }[];
      const job = jobs.find(({ id }) => id === args['job-id']);
      if (job?.status === 'concluded') {
        await this.execute('job-dismiss', { id: job.id });
        return job.error;
      }
    }
  }

  type(text: string): void {
    this.#child.stdin?.write(`${text}\n`);
  }

  /** What the console says up to `pattern`; what it said before counts no more. */
  async until(pattern: RegExp): Promise<void> {
    const gone = once(this.#child, 'exit').then(() => {
      throw new Error(`the program has ended: ${this.#stderr.join('')}`);
    });
    gone.catch(() => undefined);
    while (!pattern.test(this.#output)) {
      const more = new Promise<void>(resolve => {
        this.#heard = resolve;
      });
      await Promise.race([more, gone]);
    }
    this.#output = '';
  }

  async ask(): Promise<void> {
    this.type('ask');
  }

  async end(): Promise<void> {
    const exited = once(this.#child, 'exit');
    await this.execute('quit');
    await exited;
  }
}

t.setTimeout(400_000);
t.test('Linux is saved, changed, and made what it was', { skip: noQemuImg, timeout: 390_000 }, async t => {
  const kernel = await guestOrSkip(t, 'linux-i386');
  const firmware = await guestOrSkip(t, 'seabios');
  if (kernel === undefined || firmware === undefined) return;
  const images = imageFolder();
  t.teardown(() => images.remove());
  const disk = images.file('disk.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', disk, '64M');
  const initrd = images.file('initrd');
  writeFileSync(initrd, await initramfs({ init: INIT, modules: [], files: {} }));
  const args = [
    '-L',
    firmware.directory,
    '-kernel',
    kernel.vmlinuz,
    '-initrd',
    initrd,
    '-append',
    'console=ttyS0 quiet',
  ];
  args.push('-drive', `if=ide,id=d0,node-name=n0,format=qcow2,file=${disk}`);

  const guest = await Guest.start(t, images.dir, args);
  await guest.until(/READY/);
  guest.type('first');
  await guest.hmp('qemu-io d0 "write -P 1 0 512"');
  t.equal(await guest.hmp('savevm one'), '');
  t.match(await guest.hmp('info snapshots'), /-- {8}one {14}/);

  guest.type('second');
  await guest.hmp('qemu-io d0 "write -P 2 0 512"');
  await guest.ask();
  await guest.until(/value is second/);
  t.equal(await guest.hmp('loadvm one'), '');
  await guest.ask();
  await guest.until(/value is first/);
  t.equal(await guest.hmp('qemu-io d0 "read -P 1 0 512"'), '');
  await guest.until(/^read 512\/512 bytes/m);
  t.pass('the disk too');
  t.match(await guest.hmp('loadvm none'), /Error: Snapshot 'none' does not exist/);

  const job = { 'job-id': 'job', tag: 'two', devices: ['n0'] };
  guest.type('third');
  await guest.ask();
  await guest.until(/value is third/);
  t.equal(await guest.job('snapshot-save', { ...job, vmstate: 'n0' }), undefined);
  t.match(await guest.job('snapshot-save', { ...job, vmstate: 'n0' }), /already exists in one or more devices/);
  t.match(await guest.job('snapshot-load', { ...job, vmstate: 'n9' }), /vmstate block device 'n9' does not exist/);
  t.equal(await guest.job('snapshot-load', { ...job, tag: 'one', vmstate: 'n0' }), undefined);
  await guest.ask();
  await guest.until(/value is first/);
  t.equal(await guest.job('snapshot-delete', { ...job, tag: 'one' }), undefined);
  t.equal(await guest.hmp('savevm three'), '');
  t.equal(await guest.hmp('delvm three'), '');
  t.match(await guest.hmp('info snapshots'), /^List[^\n]*\n[^\n]*\n-- {8}two [^\n]*\n$/);
  await guest.end();

  const later = await Guest.start(t, images.dir, [...args, '-loadvm', 'two']);
  await later.ask();
  await later.until(/value is third/);
  await later.end();
});
