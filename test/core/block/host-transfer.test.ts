import fs from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { giveBounce, isPageBuffer, takeBounce } from '../../../core/block/bounce.ts';
import { HostFile } from '../../../core/block/host-file.ts';
import { CANNOT_TELL, HostTransfers, hostTransfers, transferKind } from '../../../core/block/host-transfer.ts';
import { errno, IoError } from '../../../core/block/io-error.ts';
import { IoVector, type MovableMemory } from '../../../core/block/io-vector.ts';
import { addressOf, ownsAddresses } from '../../../core/host/addresses.ts';
import { hostCalls } from '../../../core/host/calls.ts';
import { IoRing, ioRing, type Transfer } from '../../../core/host/io-ring.ts';
import { noAddon } from '../host/addon.ts';

const noRing = noAddon || (ioRing() === undefined && 'a host without io_uring');

/** Memory that is somewhere else after each move, as that of the wasm accelerator is after it has grown. */
class Wanderer implements MovableMemory {
  readonly anchor = undefined;
  #bytes: Uint8Array<ArrayBuffer>;
  constructor(size: number) {
    this.#bytes = new Uint8Array(size);
  }
  get bytes(): Uint8Array {
    return this.#bytes;
  }
  move(): void {
    this.#bytes = new Uint8Array(structuredClone(this.#bytes.buffer, { transfer: [this.#bytes.buffer] }));
  }
}

const ways: readonly (readonly [name: string, transfers: () => HostTransfers, skip: string | false])[] = [
  ['by the ring', () => hostTransfers(), noRing],
  ['by threads', () => hostTransfers(true), noAddon],
  ['by the pool of Node', () => new HostTransfers({ transferNow: hostCalls().transferNow }), noAddon],
  ['by Node alone', () => new HostTransfers({}), false],
];

/** Reads of a file into memory, one stretch each. */
const reading = (fd: number, base: Uint8Array, at: number, bytes: number, spans = new Float64Array(3)): Transfer => {
  spans.set([at, bytes, 0]);
  return { write: false, fd, offset: at, bytes, base, anchor: base, spans, count: 1 };
};

function image(t: Tap, bytes: number): { readonly path: string; readonly fd: number; readonly content: Buffer } {
  const path = join(t.testdir(), 'image');
  const content = Buffer.alloc(bytes);
  for (let at = 0; at < bytes; at += 4) content.writeUInt32LE(at, at);
  fs.writeFileSync(path, content);
  const fd = fs.openSync(path, 'r+');
  t.teardown(() => fs.closeSync(fd));
  return { path, fd, content };
}
type Tap = Pick<typeof t, 'testdir' | 'teardown'>;

for (const [name, make, skip] of ways) {
  t.test(`bytes move ${name}, now and later`, { skip }, async t => {
    const transfers = make();
    const { fd, content } = image(t, 0x1_0000);
    const memory = new Uint8Array(new SharedArrayBuffer(0x1_0000));
    const iov = new IoVector().add(memory, 0x100, 0x300).add(memory, 0x2000, 0x500);
    const expected = content.subarray(0x40, 0x840);
    const read = (): Buffer => {
      const found = Buffer.alloc(0x800);
      iov.gather(0, found, 0, 0x800);
      return found;
    };
    t.equal(transfers.now(transferKind.READ, fd, 0x40, 0x800, iov, 0), 0x800);
    t.same(read(), expected, 'two pieces, now');
    memory.fill(0);
    t.equal(await transfers.later(false, fd, 0x40, 0x800, iov, 0), 0x800);
    t.same(read(), expected, 'and later');
    const elsewhere = Buffer.alloc(0x100);
    const scattered = new IoVector().add(memory, 0, 0x100).add(elsewhere, 0, 0x100);
    t.equal(await transfers.later(false, fd, 0x1000, 0x200, scattered, 0), 0x200);
    t.same(elsewhere, content.subarray(0x1100, 0x1200), 'pieces of two memories');
    t.equal(await transfers.later(false, fd, 0xff00, 0x800, iov, 0), 0x100, 'no further than the end of the file');
    t.equal(transfers.now(transferKind.READ, fd, 0x1_0000, 0x800, iov, 0), 0);

    memory.fill(0xa5);
    t.equal(transfers.now(transferKind.WRITE, fd, 0x3000, 0x800, iov, 0), 0x800);
    t.equal(await transfers.later(true, fd, 0x5000, 0x7ff, iov, 1), 0x7ff);
    await transfers.sync(fd);
    const after = Buffer.from(content);
    after.fill(0xa5, 0x3000, 0x3800).fill(0xa5, 0x5000, 0x57ff);
    t.same(fs.readFileSync(fd), after, 'nothing else was written');

    const closed = fs.openSync('/dev/null', 'r');
    t.throws(() => transfers.now(transferKind.WRITE, closed, 0, 16, iov, 0), new IoError(errno.EBADF));
    await t.rejects(transfers.later(true, closed, 0, 16, iov, 0), new IoError(errno.EBADF));
    fs.closeSync(closed);
  });
}

t.test('what the page cache has is read without waiting', { skip: noAddon }, t => {
  const { fd, content } = image(t, 0x1000);
  const memory = Buffer.alloc(0x1000);
  const got = hostTransfers().now(transferKind.READ_CACHED, fd, 0, 0x1000, IoVector.of(memory), 0);
  // Some file systems cannot tell; those that can have what was just written.
  if (got === CANNOT_TELL) t.comment('this file system cannot tell');
  else t.same([got, memory.compare(content)], [0x1000, 0]);
  t.end();
});

t.test('stretches outside of their memory are refused', { skip: noAddon }, t => {
  const memory = new Uint8Array(16);
  const { transferNow } = hostCalls();
  for (const spans of [
    [8, 9, 0],
    [-1, 4, 0],
    [Number.NaN, 4, 0],
    [0, Number.POSITIVE_INFINITY, 0],
  ]) {
    t.equal(transferNow(transferKind.READ, 0, memory, Float64Array.from(spans), 1, 0), -errno.EINVAL, `${spans}`);
  }
  t.equal(transferNow(transferKind.READ, 0, memory, new Float64Array(2), 1, 0), -errno.EINVAL, 'no room behind them');
  t.end();
});

for (const [by, skip] of [
  ['kernel', noRing],
  ['threads', noAddon],
] as const) {
  t.test(`a plugged ring (${by}) keeps its requests until it is unplugged`, { skip }, async t => {
    const ring = new IoRing(by);
    t.teardown(() => ring.close());
    const { fd, content } = image(t, 0x4000);
    const memory = new Uint8Array(new SharedArrayBuffer(0x4000));
    let done = 0;
    ring.plug();
    ring.plug();
    const requests = Array.from({ length: 4 }, async (_, index) => {
      const at = index * 0x1000;
      t.equal(await ring.transfer(reading(fd, memory, at, 0x1000)), 0x1000);
      done++;
    });
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
    ring.unplug();
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
    t.equal(done, 0, 'pairs nest');
    ring.unplug();
    await Promise.all(requests);
    t.same(Buffer.from(memory), content);
  });

  t.test(`more requests than the ring (${by}) has room for take turns`, { skip }, async t => {
    const { fd, content } = image(t, 0x1_0000);
    const memory = new Uint8Array(new SharedArrayBuffer(0x1_0000));
    const ring = new IoRing(by);
    t.teardown(() => ring.close());
    const spans = new Float64Array(3);
    // The table is used again for the next request.
    const requests = Array.from({ length: 1024 }, (_, index) =>
      ring.transfer(reading(fd, memory, index * 64, 64, spans)),
    );
    t.same([...new Set(await Promise.all(requests))], [64]);
    t.same(Buffer.from(memory), content);
  });

  t.test(`memory is its owner's again when the ring (${by}) has settled`, { skip }, async t => {
    const { fd, content } = image(t, 0x1_0000);
    const memory = new Uint8Array(new SharedArrayBuffer(0x1_0000));
    const ring = new IoRing(by);
    t.teardown(() => ring.close());
    const ended: number[] = [];
    ring.plug();
    const requests = Array.from({ length: 1024 }, async (_, index) => {
      ended.push(await ring.transfer(reading(fd, memory, index * 64, 64)));
    });
    t.same(
      memory.findIndex(byte => byte !== 0),
      -1,
      'nothing has been handed over',
    );
    ring.settle();
    t.same(Buffer.from(memory), content, 'also of those that had no room yet, and within the call');
    t.same(ended, [], 'nobody hears of it within the call');
    ring.unplug();
    await Promise.all(requests);
    t.same([...new Set(ended)], [64]);
    ring.settle();
  });

  t.test(`a long batch begins before the ring (${by}) is unplugged`, { skip }, async t => {
    const { fd, content } = image(t, 0x8_0000);
    const memory = new Uint8Array(new SharedArrayBuffer(0x8_0000));
    const ring = new IoRing(by);
    t.teardown(() => ring.close());
    ring.plug();
    t.equal(await ring.transfer(reading(fd, memory, 0, 0x8_0000)), 0x8_0000);
    ring.unplug();
    t.same(Buffer.from(memory), content);
  });
}

t.test('memory may move while a request waits', async t => {
  const LENGTH = 512 << 10;
  const { path, content } = image(t, LENGTH);
  for (const threads of [false, true]) {
    const file = HostFile.open(path, { writable: true, direct: false, threads });
    const memory = new Wanderer(LENGTH + 64);
    const iov = new IoVector().add(memory, 64, LENGTH);
    t.equal(iov.stays, false);
    const reading = file.read(0, LENGTH, iov, 0);
    t.type(reading, Promise, 'too long to be read in place');
    memory.move();
    await reading;
    t.same(Buffer.from(memory.bytes).subarray(64), content, 'it arrives where the memory is now');
    memory.bytes.fill(7);
    const writing = file.write(0, LENGTH, iov, 0);
    memory.move();
    memory.bytes.fill(8);
    await writing;
    t.equal(
      fs.readFileSync(path).every(byte => byte === 7),
      true,
      'what it held when the request was made is written',
    );
    file.close();
    fs.writeFileSync(path, content);
  }
});

t.test('what keeps memory at its place is known for the addresses it owns', { skip: noAddon }, t => {
  const memory = new WebAssembly.Memory({ initial: 1 });
  t.equal(ownsAddresses(new Uint8Array(memory.buffer), 2 ** 32), true, 'V8 sets aside all that a memory may have');
  const before = addressOf(new Uint8Array(memory.buffer));
  memory.grow(1024);
  t.equal(addressOf(new Uint8Array(memory.buffer)), before, 'so it grows where it is');
  t.equal(ownsAddresses(new Uint8Array(1 << 20), 2 ** 32), false, 'and other memory has neighbours');
  t.equal(ownsAddresses(new Uint8Array(memory.buffer), 2 ** 40), false);
  t.end();
});

t.test('a vector takes over a part of another', t => {
  const one = Buffer.from('abcdef');
  const two = Buffer.from('ghijkl');
  const whole = new IoVector().add(one, 1, 4).add(two, 2, 3);
  const part = new IoVector().append(whole, 3, 3);
  const found = Buffer.alloc(part.length);
  part.gather(0, found, 0, part.length);
  t.equal(found.toString(), 'eij');
  const spans = new Float64Array(5);
  t.equal(whole.spans(1, 3, spans), 1);
  t.same([...spans.subarray(0, 2)], [2, 3]);
  t.equal(whole.spans(1, 5, spans), 0, 'two memories');
  const pieces = new IoVector().add(one, 0, 1).add(one, 2, 1).add(one, 4, 1);
  t.equal(pieces.spans(0, 2, spans), 2);
  t.equal(pieces.spans(0, 3, spans), 0, 'more than the table holds');
  t.end();
});

t.test('bounce buffers begin on a page and are used again', t => {
  const small = takeBounce(5000);
  t.equal(small.length, 8192);
  t.equal(small.byteOffset % 4096, 0);
  t.equal(isPageBuffer(small), true);
  giveBounce(small);
  t.equal(takeBounce(8000), small);
  t.equal(takeBounce(3 << 20).length, 3 << 20, 'large ones have their size');
  t.equal(isPageBuffer(new Uint8Array(16)), false);
  t.end();
});
