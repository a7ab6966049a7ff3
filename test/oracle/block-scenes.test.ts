/**
 * What management tools do with images, to QEMU and to us: bitmaps, backups, mirrors, commits, streams, reopens and images
 * made by the monitor. Every answer and every event of a job must agree, and what is in the images afterwards too.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { imageFolder, noQemuImg, qemuCheck, qemuImg } from '../core/block/images.ts';
import type { Json } from './qmp-monitor.ts';
import { compareJson } from './qmp-player.ts';
import { findQemu, type Player, southbridge } from './qtest-player.ts';

const qemu = findQemu();
const skip = qemu === undefined ? 'qemu-system-x86_64 is not installed: nothing to compare with' : noQemuImg;
t.setTimeout(600_000);

type Arguments = { readonly [key: string]: Json };
type Message = { readonly [key: string]: Json };

function isRecord(value: Json | undefined): value is Message {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** One machine without a guest, in a folder of its own, and all that it has said so far. */
class Stage {
  readonly folder: string;
  readonly transcript: { readonly what: string; readonly said: Json }[] = [];
  readonly #socket: Socket;
  readonly #end: () => Promise<void>;
  readonly #messages: Message[] = [];
  #wake: () => void = () => {};
  #rest = '';
  #closed = false;

  private constructor(folder: string, socket: Socket, end: () => Promise<void>) {
    this.folder = folder;
    this.#socket = socket;
    this.#end = end;
    socket.on('error', () => {});
    socket.on('close', () => {
      this.#closed = true;
      this.#wake();
    });
    socket.on('data', (chunk: Buffer) => {
      const lines = (this.#rest + chunk.toString()).split('\n');
      this.#rest = lines.pop() ?? '';
      for (const line of lines) if (line.trim() !== '') this.#messages.push(JSON.parse(line));
      this.#wake();
    });
  }

  static async open(player: Player, folder: string, more: readonly string[] = []): Promise<Stage> {
    const path = join(folder, 'qmp');
    fs.rmSync(path, { force: true });
    const server = createServer();
    server.listen(path);
    await once(server, 'listening');
    const [program = '', ...args] = player.command;
    const options = ['-S', '-machine', 'none', '-nodefaults', '-display', 'none', ...more];
    const child = spawn(program, [...args, ...options, '-qmp', `unix:${path}`], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    // Where a scene fails, it does not say goodbye.
    t.teardown(() => child.kill('SIGKILL'));
    let stderr = '';
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    const exited = once(child, 'exit');
    const gone = exited.then(([code]) => Promise.reject(new Error(`${player.name} exited with ${code}: ${stderr}`)));
    gone.catch(() => {});
    const [socket] = (await Promise.race([once(server, 'connection'), gone])) as [Socket];
    const stage = new Stage(folder, socket, async () => {
      await exited;
      socket.destroy();
      server.close();
    });
    await stage.#take(message => 'QMP' in message);
    await stage.#answer('qmp_capabilities', {});
    return stage;
  }

  file(name: string): string {
    return join(this.folder, name);
  }

  /** The first message that fits; those before it stay. */
  async #take(fits: (message: Message) => boolean): Promise<Message> {
    for (;;) {
      const index = this.#messages.findIndex(fits);
      const [found] = index < 0 ? [] : this.#messages.splice(index, 1);
      if (found !== undefined) return found;
      if (this.#closed) throw new Error('the program has ended');
      await new Promise<void>(resolve => {
        this.#wake = resolve;
      });
    }
  }

  async #answer(execute: string, args: Arguments): Promise<Json> {
    this.#socket.write(`${JSON.stringify({ execute, arguments: args })}\n`);
    const message = await this.#take(one => 'return' in one || 'error' in one);
    return 'return' in message ? (message['return'] ?? null) : { error: message['error'] ?? null };
  }

  #note(what: string, said: Json): void {
    const text = JSON.stringify(said)
      .replaceAll(this.folder, 'FOLDER')
      .replaceAll(/#block\d+/g, '#block');
    this.transcript.push({ what, said: JSON.parse(text) });
  }

  /** A command whose answer is compared. */
  async say(execute: string, args: Arguments = {}, pick: (answer: Json) => Json = answer => answer): Promise<Json> {
    const answer = await this.#answer(execute, args);
    this.#note(`${execute} ${JSON.stringify(args).replaceAll(this.folder, 'FOLDER')}`, pick(answer));
    return answer;
  }

  /** Waits for an event; all of its data but times and speeds is compared. */
  async hear(event: string, fits: (data: Message) => boolean = () => true): Promise<void> {
    const message = await this.#take(one => one['event'] === event && isRecord(one['data']) && fits(one['data']));
    this.#note(event, message['data'] ?? null);
  }

  /** Waits until a job that stays is over, says how it went, and forgets it. */
  async concluded(id: string): Promise<void> {
    await this.#take(
      one =>
        one['event'] === 'JOB_STATUS_CHANGE' &&
        isRecord(one['data']) &&
        one['data']['id'] === id &&
        one['data']['status'] === 'concluded',
    );
    const jobs = await this.#answer('query-jobs', {});
    const job = Array.isArray(jobs) ? jobs.find(one => isRecord(one) && one['id'] === id) : undefined;
    this.#note(`how ${id} went`, isRecord(job) ? { type: job['type'] ?? null, error: job['error'] ?? null } : null);
    await this.say('job-dismiss', { id });
  }

  /** Does something to a node that is not compared: what it writes is. */
  async io(node: string, command: string): Promise<void> {
    await this.#answer('human-monitor-command', { 'command-line': `qemu-io ${node} "${command}"` });
  }

  async add(name: string, file: string, more: Arguments = {}): Promise<void> {
    await this.say('blockdev-add', {
      'node-name': name,
      driver: 'qcow2',
      file: { driver: 'file', filename: this.file(file) },
      ...more,
    });
  }

  bitmaps(): Promise<Json> {
    return this.say('query-named-block-nodes', { flat: true }, nodes =>
      Array.isArray(nodes)
        ? nodes
            .filter(isRecord)
            .filter(node => 'dirty-bitmaps' in node)
            .map(node => ({ 'node-name': node['node-name'] ?? null, bitmaps: node['dirty-bitmaps'] ?? null }))
        : nodes,
    );
  }

  async quit(): Promise<void> {
    this.#socket.write('{"execute": "quit"}\n');
    await this.#end();
  }
}

interface Scene {
  readonly name: string;
  readonly options?: readonly string[];
  /** Makes images with qemu-img. */
  readonly prepare?: (file: (name: string) => string) => void;
  readonly play: (stage: Stage, again: () => Promise<Stage>) => Promise<void>;
  /** Images whose content and places must agree afterwards. */
  readonly images?: readonly string[];
}

function qcow2(file: string, size: string, ...more: string[]): void {
  qemuImg('create', '-q', '-f', 'qcow2', ...more, file, size);
}

const bitmap = (node: string, name: string, more: Arguments = {}): Arguments => ({ node, name, ...more });

const SCENES: readonly Scene[] = [
  {
    name: 'incremental backups by a bitmap',
    prepare: file => {
      for (const name of ['disk', 'full', 'inc0', 'inc1']) qcow2(file(`${name}.qcow2`), '4M');
    },
    async play(stage) {
      await stage.add('disk', 'disk.qcow2');
      await stage.io('disk', 'write -P 1 0 256k');
      await stage.add('full', 'full.qcow2');
      const backup = { device: 'disk', target: 'full', sync: 'full', 'job-id': 'b0' };
      await stage.say('transaction', {
        actions: [
          { type: 'block-dirty-bitmap-add', data: bitmap('disk', 'b') },
          { type: 'blockdev-backup', data: backup },
        ],
      });
      await stage.hear('BLOCK_JOB_COMPLETED');
      await stage.io('disk', 'write -P 2 64k 64k');
      await stage.io('disk', 'write -P 3 3M 4k');
      await stage.bitmaps();
      for (const [index, mode] of ['incremental', 'bitmap'].entries()) {
        await stage.add(`inc${index}`, `inc${index}.qcow2`);
        await stage.say('blockdev-backup', {
          device: 'disk',
          target: `inc${index}`,
          sync: mode,
          bitmap: 'b',
          'job-id': `i${index}`,
          ...(mode === 'bitmap' && { 'bitmap-mode': 'never' }),
        });
        await stage.hear('BLOCK_JOB_COMPLETED');
        await stage.bitmaps();
        await stage.io('disk', 'write -P 4 1M 64k');
      }
      const wrong: Arguments[] = [
        { sync: 'incremental' },
        { sync: 'bitmap', bitmap: 'b' },
        { sync: 'incremental', bitmap: 'none' },
        { sync: 'incremental', bitmap: 'b', 'bitmap-mode': 'always' },
        { sync: 'full', bitmap: 'b' },
        { sync: 'none', bitmap: 'b', 'bitmap-mode': 'on-success' },
        { sync: 'full', bitmap: 'b', 'bitmap-mode': 'never' },
        { sync: 'full', 'bitmap-mode': 'never' },
      ];
      for (const options of wrong)
        await stage.say('blockdev-backup', { device: 'disk', target: 'inc0', 'job-id': 'w', ...options });
      await stage.say('blockdev-backup', { device: 'disk', target: 'disk', sync: 'full', 'job-id': 'w' });
      await stage.say('blockdev-backup', { device: 'disk', target: 'nobody', sync: 'full', 'job-id': 'w' });
      await stage.say('blockdev-backup', { device: 'disk', target: 'inc0', sync: 'full' });
      const whole = { sync: 'full', bitmap: 'b', 'bitmap-mode': 'on-success', 'job-id': 'whole' };
      await stage.say('blockdev-backup', { device: 'disk', target: 'inc1', ...whole });
      await stage.hear('BLOCK_JOB_COMPLETED');
      await stage.bitmaps();
    },
    images: ['disk.qcow2', 'full.qcow2', 'inc0.qcow2', 'inc1.qcow2'],
  },
  {
    name: 'a backup that fails leaves the bitmap as its mode says',
    prepare: file => {
      qcow2(file('disk.qcow2'), '1M');
      qcow2(file('target.qcow2'), '1M');
    },
    async play(stage) {
      await stage.add('disk', 'disk.qcow2');
      await stage.say('blockdev-add', {
        'node-name': 'bad',
        driver: 'qcow2',
        file: {
          driver: 'blkdebug',
          image: { driver: 'file', filename: stage.file('target.qcow2') },
          'inject-error': [{ event: 'write_aio', errno: 5 }],
        },
      });
      for (const mode of ['on-success', 'never', 'always']) {
        await stage.say('block-dirty-bitmap-add', bitmap('disk', mode));
        await stage.io('disk', 'write -P 1 128k 64k');
        await stage.say('blockdev-backup', {
          device: 'disk',
          target: 'bad',
          sync: 'bitmap',
          bitmap: mode,
          'bitmap-mode': mode,
          'job-id': 'b',
        });
        await stage.hear('BLOCK_JOB_ERROR');
        await stage.hear('BLOCK_JOB_COMPLETED');
      }
      await stage.bitmaps();
    },
  },
  {
    name: 'what a backup shows of itself while it is there',
    prepare: file => {
      for (const name of ['disk', 'target']) qcow2(file(`${name}.qcow2`), '4M');
    },
    async play(stage) {
      for (const name of ['disk', 'target']) await stage.add(name, `${name}.qcow2`);
      await stage.say('block-dirty-bitmap-add', bitmap('disk', 'older'));
      await stage.say('block-dirty-bitmap-add', bitmap('disk', 'b'));
      await stage.io('disk', 'write -P 1 64k 128k');
      const backup = { device: 'disk', target: 'target', sync: 'bitmap', bitmap: 'b', 'bitmap-mode': 'on-success' };
      const named = { 'filter-node-name': 'backup-top', 'job-id': 'j', 'auto-finalize': false };
      await stage.say('blockdev-backup', { ...backup, ...named });
      await stage.hear('BLOCK_JOB_PENDING');
      await stage.io('backup-top', 'write -P 2 128k 128k');
      await stage.io('backup-top', 'write -P 2 1M 4k');
      await stage.bitmaps();
      await stage.say('x-debug-query-block-graph');
      await stage.say('block-dirty-bitmap-clear', bitmap('disk', 'b'));
      await stage.say('blockdev-backup', { ...backup, 'job-id': 'k' });
      await stage.say('job-finalize', { id: 'j' });
      await stage.hear('BLOCK_JOB_COMPLETED');
      await stage.bitmaps();
      // Somebody else writes below, which a backup does not allow.
      const below = { driver: 'blkdebug', image: 'disk', 'take-child-perms': ['write'] };
      await stage.say('blockdev-add', { 'node-name': 'other', ...below });
      await stage.say('blockdev-add', { 'node-name': 'over', driver: 'raw', file: 'disk' });
      await stage.say('blockdev-backup', { device: 'over', target: 'target', sync: 'full', 'job-id': 'l' });
      await stage.say('x-debug-query-block-graph');
    },
    images: ['disk.qcow2', 'target.qcow2'],
  },
  {
    name: 'errors that are to be ignored: what failed is tried again, or what it came from stays',
    prepare: file => {
      qcow2(file('base.qcow2'), '4M');
      qcow2(file('mid.qcow2'), '4M', '-b', file('base.qcow2'), '-F', 'qcow2');
      qcow2(file('top.qcow2'), '4M', '-b', file('mid.qcow2'), '-F', 'qcow2');
      for (const name of ['copy', 'backup']) qcow2(file(`${name}.qcow2`), '4M');
    },
    async play(stage) {
      // The second of two reads of data fails, once.
      const failing = (name: string, event: string): Arguments => ({
        driver: 'blkdebug',
        image: { driver: 'file', filename: stage.file(`${name}.qcow2`) },
        'set-state': [{ event, state: 1, new_state: 2 }],
        'inject-error': [{ event, state: 2, errno: 5, once: true }],
      });
      await stage.add('base', 'base.qcow2');
      await stage.io('base', 'write -P 1 0 64k');
      await stage.io('base', 'write -P 2 1M 64k');
      await stage.say('blockdev-del', { 'node-name': 'base' });
      await stage.add('base', 'base.qcow2', { file: failing('base', 'read_aio') });
      await stage.add('mid', 'mid.qcow2', { backing: 'base' });
      await stage.add('top', 'top.qcow2', { backing: 'mid' });
      await stage.say('block-stream', { device: 'top', 'job-id': 's', 'on-error': 'ignore' });
      await stage.hear('BLOCK_JOB_ERROR');
      await stage.hear('BLOCK_JOB_COMPLETED');
      await stage.say('query-named-block-nodes', { flat: true }, nodes =>
        Array.isArray(nodes)
          ? nodes.filter(isRecord).map(node => [node['node-name'] ?? null, 'backing_file' in node])
          : nodes,
      );
      await stage.io('mid', 'write -P 3 2M 64k');
      await stage.say('blockdev-del', { 'node-name': 'top' });
      await stage.say('blockdev-del', { 'node-name': 'mid' });
      await stage.add('mid', 'mid.qcow2', { file: failing('mid', 'read_aio'), backing: 'base' });
      await stage.io('mid', 'write -P 4 3M 64k');
      await stage.io('mid', 'write -P 5 2M 64k');
      await stage.add('top', 'top.qcow2', { backing: 'mid' });
      await stage.say('block-commit', {
        device: 'top',
        'top-node': 'mid',
        'base-node': 'base',
        'job-id': 'c',
        'on-error': 'ignore',
      });
      await stage.hear('BLOCK_JOB_ERROR');
      await stage.hear('BLOCK_JOB_COMPLETED');
      for (const target of ['copy', 'backup'])
        await stage.add(target, `${target}.qcow2`, { file: failing(target, 'write_aio') });
      const ignore = { 'on-source-error': 'ignore', 'on-target-error': 'ignore', sync: 'full' };
      await stage.say('blockdev-mirror', { device: 'top', target: 'copy', 'job-id': 'm', ...ignore });
      await stage.hear('BLOCK_JOB_ERROR');
      await stage.hear('BLOCK_JOB_READY');
      await stage.say('block-job-cancel', { device: 'm' });
      await stage.hear('BLOCK_JOB_COMPLETED');
      await stage.say('blockdev-backup', { device: 'top', target: 'backup', 'job-id': 'b', ...ignore });
      await stage.hear('BLOCK_JOB_ERROR');
      await stage.hear('BLOCK_JOB_COMPLETED');
    },
    images: ['base.qcow2', 'copy.qcow2', 'backup.qcow2'],
  },
  {
    name: 'backups that count together or not at all',
    prepare: file => {
      for (const name of ['one', 'two', 'copy1', 'copy2']) qcow2(file(`${name}.qcow2`), '1M');
    },
    async play(stage) {
      for (const name of ['one', 'two']) {
        await stage.add(name, `${name}.qcow2`);
        await stage.say('block-dirty-bitmap-add', bitmap(name, 'b'));
        await stage.io(name, 'write -P 1 128k 64k');
      }
      await stage.add('copy1', 'copy1.qcow2');
      const bad = { driver: 'blkdebug', image: { driver: 'file', filename: stage.file('copy2.qcow2') } };
      await stage.add('copy2', 'copy2.qcow2', { file: { ...bad, 'inject-error': [{ event: 'write_aio', errno: 5 }] } });
      const backup = (device: string, target: string, more: Arguments = {}): Arguments => ({
        type: 'blockdev-backup',
        data: { device, target, sync: 'incremental', bitmap: 'b', 'job-id': `of-${device}`, ...more },
      });
      const grouped = { properties: { 'completion-mode': 'grouped' } };
      const of = (device: string) => (data: Message) => data['device'] === device || data['id'] === device;
      for (const type of ['block-dirty-bitmap-clear', 'block-dirty-bitmap-remove'])
        await stage.say('transaction', { actions: [{ type, data: bitmap('one', 'b') }], ...grouped });
      await stage.say('transaction', { actions: [backup('one', 'copy1'), backup('two', 'copy2')], ...grouped });
      await stage.hear('BLOCK_JOB_COMPLETED', of('of-two'));
      await stage.hear('BLOCK_JOB_CANCELLED', of('of-one'));
      await stage.bitmaps();
      await stage.say('blockdev-del', { 'node-name': 'copy2' });
      await stage.add('copy2', 'copy2.qcow2');
      const actions = [backup('one', 'copy1'), backup('two', 'copy2', { 'auto-finalize': false })];
      await stage.say('transaction', { actions, ...grouped });
      await stage.hear('BLOCK_JOB_PENDING');
      await stage.bitmaps();
      await stage.say('job-finalize', { id: 'of-two' });
      await stage.hear('BLOCK_JOB_COMPLETED', of('of-one'));
      await stage.hear('BLOCK_JOB_COMPLETED', of('of-two'));
      await stage.bitmaps();
    },
    images: ['copy1.qcow2', 'copy2.qcow2'],
  },
  {
    name: 'throttle groups: limits are asked for and changed, and a group in use stays',
    async play(stage) {
      const path = '/objects/tg';
      const limits = async (value: Arguments): Promise<void> => {
        await stage.say('qom-set', { path, property: 'limits', value });
        await stage.say('qom-get', { path, property: 'limits' });
      };
      await stage.say('object-add', {
        'qom-type': 'throttle-group',
        id: 'bad',
        limits: { 'bps-total': 1, 'bps-read': 1 },
      });
      await stage.say('object-add', {
        'qom-type': 'throttle-group',
        id: 'tg',
        'x-iops-total': 100,
        'x-iops-size': 4096,
      });
      await stage.say('object-add', { 'qom-type': 'throttle-group', id: 'tg' });
      await stage.say('qom-get', { path, property: 'limits' });
      await limits({ 'bps-read': 1000, 'bps-read-max': 5000, 'bps-read-max-length': 3 });
      await limits({ 'iops-read': 5 });
      await limits({ 'iops-total': 0, 'iops-size': 0 });
      await stage.say('qom-set', { path, property: 'x-iops-total', value: 5 });
      await stage.say('qom-get', { path, property: 'x-bps-read-max' });
      await stage.say('blockdev-add', { 'node-name': 'null', driver: 'null-co', 'read-zeroes': true });
      const filter = { driver: 'throttle', file: 'null' };
      await stage.say('blockdev-add', { 'node-name': 'f', 'throttle-group': 'none', ...filter });
      await stage.say('blockdev-add', { 'node-name': 'f', 'throttle-group': 'tg', ...filter });
      await stage.say('query-named-block-nodes', { flat: true }, nodes =>
        Array.isArray(nodes) ? nodes.filter(isRecord).map(node => node['file'] ?? null) : nodes,
      );
      await stage.say('object-del', { id: 'tg' });
      await stage.say('blockdev-del', { 'node-name': 'f' });
      await stage.say('object-del', { id: 'tg' });
    },
  },
  {
    name: 'bitmaps: added, merged, switched, in transactions that fail',
    prepare: file => qcow2(file('disk.qcow2'), '2M'),
    async play(stage) {
      await stage.add('disk', 'disk.qcow2');
      for (const args of [
        bitmap('disk', 'a', { granularity: 512 }),
        bitmap('disk', 'b', { granularity: 131072, disabled: true }),
        bitmap('disk', 'c'),
        bitmap('disk', 'a'),
        bitmap('disk', ''),
        bitmap('disk', 'd', { granularity: 500 }),
        bitmap('disk', 'd', { granularity: 256 }),
        bitmap('nobody', 'd'),
        bitmap('disk', 'x'.repeat(1024)),
      ])
        await stage.say('block-dirty-bitmap-add', args);
      await stage.io('disk', 'write 0 1000');
      await stage.io('disk', 'write 1M 70000');
      await stage.bitmaps();
      await stage.say('block-dirty-bitmap-disable', bitmap('disk', 'a'));
      await stage.say('block-dirty-bitmap-enable', bitmap('disk', 'b'));
      await stage.io('disk', 'write 200k 512');
      await stage.bitmaps();
      await stage.say('block-dirty-bitmap-merge', { node: 'disk', target: 'b', bitmaps: ['a', 'c'] });
      await stage.say('block-dirty-bitmap-merge', {
        node: 'disk',
        target: 'b',
        bitmaps: [{ node: 'disk', name: 'a' }],
      });
      await stage.say('block-dirty-bitmap-merge', { node: 'disk', target: 'b', bitmaps: ['none'] });
      await stage.say('block-dirty-bitmap-merge', { node: 'nobody', target: 'b', bitmaps: [] });
      await stage.bitmaps();
      const actions: { type: string; data: Arguments }[] = [
        { type: 'block-dirty-bitmap-add', data: bitmap('disk', 'new') },
        { type: 'block-dirty-bitmap-clear', data: bitmap('disk', 'b') },
        { type: 'block-dirty-bitmap-enable', data: bitmap('disk', 'a') },
        { type: 'block-dirty-bitmap-disable', data: bitmap('disk', 'c') },
        { type: 'block-dirty-bitmap-merge', data: { node: 'disk', target: 'new', bitmaps: ['c'] } },
        { type: 'block-dirty-bitmap-remove', data: bitmap('disk', 'c') },
      ];
      await stage.say('transaction', { actions: [...actions, { type: 'abort', data: {} }] });
      await stage.bitmaps();
      await stage.say('transaction', { actions });
      await stage.bitmaps();
      for (const command of ['clear', 'enable', 'disable', 'remove']) {
        await stage.say(`block-dirty-bitmap-${command}`, bitmap('disk', 'none'));
        await stage.say(`block-dirty-bitmap-${command}`, bitmap('nobody', 'a'));
      }
    },
  },
  {
    name: 'bitmaps that stay in the image',
    prepare: file => {
      qcow2(file('disk.qcow2'), '2M');
      qcow2(file('old.qcow2'), '1M', '-o', 'compat=0.10');
      fs.writeFileSync(file('disk.raw'), Buffer.alloc(65536));
    },
    async play(stage, again) {
      await stage.add('disk', 'disk.qcow2');
      await stage.add('old', 'old.qcow2');
      await stage.say('blockdev-add', { 'node-name': 'raw', driver: 'file', filename: stage.file('disk.raw') });
      for (const node of ['disk', 'old', 'raw'])
        await stage.say('block-dirty-bitmap-add', bitmap(node, 'kept', { persistent: true }));
      await stage.say('block-dirty-bitmap-add', bitmap('disk', 'still', { persistent: true, disabled: true }));
      await stage.say('block-dirty-bitmap-add', bitmap('disk', 'gone', { persistent: true, granularity: 512 }));
      await stage.say('block-dirty-bitmap-add', bitmap('disk', 'short'));
      await stage.io('disk', 'write 64k 3k');
      await stage.say('block-dirty-bitmap-remove', bitmap('disk', 'gone'));
      await stage.bitmaps();
      await stage.quit();
      const second = await again();
      await second.add('disk', 'disk.qcow2', { 'read-only': true });
      await second.bitmaps();
      for (const command of ['clear', 'remove', 'disable'])
        await second.say(`block-dirty-bitmap-${command}`, bitmap('disk', 'kept'));
      await second.say('blockdev-del', { 'node-name': 'disk' });
      await second.add('disk', 'disk.qcow2');
      await second.say('block-dirty-bitmap-remove', bitmap('disk', 'still'));
      await second.bitmaps();
      await second.say('blockdev-del', { 'node-name': 'disk' });
      stage.transcript.push(...second.transcript);
      await second.quit();
      const info = JSON.parse(qemuImg('info', '--output=json', stage.file('disk.qcow2')));
      stage.transcript.push({ what: 'qemu-img info', said: info['format-specific'].data.bitmaps });
    },
    images: ['disk.qcow2'],
  },
  {
    name: 'mirror: what it refuses, ready, pivot',
    prepare: file => {
      qcow2(file('disk.qcow2'), '1M');
      qcow2(file('copy.qcow2'), '1M');
      qcow2(file('small.qcow2'), '512k');
    },
    async play(stage) {
      await stage.add('disk', 'disk.qcow2');
      await stage.add('copy', 'copy.qcow2');
      await stage.add('small', 'small.qcow2');
      await stage.io('disk', 'write -P 1 0 300k');
      const mirror = { device: 'disk', target: 'copy', sync: 'full', 'job-id': 'm' };
      for (const wrong of [
        { sync: 'incremental' },
        { sync: 'bitmap' },
        { target: 'disk' },
        { target: 'nobody' },
        { granularity: 100 },
        { granularity: 1000 },
        { 'buf-size': -1 },
        { speed: -1 },
        { replaces: 'nobody' },
      ])
        await stage.say('blockdev-mirror', { ...mirror, ...wrong });
      await stage.say('blockdev-mirror', { ...mirror, target: 'small', 'job-id': 'short' });
      await stage.hear('BLOCK_JOB_COMPLETED');
      await stage.say('blockdev-mirror', { ...mirror, 'filter-node-name': 'above' });
      await stage.hear('BLOCK_JOB_READY');
      await stage.say('blockdev-mirror', { ...mirror, 'job-id': 'n' });
      await stage.say('job-finalize', { id: 'm' });
      await stage.say('job-dismiss', { id: 'm' });
      await stage.io('disk', 'write -P 2 500k 100k');
      await stage.say('block-job-complete', { device: 'm' });
      await stage.hear('BLOCK_JOB_COMPLETED');
      await stage.say('block-job-complete', { device: 'm' });
    },
    images: ['disk.qcow2'],
  },
  {
    name: 'commit: the active image, one in the middle, and what it refuses',
    prepare: file => {
      qcow2(file('base.qcow2'), '1M');
      qcow2(file('mid.qcow2'), '1M', '-b', 'base.qcow2', '-F', 'qcow2');
      qcow2(file('top.qcow2'), '1M', '-b', 'mid.qcow2', '-F', 'qcow2');
    },
    async play(stage) {
      const image = (name: string): Arguments => ({ driver: 'file', filename: stage.file(`${name}.qcow2`) });
      await stage.say('blockdev-add', { 'node-name': 'base', driver: 'qcow2', file: image('base') });
      await stage.say('blockdev-add', { 'node-name': 'mid', driver: 'qcow2', file: image('mid'), backing: 'base' });
      await stage.io('mid', 'write -P 2 100k 100k');
      await stage.say('blockdev-add', { 'node-name': 'top', driver: 'qcow2', file: image('top'), backing: 'mid' });
      await stage.io('top', 'write -P 3 150k 100k');
      const commit = { device: 'top', 'job-id': 'c' };
      for (const wrong of [
        { 'top-node': 'base', 'base-node': 'base' },
        { 'top-node': 'base', 'base-node': 'mid' },
        { 'top-node': 'nobody' },
        { 'base-node': 'top', 'top-node': 'top' },
        { top: stage.file('mid.qcow2'), 'top-node': 'mid' },
        { base: stage.file('base.qcow2'), 'base-node': 'base' },
        { base: 'nowhere' },
        { top: 'nowhere' },
        { 'backing-file': 'x', 'base-node': 'mid' },
      ])
        await stage.say('block-commit', { ...commit, ...wrong });
      await stage.say('block-commit', { ...commit, 'top-node': 'mid', 'base-node': 'base' });
      await stage.hear('BLOCK_JOB_COMPLETED');
      await stage.say('block-commit', commit);
      await stage.hear('BLOCK_JOB_READY');
      await stage.say('job-complete', { id: 'c' });
      await stage.hear('BLOCK_JOB_COMPLETED');
      await stage.say('job-complete', { id: 'c' });
    },
    images: ['base.qcow2'],
  },
  {
    name: 'stream: with a base, without one, and what it refuses',
    prepare: file => {
      qcow2(file('base.qcow2'), '1M');
      qcow2(file('mid.qcow2'), '1M', '-b', 'base.qcow2', '-F', 'qcow2');
      qcow2(file('top.qcow2'), '1M', '-b', 'mid.qcow2', '-F', 'qcow2');
    },
    async play(stage) {
      const image = (name: string): Arguments => ({ driver: 'file', filename: stage.file(`${name}.qcow2`) });
      await stage.say('blockdev-add', { 'node-name': 'base', driver: 'qcow2', file: image('base') });
      await stage.io('base', 'write -P 1 0 100k');
      await stage.say('blockdev-add', { 'node-name': 'mid', driver: 'qcow2', file: image('mid'), backing: 'base' });
      await stage.io('mid', 'write -P 2 200k 100k');
      await stage.say('blockdev-add', { 'node-name': 'top', driver: 'qcow2', file: image('top'), backing: 'mid' });
      const stream = { device: 'top', 'job-id': 's' };
      for (const wrong of [
        { 'base-node': 'top' },
        { 'base-node': 'nobody' },
        { base: 'nowhere' },
        { base: stage.file('base.qcow2'), 'base-node': 'base' },
        { 'backing-file': 'x' },
        { bottom: 'nobody' },
        { bottom: 'base', 'base-node': 'base' },
        { speed: -1 },
      ])
        await stage.say('block-stream', { ...stream, ...wrong });
      await stage.say('block-stream', { ...stream, 'base-node': 'base' });
      await stage.hear('BLOCK_JOB_COMPLETED');
      await stage.say('block-stream', stream);
      await stage.hear('BLOCK_JOB_COMPLETED');
    },
    images: ['top.qcow2'],
  },
  {
    name: 'reopen: other settings, another backing file, and what it refuses',
    prepare: file => {
      for (const name of ['a', 'b']) qcow2(file(`${name}.qcow2`), '1M');
      qcow2(file('top.qcow2'), '1M');
    },
    async play(stage) {
      await stage.add('a', 'a.qcow2', { 'read-only': true });
      await stage.add('b', 'b.qcow2');
      await stage.say('blockdev-add', {
        'node-name': 'file',
        driver: 'file',
        filename: stage.file('top.qcow2'),
      });
      const top = { 'node-name': 'top', driver: 'qcow2', file: 'file' };
      await stage.say('blockdev-add', { ...top, backing: 'a' });
      for (const options of [
        { ...top, 'node-name': 'nobody', backing: 'a' },
        { ...top, driver: 'raw' },
        { ...top },
        { ...top, backing: 'nobody' },
        { ...top, backing: 'top' },
        { ...top, backing: null },
        { ...top, backing: 'b' },
        { ...top, backing: 'a', 'read-only': true },
        { ...top, backing: 'a', 'read-only': false, 'lazy-refcounts': true },
        { ...top, backing: 'a', file: 'nobody' },
        { ...top, backing: 'a', 'detect-zeroes': 'unmap' },
        { ...top, backing: 'a', discard: 'unmap', 'detect-zeroes': 'unmap' },
      ])
        await stage.say('blockdev-reopen', { options: [options] });
      await stage.io('top', 'write -P 5 0 64k');
      await stage.say('query-named-block-nodes', { flat: true }, nodes =>
        Array.isArray(nodes)
          ? nodes.filter(isRecord).map(node => ({
              name: node['node-name'] ?? null,
              ro: node['ro'] ?? null,
              zeroes: node['detect_zeroes'] ?? null,
              depth: node['backing_file_depth'] ?? null,
            }))
          : nodes,
      );
    },
    images: ['top.qcow2'],
  },
  {
    name: 'reopen: several nodes at once, or none, and the options of an open image',
    prepare: file => {
      for (const name of ['a', 'b']) qcow2(file(`${name}.qcow2`), '1M');
    },
    async play(stage) {
      const image = (name: string, options: Arguments = {}): Arguments => ({
        'node-name': name,
        driver: 'qcow2',
        file: { driver: 'file', 'node-name': `${name}-file`, filename: stage.file(`${name}.qcow2`) },
        ...options,
      });
      for (const name of ['a', 'b']) {
        await stage.say('blockdev-add', image(name));
        await stage.io(name, `write -P ${name === 'a' ? 10 : 11} 0 64k`);
      }
      const reopen = (...options: Arguments[]): Promise<unknown> => stage.say('blockdev-reopen', { options });
      // One of them cannot be: the other stays what it was.
      await reopen(image('a', { 'read-only': true }), image('b', { 'l2-cache-entry-size': 100 }));
      await reopen(image('a', { file: 'b-file' }), image('b'));
      await stage.io('a', 'write -P 12 64k 64k');
      await reopen(image('a', { file: 'b-file' }), image('b', { file: 'a-file' }));
      await stage.io('a', 'read -P 11 0 64k');
      await stage.io('b', 'read -P 12 64k 64k');
      await stage.io('b', 'write -P 13 128k 64k');
      await reopen(image('a', { file: 'a-file' }), image('b', { file: 'b-file' }));
      for (const options of [
        { 'lazy-refcounts': true },
        { 'lazy-refcounts': false },
        { 'l2-cache-size': 1 << 20, 'l2-cache-entry-size': 512 },
        { 'cache-size': 1 << 20, 'l2-cache-size': 2 << 20 },
        { 'cache-clean-interval': 1 },
        { 'overlap-check': 'none' },
        { 'overlap-check': { template: 'all', 'active-l1': false } },
        { discard: 'unmap', 'pass-discard-request': true, 'pass-discard-other': true },
        { 'force-share': true },
        { 'data-file': 'b-file' },
      ] as Arguments[]) {
        await reopen(image('a', options));
        await stage.io('a', 'write -P 14 192k 64k');
        await stage.io('a', 'discard 192k 64k');
        await stage.io('a', 'read -P 13 128k 64k');
      }
    },
    images: ['a.qcow2', 'b.qcow2'],
  },
  {
    name: 'images made by the monitor',
    options: ['-object', 'secret,id=sec0,data=hush'],
    async play(stage) {
      let number = 0;
      const create = async (options: Arguments): Promise<void> => {
        const id = `j${number++}`;
        const answer = await stage.say('blockdev-create', { 'job-id': id, options });
        if (!isRecord(answer) || !('error' in answer)) await stage.concluded(id);
      };
      for (const options of [
        { filename: stage.file('a.raw'), size: 1 << 20 },
        { filename: stage.file('b.raw'), size: 1 << 20, preallocation: 'falloc' },
        { filename: stage.file('c.raw'), size: 1 << 20, preallocation: 'full', nocow: true },
        { filename: stage.file('d.raw'), size: 1000 },
        { filename: stage.file('e.raw'), size: 1 << 20, preallocation: 'metadata' },
        { filename: stage.file('no/such/folder'), size: 1 << 20 },
        { filename: stage.file('f.raw') },
      ])
        await create({ driver: 'file', ...options });
      await create({ driver: 'nbd', size: 1 });
      await create({ driver: 'null-co', size: 1 });
      const empty = async (name: string): Promise<void> => {
        await create({ driver: 'file', filename: stage.file(name), size: 0 });
        await stage.say('blockdev-add', { 'node-name': name, driver: 'file', filename: stage.file(name) });
      };
      await empty('data');
      for (const [index, options] of (
        [
          {},
          { version: 'v2' },
          { 'cluster-size': 512, 'refcount-bits': 1 },
          { 'cluster-size': 2 << 20 },
          { 'lazy-refcounts': true, 'compression-type': 'zstd' },
          { 'extended-l2': true, preallocation: 'metadata' },
          { preallocation: 'full', 'cluster-size': 4096 },
          { 'backing-file': 'a.raw', 'backing-fmt': 'raw' },
          { 'data-file': 'data' },
          // What cannot be. Encryption that can has its own test: QEMU measures for seconds, and not always with success.
          { size: 1000 },
          { 'cluster-size': 1234 },
          { 'cluster-size': 4 << 20 },
          { 'cluster-size': 256 },
          { 'refcount-bits': 3 },
          { 'refcount-bits': 128 },
          { version: 'v2', 'refcount-bits': 8 },
          { version: 'v2', 'lazy-refcounts': true },
          { version: 'v2', 'compression-type': 'zstd' },
          { version: 'v2', 'extended-l2': true },
          { 'extended-l2': true, 'cluster-size': 8192 },
          { 'backing-fmt': 'raw' },
          { 'backing-file': 'a.raw', preallocation: 'metadata' },
          { 'data-file-raw': true },
          { 'data-file': 'data', 'data-file-raw': true, 'backing-file': 'a.raw' },
          { encrypt: { format: 'luks' } },
          { encrypt: { format: 'luks', 'key-secret': 'nobody' } },
          { file: 'nobody' },
        ] as Arguments[]
      ).entries()) {
        await empty(`q${index}`);
        await create({ driver: 'qcow2', file: `q${index}`, size: 3 << 20, ...options });
      }
      await empty('volume');
      await create({ driver: 'luks', file: 'volume', size: 1 << 20 });
    },
    images: ['q0', 'q1', 'q2', 'q3', 'q4', 'q5', 'q6', 'q8'],
  },
  {
    name: 'NBD exports with bitmaps',
    prepare: file => qcow2(file('disk.qcow2'), '1M'),
    async play(stage) {
      await stage.add('disk', 'disk.qcow2');
      await stage.say('block-dirty-bitmap-add', bitmap('disk', 'a'));
      await stage.say('block-dirty-bitmap-add', bitmap('disk', 'b', { disabled: true }));
      const exported = { type: 'nbd', id: 'e', 'node-name': 'disk', name: 'disk' };
      await stage.say('block-export-add', exported);
      await stage.say('nbd-server-start', { addr: { type: 'unix', data: { path: stage.file('nbd') } } });
      for (const more of [
        { bitmaps: ['none'] },
        { bitmaps: ['a'] },
        { bitmaps: ['b'], 'allocation-depth': true },
        { id: 'f', name: 'disk' },
        { name: 'other' },
        { id: 'g', name: 'g', bitmaps: ['b'], writable: true },
        { id: 'h', name: 'h', bitmaps: ['a'], writable: true },
      ])
        await stage.say('block-export-add', { ...exported, ...more });
      await stage.bitmaps();
      for (const command of ['clear', 'remove', 'enable'])
        await stage.say(`block-dirty-bitmap-${command}`, bitmap('disk', 'a'));
      await stage.say('query-block-exports');
      await stage.say('block-export-del', { id: 'h' });
      await stage.hear('BLOCK_EXPORT_DELETED');
      await stage.say('block-export-del', { id: 'h' });
      await stage.say('blockdev-del', { 'node-name': 'disk' });
      await stage.say('nbd-server-stop');
      await stage.bitmaps();
    },
  },
  {
    name: 'jobs that wait for a hand: paused, slowed, finished, cancelled, forgotten',
    prepare: file => {
      for (const name of ['disk', 'copy', 'other']) qcow2(file(`${name}.qcow2`), '1M');
    },
    async play(stage) {
      for (const name of ['disk', 'copy', 'other']) await stage.add(name, `${name}.qcow2`);
      await stage.io('disk', 'write -P 1 0 1M');
      const byHand = { 'auto-finalize': false, 'auto-dismiss': false };
      const mirror = { device: 'disk', target: 'copy', sync: 'full', 'job-id': 'm' };
      const facts = (jobs: Json): Json =>
        Array.isArray(jobs)
          ? jobs
              .filter(isRecord)
              .map(({ id, type, status, device, ready, speed, 'auto-dismiss': dismiss, 'auto-finalize': finalize }) =>
                JSON.parse(JSON.stringify({ id, type, status, device, ready, speed, dismiss, finalize })),
              )
          : jobs;
      await stage.say('blockdev-mirror', { ...mirror, ...byHand });
      await stage.hear('BLOCK_JOB_READY');
      await stage.say('query-block-jobs', {}, facts);
      await stage.say('query-jobs', {}, facts);
      await stage.say('block-job-set-speed', { device: 'm', speed: 1 << 20 });
      await stage.say('block-job-set-speed', { device: 'm', speed: -1 });
      await stage.say('block-job-set-speed', { device: 'nobody', speed: 0 });
      await stage.say('job-pause', { id: 'm' });
      await stage.say('job-pause', { id: 'm' });
      await stage.say('block-job-cancel', { device: 'm' });
      await stage.say('block-job-resume', { device: 'm' });
      await stage.say('job-resume', { id: 'm' });
      for (const command of ['job-finalize', 'job-dismiss']) await stage.say(command, { id: 'm' });
      await stage.say('job-cancel', { id: 'nobody' });
      await stage.say('job-cancel', { id: 'm' });
      await stage.hear('BLOCK_JOB_CANCELLED');
      await stage.concluded('m');
      await stage.say('job-dismiss', { id: 'm' });
      await stage.say('blockdev-backup', { device: 'disk', target: 'copy', sync: 'full', 'job-id': 'f', ...byHand });
      await stage.hear('BLOCK_JOB_PENDING');
      await stage.say('query-jobs', {}, facts);
      await stage.say('blockdev-backup', { device: 'disk', target: 'other', sync: 'full', 'job-id': 'f' });
      await stage.say('job-dismiss', { id: 'f' });
      await stage.say('job-finalize', { id: 'f' });
      await stage.hear('BLOCK_JOB_COMPLETED');
      await stage.say('job-pause', { id: 'f' });
      await stage.say('query-jobs', {}, facts);
      await stage.concluded('f');
      // Two backups that stand or fall together.
      const backups = ['copy', 'other'].map(target => ({
        type: 'blockdev-backup',
        data: { device: 'disk', target, sync: 'full', 'job-id': target },
      }));
      await stage.say('transaction', {
        actions: [...backups, { type: 'abort', data: {} }],
      });
      await stage.say('query-block-jobs', {}, facts);
    },
    images: ['disk.qcow2', 'copy.qcow2'],
  },
  {
    name: 'snapshots inside an image',
    prepare: file => {
      qcow2(file('disk.qcow2'), '1M');
      qcow2(file('ro.qcow2'), '1M');
      fs.writeFileSync(file('disk.raw'), Buffer.alloc(65536));
    },
    async play(stage) {
      await stage.add('disk', 'disk.qcow2');
      await stage.add('ro', 'ro.qcow2', { 'read-only': true });
      await stage.say('blockdev-add', { 'node-name': 'raw', driver: 'file', filename: stage.file('disk.raw') });
      await stage.io('disk', 'write -P 1 0 100k');
      const undated = (answer: Json): Json => {
        if (!isRecord(answer) || 'error' in answer) return answer;
        const { 'date-sec': _sec, 'date-nsec': _nsec, ...rest } = answer;
        return rest;
      };
      for (const args of [
        { device: 'disk', name: 'one' },
        { device: 'disk', name: 'one' },
        { device: 'disk', name: '' },
        { device: 'ro', name: 'one' },
        { device: 'raw', name: 'one' },
        { device: 'nobody', name: 'one' },
      ])
        await stage.say('blockdev-snapshot-internal-sync', args);
      await stage.io('disk', 'write -P 2 50k 100k');
      await stage.say('transaction', {
        actions: [
          { type: 'blockdev-snapshot-internal-sync', data: { device: 'disk', name: 'two' } },
          { type: 'abort', data: {} },
        ],
      });
      await stage.say('blockdev-snapshot-internal-sync', { device: 'disk', name: 'three' });
      for (const args of [
        { device: 'disk' },
        { device: 'disk', name: 'two' },
        { device: 'disk', id: '9' },
        { device: 'disk', id: '1', name: 'three' },
        { device: 'disk', name: 'one' },
        { device: 'nobody', name: 'one' },
      ])
        await stage.say('blockdev-snapshot-delete-internal-sync', args, undated);
    },
    images: ['disk.qcow2'],
  },
  {
    name: 'copies into files that the monitor makes',
    prepare: file => {
      qcow2(file('base.qcow2'), '1M');
      qcow2(file('disk.qcow2'), '1M', '-b', 'base.qcow2', '-F', 'qcow2');
      qcow2(file('there.qcow2'), '1M');
    },
    async play(stage) {
      await stage.say('blockdev-add', {
        'node-name': 'base',
        driver: 'qcow2',
        file: { driver: 'file', filename: stage.file('base.qcow2') },
      });
      await stage.io('base', 'write -P 1 0 200k');
      await stage.say('blockdev-add', {
        'node-name': 'disk',
        driver: 'qcow2',
        file: { driver: 'file', filename: stage.file('disk.qcow2') },
        backing: 'base',
      });
      await stage.io('disk', 'write -P 2 300k 200k');
      const copies: [string, Arguments][] = [
        ['drive-backup', { target: stage.file('full.raw'), format: 'raw', sync: 'full' }],
        ['drive-backup', { target: stage.file('top.qcow2'), format: 'qcow2', sync: 'top' }],
        [
          'drive-backup',
          { target: stage.file('there.qcow2'), format: 'qcow2', sync: 'full', mode: 'existing', compress: true },
        ],
        ['drive-backup', { target: stage.file('not/there.qcow2'), format: 'qcow2', sync: 'full' }],
        ['drive-backup', { target: stage.file('missing.qcow2'), format: 'qcow2', sync: 'full', mode: 'existing' }],
        ['drive-backup', { target: stage.file('x.img'), format: 'strange', sync: 'full' }],
      ];
      for (const [command, args] of copies) {
        const answer = await stage.say(command, { device: 'disk', 'job-id': 'j', ...args });
        if (!isRecord(answer) || !('error' in answer)) await stage.hear('BLOCK_JOB_COMPLETED');
      }
      await stage.say('drive-mirror', {
        device: 'disk',
        'job-id': 'j',
        target: stage.file('mirror.qcow2'),
        sync: 'full',
        'node-name': 'mirrored',
      });
      await stage.hear('BLOCK_JOB_READY');
      await stage.say('job-complete', { id: 'j' });
      await stage.hear('BLOCK_JOB_COMPLETED');
      await stage.say('drive-mirror', {
        device: 'disk',
        'job-id': 'j',
        target: stage.file('m.img'),
        format: 'strange',
        sync: 'full',
      });
    },
    images: ['top.qcow2', 'there.qcow2', 'mirror.qcow2'],
  },
  {
    name: 'overlays, names of backing files, and lengths',
    prepare: file => {
      qcow2(file('disk.qcow2'), '1M');
      qcow2(file('over.qcow2'), '1M');
    },
    async play(stage) {
      await stage.add('disk', 'disk.qcow2');
      await stage.add('over', 'over.qcow2', { backing: null });
      for (const args of [
        { node: 'nobody', overlay: 'over' },
        { node: 'disk', overlay: 'nobody' },
        { node: 'disk', overlay: 'disk' },
        { node: 'disk', overlay: 'over' },
        { node: 'disk', overlay: 'over' },
      ])
        await stage.say('blockdev-snapshot', args);
      for (const args of [
        { 'node-name': 'over', 'snapshot-file': stage.file('new.qcow2') },
        { 'node-name': 'over', 'snapshot-file': stage.file('new.qcow2'), 'snapshot-node-name': 'disk' },
        { 'node-name': 'over', 'snapshot-file': stage.file('new.qcow2'), 'snapshot-node-name': 'new' },
      ])
        await stage.say('blockdev-snapshot-sync', args);
      await stage.say('change-backing-file', { device: 'new', 'image-node-name': 'over', 'backing-file': 'x' });
      await stage.say('change-backing-file', { device: 'new', 'image-node-name': 'nobody', 'backing-file': 'x' });
      await stage.say('block_resize', { 'node-name': 'new', size: 2 << 20 });
      await stage.say('block_resize', { 'node-name': 'new', size: 1000 });
      await stage.say('block_resize', { 'node-name': 'new', size: -1 });
      await stage.say('block_resize', { 'node-name': 'nobody', size: 512 });
      await stage.say('block_resize', { 'node-name': 'disk', size: 512 });
    },
    images: ['new.qcow2'],
  },
];

/** The content of an image, and where it says that it has something. */
function facts(file: string): Json {
  const found: { start: number; length: number; kind: string }[] = [];
  const map: { start: number; length: number; data: boolean; zero: boolean }[] = JSON.parse(
    qemuImg('map', '--output=json', file),
  );
  for (const { start, length, data, zero } of map) {
    const kind = data ? 'data' : zero ? 'zero' : 'nothing';
    const last = found.at(-1);
    if (last?.kind === kind) last.length += length;
    else found.push({ start, length, kind });
  }
  return found;
}

for (const scene of SCENES) {
  t.test(scene.name, { skip }, async t => {
    if (qemu === undefined) return;
    const run = async (player: Player): Promise<Stage> => {
      const folder = imageFolder();
      t.teardown(() => folder.remove());
      scene.prepare?.(name => folder.file(name));
      const stage = await Stage.open(player, folder.dir, scene.options);
      let closed = false;
      await scene.play(stage, () => {
        closed = true;
        return Stage.open(player, folder.dir, scene.options);
      });
      if (!closed) await stage.quit();
      return stage;
    };
    const [ours, theirs] = await Promise.all([run(southbridge), run(qemu)]);
    t.equal(ours.transcript.length, theirs.transcript.length, 'as much was said');
    for (const [index, { what, said }] of theirs.transcript.entries()) {
      const found = compareJson(ours.transcript[index]?.said, said);
      for (const line of found) t.comment(`${what}${line}`);
      t.equal(found.length, 0, what.slice(0, 160));
    }
    for (const name of scene.images ?? []) {
      t.equal(qemuCheck(ours.file(name)).status, 0, `${name} is whole`);
      t.match(qemuImg('compare', ours.file(name), theirs.file(name)), /identical/, `${name} holds the same`);
      t.same(facts(ours.file(name)), facts(theirs.file(name)), `${name} has it where QEMU has it`);
    }
  });
}
