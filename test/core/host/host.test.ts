import { spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import t from 'tap';
import { EventFd, FdWatcher, READABLE, WRITABLE } from '../../../core/host/event-fd.ts';
import {
  alignedBuffer,
  allocate,
  canLockRange,
  closeAll,
  createMemfd,
  lockRange,
  mapFile,
  nextData,
  punchHole,
  zeroRange,
} from '../../../core/host/files.ts';
import { HostThreads } from '../../../core/host/host-threads.ts';
import { threadCpuTimeNs } from '../../../core/host/process.ts';
import { recvFds, sendFds, socketPair } from '../../../core/host/sockets.ts';
import { openTap } from '../../../core/host/tap.ts';
import { makeRaw, openPty } from '../../../core/host/terminal.ts';

const folder = mkdtempSync(join(tmpdir(), 'southbridge-host-'));
t.teardown(() => rmSync(folder, { recursive: true }));

t.test('holes are punched, found and zeroed', t => {
  const fd = openSync(join(folder, 'sparse'), 'w+');
  t.teardown(() => closeSync(fd));
  writeSync(fd, Buffer.alloc(0x3_0000, 0xaa));
  if (!punchHole(fd, 0x1_0000, 0x1_0000)) {
    t.end();
    return t.comment('this file system has no holes');
  }
  const byte = Buffer.alloc(1);
  readSync(fd, byte, 0, 1, 0x1_8000);
  t.equal(byte[0], 0);
  t.same(nextData(fd, 0), { start: 0, length: 0x1_0000 });
  t.same(nextData(fd, 0x1_0000), { start: 0x2_0000, length: 0x1_0000 });
  t.equal(nextData(fd, 0x3_0000), undefined);
  if (zeroRange(fd, 0x2_0000, 0x1_0000)) {
    readSync(fd, byte, 0, 1, 0x2_8000);
    t.equal(byte[0], 0);
  }
  t.ok(allocate(fd, 0, 0x8_0000));
  t.equal(fstatSync(fd).size, 0x8_0000);
  t.end();
});

t.test('locks belong to the open file, also within one process', t => {
  const path = join(folder, 'locked');
  writeFileSync(path, 'x');
  const [first, second] = [openSync(path, 'r+'), openSync(path, 'r+')];
  t.equal(lockRange(first, 'read', 100, 1), true);
  t.equal(lockRange(second, 'read', 100, 1), true);
  t.equal(lockRange(second, 'write', 100, 1), false);
  t.equal(canLockRange(second, 'write', 100, 1), false);
  t.equal(lockRange(first, 'none', 100, 1), true);
  t.equal(lockRange(second, 'write', 100, 1), true);
  closeAll([first, second]);
  t.end();
});

t.test('an eventfd counts and wakes the loop', async t => {
  const event = new EventFd();
  t.teardown(() => event.close());
  t.equal(event.take(), 0);
  event.signal();
  event.signal();
  t.equal(event.take(), 2);
  const counted = new Promise(resolve => event.onSignal(resolve));
  const keepAlive = setTimeout(() => {}, 5000);
  event.signal();
  t.equal(await counted, 1);
  clearTimeout(keepAlive);
});

t.test('a memfd is shared through its mappings, which start at pages', t => {
  const fd = createMemfd('southbridge-test', 8192);
  const [first, second] = [0, 1].map(() => new Uint8Array(mapFile(fd, 0, 8192, { shared: true, writable: true })));
  first?.set([1, 2, 3], 4096);
  t.same([...(second?.subarray(4096, 4099) ?? [])], [1, 2, 3]);
  closeSync(fd);
  t.equal(alignedBuffer(512).length, 512);
  t.throws(() => mapFile(-2, 0, 0, { shared: false, writable: false }), { code: 'EINVAL', syscall: 'mmap' });
  t.end();
});

t.test('descriptors travel over a unix socket', t => {
  const [a, b] = socketPair();
  const fd = createMemfd('passed', 4096);
  writeSync(fd, 'hello');
  t.same(recvFds(b, new Uint8Array(8)), { length: -1, fds: [] });
  t.equal(sendFds(a, Buffer.from('take'), [fd, fd]), 4);
  const bytes = new Uint8Array(8);
  const received = recvFds(b, bytes);
  t.equal(received.length, 4);
  t.equal(received.fds.length, 2);
  const content = Buffer.alloc(5);
  readSync(received.fds[0] ?? -1, content, 0, 5, 0);
  t.equal(content.toString(), 'hello');
  closeSync(a);
  t.equal(recvFds(b, bytes).length, 0, 'the end of the stream');
  closeAll([b, fd, ...received.fds]);
  t.end();
});

t.test('what is watched again after an error is told of again', async t => {
  const [a, b] = socketPair();
  const events: number[] = [];
  let told = (): void => {};
  const watcher = new FdWatcher(a, event => {
    events.push(event);
    told();
  });
  t.teardown(() => {
    watcher.close();
    closeSync(a);
  });
  const next = (watched: number): Promise<void> => {
    const done = new Promise<void>(resolve => {
      told = resolve;
    });
    watcher.watch(watched);
    return done;
  };
  await next(WRITABLE);
  await next(WRITABLE);
  t.same(events.splice(0), [WRITABLE, WRITABLE], 'a watch goes on');
  // What the peer has not read makes its end a reset: POLLERR.
  sendFds(a, Buffer.from('unread'), []);
  closeSync(b);
  await next(READABLE);
  await next(READABLE);
  t.equal(events.length, 2);
  t.ok(
    events.every(event => event < 0),
    `errors: ${events}`,
  );
});

t.test('a pseudo-terminal is raw and carries bytes both ways', async t => {
  const pty = openPty();
  t.match(pty.path, /^\/dev\/pts\/\d+$/);
  t.ok(existsSync(pty.path));
  const restore = makeRaw(pty.slave, { signals: false });
  const watcher = new FdWatcher(pty.master, () => {});
  t.teardown(() => {
    watcher.close();
    closeAll([pty.master, pty.slave]);
  });
  const arrived = new Promise<string>(resolve => {
    const reader = new FdWatcher(pty.slave, () => {
      const buffer = Buffer.alloc(16);
      const length = readSync(pty.slave, buffer);
      reader.close();
      resolve(buffer.toString('latin1', 0, length));
    });
    reader.watch(READABLE);
  });
  writeSync(pty.master, 'a\r\x03');
  t.equal(await arrived, 'a\r\x03', 'no line, no translation, no signal');
  restore();
});

t.test('a tap opens or says why not', t => {
  try {
    const tap = openTap('', { vnetHeader: true, multiQueue: false });
    t.match(tap.name, /^tap\d+$/);
    closeSync(tap.fd);
  } catch (error) {
    t.match(error, { code: 'ERR_TAP', message: /\/dev\/net\/tun/ });
  }
  t.end();
});

t.test('a daemon lets its parent go once it is ready, and passes on its failure', t => {
  const module = pathToFileURL(join(import.meta.dirname, '../../../core/host/process.js')).href;
  const program = join(folder, 'daemon.mjs');
  const proof = join(folder, 'proof');
  writeFileSync(
    program,
    `import { daemonReady, isDaemon, runDetached } from ${JSON.stringify(module)};
     import { writeFileSync } from 'node:fs';
     if (!isDaemon()) process.exit(await runDetached(process.argv[1], process.argv.slice(2)));
     if (process.argv[2] === 'fail') { console.error('no such disk'); process.exit(3); }
     daemonReady();
     console.log('nobody reads this');
     setTimeout(() => writeFileSync(${JSON.stringify(proof)}, 'alive'), 50);`,
  );
  const good = spawnSync(process.execPath, [program, 'work'], { encoding: 'latin1', timeout: 10_000 });
  t.equal(good.status, 0);
  t.equal(good.stdout, '');
  const bad = spawnSync(process.execPath, [program, 'fail'], { encoding: 'latin1', timeout: 10_000 });
  t.equal(bad.status, 3);
  t.match(bad.stderr, /no such disk/);
  spawnSync('sleep', ['0.3']);
  t.ok(existsSync(proof), 'it went on after its parent');
  t.end();
});

t.test("a thread's CPU time grows with its work", t => {
  const before = threadCpuTimeNs();
  for (let index = 0; index < 1e6; index++) Math.sqrt(index);
  t.ok(threadCpuTimeNs() > before);
  t.end();
});

t.test('threads that stand for CPUs', t => {
  const threads = new HostThreads();
  const id = threads.idOf('CPU 0/TEST');
  t.not(id, process.pid);
  t.equal(threads.idOf('CPU 0/TEST'), id);
  t.equal(readFileSync(`/proc/self/task/${id}/comm`, 'utf8'), 'CPU 0/TEST\n');
  threads.end('CPU 0/TEST');
  t.not(threads.idOf('CPU 0/TEST'), process.pid, 'there may be another of that name');
  threads.dispose();
  t.end();
});
