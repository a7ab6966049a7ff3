import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { ERRNO } from '../../core/fsdev/errno.ts';
import { deviceNumber } from '../../core/fsdev/file-status.ts';
import { HostTree } from '../../core/fsdev/host-tree.ts';
import { LocalTree, type LocalTreeOptions, type SecurityModel } from '../../core/fsdev/local-tree.ts';
import { SynthTree } from '../../core/fsdev/synth-tree.ts';
import { type Bench, bench } from '../../core/testing/bench.ts';
import { VirtioDriver } from '../../core/testing/virtio-driver.ts';
import type { DriverQueue } from '../../core/testing/virtio-driver-queue.ts';
import { T } from '../../devices/virtio-9p/protocol.ts';
import { virtio9pPci } from '../../devices/virtio-9p/virtio-9p.ts';
import { noAddon } from '../core/host/addon.ts';

const REQUEST = 0x20_0000;
const ANSWER = 0x30_0000;
const ANSWER_SIZE = 0x1_0000;
const MSIZE = 0x1_0000;
const RLERROR = 7;
const DIRECTORY = 0o200000;
const WRONLY = 1;
const RDWR = 2;

/** Fields of a message: a width and a value, or a string. */
type Part = readonly [bits: 8 | 16 | 32 | 64, value: number] | string | Uint8Array;

/** A client of our own: what a driver sends, byte by byte. */
class Client {
  readonly lab: Bench;
  readonly driver: VirtioDriver;
  readonly queue: DriverQueue;
  #tag = 0;

  constructor(lab: Bench, driver: VirtioDriver) {
    this.lab = lab;
    this.driver = driver;
    driver.negotiate(1n);
    this.queue = driver.queue(0);
    driver.start();
  }

  static bytes(type: number, tag: number, parts: readonly Part[]): Buffer {
    const body = parts.map(part => {
      if (typeof part === 'string') {
        const text = Buffer.from(part, 'latin1');
        return Buffer.concat([Buffer.of(text.length & 0xff, text.length >> 8), text]);
      }
      if (part instanceof Uint8Array) return Buffer.from(part);
      const [bits, value] = part;
      const word = Buffer.alloc(8);
      word.writeBigUInt64LE(BigInt(value));
      return word.subarray(0, bits / 8);
    });
    const message = Buffer.concat([Buffer.alloc(7), ...body]);
    message.writeUInt32LE(message.length, 0);
    message.writeUInt8(type, 4);
    message.writeUInt16LE(tag, 5);
    return message;
  }

  /** Makes a request available; returns its tag. */
  send(type: number, ...parts: readonly Part[]): number {
    this.#tag = (this.#tag + 1) & 0xfff;
    const message = Client.bytes(type, this.#tag, parts);
    this.raw(message);
    return this.#tag;
  }

  raw(message: Uint8Array, room = ANSWER_SIZE): void {
    const at = REQUEST + ((this.#tag * 0x1000 * (message.length > 0x1000 ? 0 : 1)) % 0x10_0000);
    this.driver.ram.bytes.set(message, at);
    this.queue.add([
      { address: at, length: message.length },
      { address: ANSWER, length: room, writable: true },
    ]);
    this.queue.kick();
  }

  /** The answer's bytes, header and all. */
  received(): Buffer {
    const used = this.queue.used();
    if (used === undefined) throw new Error('no answer');
    return Buffer.from(this.driver.ram.bytes.slice(ANSWER, ANSWER + used.length));
  }

  /** A request and its answer's body; a number where it is an error. */
  ask(type: number, ...parts: readonly Part[]): Buffer | number {
    this.send(type, ...parts);
    const answer = this.received();
    if (answer.readUInt32LE(0) !== answer.length) throw new Error('the length is wrong');
    if (answer[4] === RLERROR) return answer.readUInt32LE(7);
    if (answer[4] !== type + 1) throw new Error(`an answer of type ${answer[4]}`);
    return answer.subarray(7);
  }

  ok(type: number, ...parts: readonly Part[]): Buffer {
    const answer = this.ask(type, ...parts);
    if (typeof answer === 'number') throw new Error(`message ${type} failed: ${answer}`);
    return answer;
  }

  attach(): void {
    this.ok(T.VERSION, [32, MSIZE], '9P2000.L');
    this.ok(T.ATTACH, [32, 0], [32, 0xffff_ffff], 'nobody', '', [32, 1000]);
  }

  walk(to: number, path: string, from = 0): Buffer | number {
    const names = path === '' ? [] : path.split('/');
    return this.ask(T.WALK, [32, from], [32, to], [16, names.length], ...names);
  }

  clunk(fid: number): number {
    const answer = this.ask(T.CLUNK, [32, fid]);
    return typeof answer === 'number' ? answer : 0;
  }

  /** Mode, uid, gid, size of a path. */
  status(path: string): { mode: number; uid: number; gid: number; rdev: number; size: number } | number {
    const walked = this.walk(90, path);
    if (typeof walked === 'number') return walked;
    const answer = this.ok(T.GETATTR, [32, 90], [64, 0x7ff]);
    this.clunk(90);
    return {
      mode: answer.readUInt32LE(21),
      uid: answer.readUInt32LE(25),
      gid: answer.readUInt32LE(29),
      rdev: Number(answer.readBigUInt64LE(41)),
      size: Number(answer.readBigUInt64LE(49)),
    };
  }

  create(folder: string, name: string, text: string, mode = 0o640): number {
    this.walk(91, folder);
    const made = this.ask(T.LCREATE, [32, 91], name, [32, RDWR], [32, mode], [32, 100]);
    if (typeof made !== 'number') this.ok(T.WRITE, [32, 91], [64, 0], [32, text.length], Buffer.from(text));
    this.clunk(91);
    return typeof made === 'number' ? made : 0;
  }

  read(path: string): string | number {
    const walked = this.walk(92, path);
    if (typeof walked === 'number') return walked;
    if (walked.readUInt16LE(0) < path.split('/').length) return ERRNO.ENOENT;
    const opened = this.ask(T.LOPEN, [32, 92], [32, 0]);
    const answer = typeof opened === 'number' ? opened : this.ok(T.READ, [32, 92], [64, 0], [32, 4096]);
    this.clunk(92);
    return typeof answer === 'number' ? answer : answer.subarray(4).toString();
  }

  names(path: string): string[] {
    this.walk(93, path);
    this.ok(T.LOPEN, [32, 93], [32, DIRECTORY]);
    const found: string[] = [];
    for (let low = 0, high = 0; ; ) {
      const answer = this.ok(T.READDIR, [32, 93], [32, low], [32, high], [32, 200]);
      if (answer.readUInt32LE(0) === 0) break;
      for (let at = 4; at < answer.length; ) {
        low = answer.readUInt32LE(at + 13);
        high = answer.readUInt32LE(at + 17);
        const length = answer.readUInt16LE(at + 22);
        found.push(answer.toString('latin1', at + 24, at + 24 + length));
        at += 24 + length;
      }
    }
    this.clunk(93);
    return found.sort();
  }
}

function folder(t: Test): string {
  const path = mkdtempSync(join(tmpdir(), 'southbridge-9p-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

function serve(t: Test, path: string, model: SecurityModel, more: Partial<LocalTreeOptions> = {}): Client {
  const tree = new LocalTree('share', {
    path,
    securityModel: model,
    readOnly: false,
    immediateWriteout: false,
    multipleDevices: 'remap',
    modes: { file: 0o600, folder: 0o700 },
    ...more,
  });
  const lab = bench();
  t.teardown(() => lab.dispose());
  const client = new Client(lab, new VirtioDriver(lab, lab.pci(virtio9pPci, { fsdev: tree, mount_tag: 'share' })));
  client.attach();
  return client;
}

const MODELS: readonly SecurityModel[] = ['none', 'mapped-xattr', 'mapped-file'];

for (const model of MODELS) {
  t.test(`${model}: files, folders, links`, { skip: noAddon }, async t => {
    const path = folder(t);
    const client = serve(t, path, model);
    t.equal(client.create('', 'note', 'hello'), 0);
    t.equal(readFileSync(join(path, 'note'), 'latin1'), 'hello');
    t.equal(client.read('note'), 'hello');
    t.equal(client.create('', 'note', 'again'), 0, 'a file that is there is opened');
    client.walk(1, '');
    client.ok(T.MKDIR, [32, 1], 'sub', [32, 0o750], [32, 7]);
    t.equal(client.ask(T.MKDIR, [32, 1], 'sub', [32, 0o750], [32, 7]), ERRNO.EEXIST);
    t.equal(client.ask(T.MKDIR, [32, 1], '..', [32, 0o750], [32, 7]), ERRNO.EEXIST);
    client.ok(T.SYMLINK, [32, 1], 'pointer', '/etc/passwd', [32, 7]);
    client.walk(2, 'pointer');
    t.equal(client.ok(T.READLINK, [32, 2]).subarray(2).toString(), '/etc/passwd');
    client.walk(3, 'note');
    client.ok(T.LINK, [32, 1], [32, 3], 'twin');
    t.same(client.names(''), ['.', '..', 'note', 'pointer', 'sub', 'twin']);

    client.walk(4, 'sub');
    client.ok(T.RENAMEAT, [32, 1], 'note', [32, 4], 'moved');
    t.equal(client.read('sub/moved'), 'again');
    t.equal(client.read('note'), ERRNO.ENOENT);
    client.ok(T.RENAMEAT, [32, 1], 'sub', [32, 1], 'folder');
    t.same(client.ask(T.RENAMEAT, [32, 1], 'folder', [32, 1], '..'), ERRNO.EISDIR);
    client.ok(T.RENAME, [32, 3], [32, 1], 'note');
    t.equal(client.read('note'), 'again', 'a fid follows its file, and so do those below a folder');
    t.equal(client.ask(T.UNLINKAT, [32, 1], 'folder', [32, 0]), ERRNO.EISDIR);
    client.ok(T.MKDIR, [32, 4], 'deeper', [32, 0o700], [32, 7]);
    t.equal(client.ask(T.UNLINKAT, [32, 1], 'folder', [32, 0x200]) !== 0, true, 'it is not empty');
    client.ok(T.UNLINKAT, [32, 1], 'pointer', [32, 0]);
    client.ok(T.UNLINKAT, [32, 4], 'deeper', [32, 0x200]);
    client.ok(T.REMOVE, [32, 3]);
    t.same(client.names(''), ['.', '..', 'folder', 'twin']);
    client.ok(T.UNLINKAT, [32, 1], 'twin', [32, 0]);
    client.ok(T.UNLINKAT, [32, 1], 'folder', [32, 0x200]);
    t.same(
      readdirSync(path).filter(name => !name.startsWith('.virtfs')),
      [],
    );
  });
}

for (const model of ['mapped-xattr', 'mapped-file'] as const) {
  t.test(`${model}: owners, modes and nodes are the guest's alone`, { skip: noAddon }, async t => {
    const path = folder(t);
    const client = serve(t, path, model);
    if (client.create('', 'probe', '') === ERRNO.EOPNOTSUPP) {
      t.pass('no extended attributes here');
      return;
    }
    client.create('', 'note', 'hello', 0o4755);
    t.match(client.status('note'), { mode: 0o104755, uid: 1000, gid: 100, size: 5 });
    t.equal(lstatSync(join(path, 'note')).mode & 0o7777, 0o600, 'on the host it is ours, and plain');
    client.walk(1, '');
    client.ok(T.MKNOD, [32, 1], 'console', [32, 0o020620], [32, 5], [32, 300], [32, 9]);
    t.match(client.status('console'), { mode: 0o020620, gid: 9, rdev: deviceNumber(5, 300) });
    t.ok(lstatSync(join(path, 'console')).isFile());
    client.ok(T.SYMLINK, [32, 1], 'pointer', 'note', [32, 9]);
    t.match(client.status('pointer'), { mode: 0o120777 });
    t.ok(lstatSync(join(path, 'pointer')).isFile(), 'the host sees no link');
    client.walk(2, 'note');
    client.ok(T.SETATTR, [32, 2], [32, 1 | 2], [32, 0o100600], [32, 42], [32, 0], ...times());
    t.match(client.status('note'), { mode: 0o100600, uid: 42, gid: 100 });
    client.ok(T.SETATTR, [32, 2], [32, 8], [32, 0], [32, 0], [32, 0], [64, 2], [64, 0], [64, 0], [64, 0], [64, 0]);
    t.equal(client.read('note'), 'he');
    client.ok(T.LINK, [32, 1], [32, 2], 'twin');
    t.match(client.status('twin'), { uid: 42 }, 'another name, the same owner');
    client.ok(T.RENAMEAT, [32, 1], 'twin', [32, 1], 'third');
    t.match(client.status('third'), { uid: 42 });
    client.ok(T.SETATTR, [32, 1], [32, 2], [32, 0], [32, 77], [32, 0], ...times());
    t.match(client.status(''), { uid: 77 }, 'the root has an owner too');
    t.same(
      client.names('').filter(name => name.startsWith('.virtfs')),
      [],
    );
  });
}

const times = (): readonly Part[] => [
  [64, 0],
  [64, 0],
  [64, 0],
  [64, 0],
  [64, 0],
];

t.test('nothing outside of the folder can be reached', { skip: noAddon }, async t => {
  const outside = folder(t);
  writeFileSync(join(outside, 'secret'), 'secret');
  const path = join(outside, 'share');
  mkdirSync(path);
  symlinkSync(outside, join(path, 'up'));
  symlinkSync('../secret', join(path, 'file'));
  for (const model of MODELS) {
    const client = serve(t, path, model);
    t.equal(client.read('../secret'), ERRNO.ENOENT, 'above the root is the root');
    t.equal(client.read('up/secret'), ERRNO.ENOENT, 'no link is followed');
    t.equal(client.read('file'), ERRNO.ELOOP);
    t.not(client.create('up', 'planted', 'x'), 0);
    client.walk(1, '');
    for (const name of ['../planted', 'a/../../planted', '', 'nul\0'])
      t.type(client.ask(T.MKDIR, [32, 1], name, [32, 0o700], [32, 0]), 'number', `refused: ${JSON.stringify(name)}`);
    client.walk(2, 'file');
    t.type(client.ask(T.SETATTR, [32, 2], [32, 8], [32, 0], [32, 0], [32, 0], ...times()), 'number');
    if (model === 'none') {
      t.equal(client.ask(T.SETATTR, [32, 2], [32, 1], [32, 0o777], [32, 0], [32, 0], ...times()), ERRNO.ELOOP);
      client.ok(T.RENAMEAT, [32, 1], 'up', [32, 1], 'down');
      t.ok(lstatSync(join(path, 'down')).isSymbolicLink(), 'a link itself may be renamed');
      client.ok(T.RENAMEAT, [32, 1], 'down', [32, 1], 'up');
    }
  }
  t.equal(readFileSync(join(outside, 'secret'), 'latin1'), 'secret');
  t.equal(lstatSync(join(outside, 'secret')).mode & 0o111, 0);
  t.notOk(existsSync(join(outside, 'planted')));
});

t.test('a folder that is swapped for a link under the server is not followed', { skip: noAddon }, async t => {
  const outside = folder(t);
  mkdirSync(join(outside, 'private'));
  writeFileSync(join(outside, 'private', 'secret'), 'secret');
  const path = join(outside, 'share');
  mkdirSync(join(path, 'sub'), { recursive: true });
  const client = serve(t, path, 'none');
  client.walk(5, 'sub');
  rmSync(join(path, 'sub'), { recursive: true });
  symlinkSync(join(outside, 'private'), join(path, 'sub'));
  t.type(client.walk(6, 'secret', 5), 'number');
  t.type(client.ask(T.LCREATE, [32, 5], 'planted', [32, WRONLY], [32, 0o600], [32, 0]), 'number');
  t.notOk(existsSync(join(outside, 'private', 'planted')));
});

t.test('extended attributes', { skip: noAddon }, async t => {
  const path = folder(t);
  const client = serve(t, path, 'mapped-xattr');
  if (client.create('', 'note', 'x') !== 0) {
    t.pass('no extended attributes here');
    return;
  }
  const set = (name: string, value: string, flags = 0): number => {
    client.walk(1, 'note');
    const began = client.ask(T.XATTRCREATE, [32, 1], name, [64, value.length], [32, flags]);
    if (typeof began !== 'number' && value !== '')
      client.ok(T.WRITE, [32, 1], [64, 0], [32, value.length], Buffer.from(value));
    const ended = client.clunk(1);
    return typeof began === 'number' ? began : ended;
  };
  const get = (name: string): string | number => {
    client.walk(1, 'note');
    const walked = client.ask(T.XATTRWALK, [32, 1], [32, 2], name);
    if (typeof walked !== 'number') {
      const value = client.ok(T.READ, [32, 2], [64, 0], [32, 4096]).subarray(4).toString();
      client.clunk(1);
      client.clunk(2);
      return value;
    }
    client.clunk(1);
    return walked;
  };
  t.equal(set('user.colour', 'green'), 0);
  t.equal(get('user.colour'), 'green');
  t.equal(set('user.colour', 'blue', 1), ERRNO.EEXIST);
  t.equal(set('user.none', 'blue', 2), ERRNO.ENODATA);
  t.equal(set('system.posix_acl_access', 'list'), 0, 'a list of the guest, which the host does not obey');
  t.equal(get('system.posix_acl_access'), 'list');
  t.same(String(get('')).split('\0').sort(), ['', 'system.posix_acl_access', 'user.colour']);
  t.equal(set('user.virtfs.uid', 'root'), ERRNO.EOPNOTSUPP, "what is noted of the file is not the guest's to change");
  t.equal(get('user.virtfs.uid'), ERRNO.EOPNOTSUPP);
  t.equal(set('security.x', 'y'), ERRNO.EOPNOTSUPP);
  t.equal(set('user.colour', ''), 0);
  t.equal(get('user.colour'), ERRNO.ENODATA);
  t.equal(set('system.posix_acl_access', ''), 0);
  t.equal(set('system.posix_acl_access', ''), 0, 'no list is as good as none');
  client.walk(1, 'note');
  client.ok(T.XATTRCREATE, [32, 1], 'user.short', [64, 10], [32, 0]);
  t.equal(client.ask(T.WRITE, [32, 1], [64, 11], [32, 1], Buffer.of(1)), ERRNO.ENOSPC);
  t.equal(client.clunk(1), ERRNO.EINVAL, 'not all of it was written');
  client.walk(1, 'note');
  t.equal(client.ask(T.XATTRCREATE, [32, 1], 'user.long', [64, 0x1_0001], [32, 0]), ERRNO.E2BIG);
});

t.test('a folder for reading only, and the rest of the messages', { skip: noAddon }, async t => {
  const path = folder(t);
  writeFileSync(join(path, 'note'), 'hello');
  const client = serve(t, path, 'none', { readOnly: true });
  client.walk(1, '');
  t.equal(client.ask(T.MKDIR, [32, 1], 'sub', [32, 0o700], [32, 0]), ERRNO.EROFS);
  t.equal(client.create('', 'new', 'x'), ERRNO.EROFS);
  client.walk(2, 'note');
  t.equal(client.ask(T.LOPEN, [32, 2], [32, RDWR]), ERRNO.EROFS);
  t.equal(client.read('note'), 'hello');
  client.ok(T.LOPEN, [32, 2], [32, 0]);
  t.equal(client.ask(T.LOPEN, [32, 2], [32, 0]), ERRNO.EINVAL, 'it is open');
  t.equal(client.walk(3, 'x', 2), ERRNO.ENOTDIR);
  t.equal(client.ask(T.LOCK, [32, 2], [8, 1], [32, 1], [64, 0], [64, 0], [32, 1], 'me') instanceof Buffer, true);
  const lock = client.ok(T.GETLOCK, [32, 2], [8, 1], [64, 5], [64, 6], [32, 7], 'me');
  t.same([lock[0], lock.readUInt32LE(1), lock.readUInt32LE(9), lock.readUInt32LE(17)], [2, 5, 6, 7]);
  client.ok(T.FSYNC, [32, 2], [32, 0]);
  t.ok(client.ok(T.STATFS, [32, 1]).readUInt32LE(4) > 0);
  t.equal(client.ask(T.AUTH, [32, 2], 'a', 'b', [32, 0]), ERRNO.EOPNOTSUPP);
  t.equal(client.ask(T.ATTACH, [32, 0], [32, 0], '', '', [32, 0]), ERRNO.EINVAL, 'that fid is in use');
  t.equal(client.clunk(77), ERRNO.ENOENT);
  t.equal(client.ok(T.VERSION, [32, MSIZE], '9P2000').subarray(6).toString(), 'unknown');
  t.equal(client.ask(T.VERSION, [32, 100], '9P2000.L'), ERRNO.EMSGSIZE);
  t.equal(client.walk(1, ''), ERRNO.ENOENT, 'a new conversation has no fids');
});

t.test('what breaks the protocol stops the device until it is reset', async t => {
  const short = Client.bytes(T.WALK, 1, [[32, 0]]);
  for (const [message, room] of [
    [short, ANSWER_SIZE],
    [Buffer.alloc(3), ANSWER_SIZE],
    [Client.bytes(T.VERSION, 1, [[32, MSIZE], '9P2000.L']), 4],
    [Client.bytes(T.VERSION, 1, [[32, MSIZE], '9P2000.L']), 9],
  ] as const) {
    const lab = bench();
    t.teardown(() => lab.dispose());
    const probe = lab.pci(virtio9pPci, { fsdev: new SynthTree('tree', false), mount_tag: 'share' });
    const client = new Client(lab, new VirtioDriver(lab, probe));
    client.raw(message, room);
    t.equal(client.queue.used(), undefined);
    t.equal(client.driver.status & 64, 64, 'DEVICE_NEEDS_RESET');
    const again = new Client(lab, client.driver);
    again.attach();
    t.type(again.walk(1, 'WALK0'), Buffer);
  }
});

t.test('state: fids, open files and a request that waits come back', { skip: noAddon }, async t => {
  const path = folder(t);
  writeFileSync(join(path, 'note'), 'hello');
  const client = serve(t, path, 'none');
  client.walk(1, 'note');
  client.ok(T.LOPEN, [32, 1], [32, RDWR]);
  const [device] = client.lab.machine.findBus('virtio-bus')?.devices ?? [];
  if (device === undefined) throw new TypeError('there is no device');
  const read = (): string | number => {
    const answer = client.ask(T.READ, [32, 1], [64, 0], [32, 10]);
    return typeof answer === 'number' ? answer : answer.subarray(4).toString();
  };
  t.equal(read(), 'hello');
  rmSync(join(path, 'note'));
  writeFileSync(join(path, 'note'), 'other');
  t.equal(read(), 'hello', 'an open file outlives its name');
  device.restore(device.save());
  t.equal(read(), 'other', 'what is open is opened again by its name');
  const saved = device.save();
  rmSync(join(path, 'note'));
  device.restore(saved);
  t.equal(read(), ERRNO.ESTALE, 'where it is gone its use fails');
  t.equal(client.clunk(1), 0);
});

t.test('a write that waits is tried again, or given up by a flush', async t => {
  const lab = bench();
  t.teardown(() => lab.dispose());
  const probe = lab.pci(virtio9pPci, { fsdev: new SynthTree('tree', false), mount_tag: 'share' });
  const client = new Client(lab, new VirtioDriver(lab, probe));
  client.attach();
  client.walk(1, 'FLUSH');
  client.ok(T.LOPEN, [32, 1], [32, WRONLY]);
  const tag = client.send(T.WRITE, [32, 1], [64, 0], [32, 1], Buffer.of(1));
  t.equal(client.queue.used(), undefined, 'it waits');
  const flush = client.send(T.FLUSH, [16, tag]);
  t.equal(client.received().length, 0, 'given back with nothing');
  t.equal(client.received().readUInt16LE(5), flush);
  client.send(T.WRITE, [32, 1], [64, 0], [32, 1], Buffer.of(1));
  t.equal(client.queue.used(), undefined);
  t.same(client.ok(T.FLUSH, [16, 999]).length, 0, 'what is not there needs no flush');
});

t.test('properties', { skip: noAddon }, async t => {
  const lab = bench();
  t.teardown(() => lab.dispose());
  const tree = new SynthTree('tree', false);
  t.throws(() => lab.pci(virtio9pPci, {}), { message: "9pfs device couldn't find fsdev with the id = NULL" });
  t.throws(() => lab.pci(virtio9pPci, { fsdev: tree }), { message: 'fsdev with id tree needs mount_tag arguments' });
  t.throws(() => lab.pci(virtio9pPci, { fsdev: tree, mount_tag: 'x'.repeat(32) }), {
    message: /longer than maximum \(31/,
  });
  t.throws(() => serve(t, join(folder(t), 'missing'), 'none'), { message: /failed to open .*missing': No such file/ });
  t.throws(() => new HostTree(0).status(1 as never, undefined as never), TypeError);
});
