import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { freePort } from '../free-port.ts';

t.setTimeout(180_000);

const PROGRAM = join(import.meta.dirname, '../../southbridge.js');
const QEMU = '/usr/bin/qemu-system-x86_64';
const noQemu = existsSync(QEMU) ? false : 'this host has no QEMU';

/** A machine that does not run, with a card on one end of a cable and a dump of what goes over it. */
class End {
  readonly dump: string;
  readonly #process: ChildProcess;
  readonly #path: string;
  #monitor: Socket | undefined;
  #text = '';
  #heard: () => void = () => {};

  constructor(t: Test, folder: string, name: string, command: readonly string[], netdev: string, mac: string) {
    this.dump = join(folder, `${name}.pcap`);
    this.#path = join(folder, `${name}.qmp`);
    const [program = '', ...first] = command;
    const options = `-M pc -S -nodefaults -display none -netdev ${netdev} -device e1000,netdev=n,mac=${mac} -qmp unix:${this.#path},server=on,wait=off`;
    const dump = ['-object', `filter-dump,id=d,netdev=n,file=${this.dump}`];
    this.#process = spawn(program, [...first, ...options.split(' '), ...dump], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    t.teardown(() => this.#process.kill());
  }

  async start(): Promise<void> {
    for (;;) {
      const socket = connect(this.#path);
      const opened = await Promise.race([
        once(socket, 'connect').then(() => true),
        once(socket, 'error').then(() => false),
      ]).catch(() => false);
      if (opened) {
        this.#monitor = socket;
        break;
      }
      await new Promise(done => setTimeout(done, 50));
    }
    this.#monitor.on('data', data => {
      this.#text += data.toString();
      this.#heard();
    });
    await this.ask('qmp_capabilities');
  }

  /** Runs a command and waits for its answer. */
  async ask(execute: string, parameters: object = {}): Promise<void> {
    const before = this.#text.split('"return"').length;
    this.#monitor?.write(`${JSON.stringify({ execute, arguments: parameters })}\n`);
    while (this.#text.split('"return"').length === before) {
      await new Promise<void>(done => {
        this.#heard = done;
      });
    }
  }

  /** Frames in the dump that come from `mac`, a reverse ARP request each. */
  async announcementsFrom(mac: string): Promise<number> {
    const address = Buffer.from(mac.replaceAll(':', ''), 'hex');
    for (let attempt = 0; attempt < 400; attempt++) {
      const bytes = existsSync(this.dump) ? readFileSync(this.dump) : Buffer.alloc(0);
      let count = 0;
      for (let at = 24; at + 16 <= bytes.length; at += 16 + bytes.readUInt32LE(at + 8)) {
        const frame = bytes.subarray(at + 16, at + 16 + bytes.readUInt32LE(at + 8));
        if (frame.length === 60 && frame.readUInt16BE(12) === 0x8035 && frame.subarray(6, 12).equals(address)) count++;
      }
      if (count > 0) return count;
      await new Promise(done => setTimeout(done, 50));
    }
    return 0;
  }
}

const ANNOUNCE = { initial: 20, max: 100, rounds: 3, step: 20 };
const [OURS, THEIRS] = ['52:54:00:00:00:01', '52:54:00:00:00:02'];

for (const [peer, command, skip] of [
  ['another of ours', [process.execPath, PROGRAM, '-accel', 'qtest'], false],
  ['QEMU', [QEMU, '-accel', 'tcg'], noQemu],
] as const) {
  t.test(`a machine and ${peer} hear each other over a cable: socket and stream`, { skip }, async t => {
    for (const kind of ['socket', 'stream'] as const) {
      const folder = mkdtempSync(join(tmpdir(), 'southbridge-cable-'));
      t.teardown(() => rmSync(folder, { recursive: true }));
      const port = await freePort();
      const [listening, calling] =
        kind === 'socket'
          ? [`socket,id=n,listen=127.0.0.1:${port}`, `socket,id=n,connect=127.0.0.1:${port}`]
          : [
              `stream,id=n,server=on,addr.type=inet,addr.host=127.0.0.1,addr.port=${port}`,
              `stream,id=n,addr.type=inet,addr.host=127.0.0.1,addr.port=${port}`,
            ];
      const own = new End(t, folder, 'own', [process.execPath, PROGRAM, '-accel', 'qtest'], listening, OURS);
      await own.start();
      const other = new End(t, folder, 'other', command, calling, THEIRS);
      await other.start();
      // QEMU keeps the frames of a machine that is stopped.
      for (const end of [own, other]) await end.ask('cont');
      await own.ask('announce-self', ANNOUNCE);
      t.ok((await other.announcementsFrom(OURS)) > 0, `${kind}: ${peer} hears us`);
      await other.ask('announce-self', ANNOUNCE);
      t.ok((await own.announcementsFrom(THEIRS)) > 0, `${kind}: we hear ${peer}`);
      await own.ask('quit');
      await other.ask('quit');
    }
  });
}
