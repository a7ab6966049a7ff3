/**
 * A vhost-user back end in a process of its own: what the driver sends comes back as received, pair by pair. It knows split rings
 * and takes the protocol's word for everything. Its arguments are the socket's path, its features, and how many pairs it has; it
 * tells its parent what was said to it.
 */
import { closeSync, fstatSync, readSync, rmSync, writeSync } from 'node:fs';
import { createServer } from 'node:net';
import { FdSocket } from '../../../core/char/fd-socket.ts';
import { FdWatcher, READABLE } from '../../../core/host/event-fd.ts';
import { mapFile } from '../../../core/host/files.ts';

const [path = '', features = '0', pairs = '1'] = process.argv.slice(2);
const PROTOCOL_FEATURES = 1n << 30n;
const [MQ, LOG_SHMFD, RARP] = [1n, 2n, 4n];
const HEADER = 12;

interface Region {
  readonly user: number;
  readonly size: number;
  readonly guest: number;
  readonly view: DataView;
}

interface Ring {
  size: number;
  next: number;
  desc: number;
  used: number;
  avail: number;
  kick: { readonly fd: number; readonly watcher: FdWatcher } | undefined;
  call: number | undefined;
  enabled: boolean;
}

let regions: Region[] = [];
const rings = Array.from(
  { length: 2 * Number(pairs) },
  (): Ring => ({ size: 0, next: 0, desc: 0, used: 0, avail: 0, kick: undefined, call: undefined, enabled: false }),
);
const tell = (message: object): void => {
  process.send?.(message);
};

/** Where an address of either kind is; throws where it is nowhere. */
function at(address: number, kind: 'user' | 'guest'): { view: DataView; offset: number } {
  for (const region of regions) {
    const offset = address - region[kind];
    if (offset >= 0 && offset < region.size) return { view: region.view, offset };
  }
  throw new RangeError(`${kind} address ${address.toString(16)} is in no region`);
}

const get16 = (address: number): number => {
  const { view, offset } = at(address, 'user');
  return view.getUint16(offset, true);
};

/** The pieces of the chain that begins at `head`: guest memory. */
function chain(ring: Ring, head: number): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let index = head; ; ) {
    const { view, offset } = at(ring.desc + 16 * index, 'user');
    const target = at(Number(view.getBigUint64(offset, true)), 'guest');
    pieces.push(
      new Uint8Array(target.view.buffer, target.view.byteOffset + target.offset, view.getUint32(offset + 8, true)),
    );
    if ((view.getUint16(offset + 12, true) & 1) === 0) return pieces;
    index = view.getUint16(offset + 14, true);
  }
}

function take(ring: Ring): number | undefined {
  if (get16(ring.avail + 2) === ring.next) return undefined;
  const head = get16(ring.avail + 4 + 2 * (ring.next % ring.size));
  ring.next = (ring.next + 1) & 0xffff;
  return head;
}

function put(ring: Ring, head: number, length: number): void {
  const used = get16(ring.used + 2);
  const { view, offset } = at(ring.used + 4 + 8 * (used % ring.size), 'user');
  view.setUint32(offset, head, true);
  view.setUint32(offset + 4, length, true);
  const flags = at(ring.used + 2, 'user');
  flags.view.setUint16(flags.offset, (used + 1) & 0xffff, true);
  if (ring.call !== undefined) writeSync(ring.call, Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]));
}

function loop(pair: number): void {
  const [rx, tx] = [rings[2 * pair], rings[2 * pair + 1]];
  if (rx?.kick === undefined || tx?.kick === undefined || !rx.enabled || !tx.enabled) return;
  for (let sent = take(tx); sent !== undefined; sent = take(tx)) {
    const bytes = Buffer.concat(chain(tx, sent));
    put(tx, sent, 0);
    const free = take(rx);
    if (free === undefined) continue;
    bytes.writeUInt16LE(1, 10);
    let done = 0;
    for (const piece of chain(rx, free)) {
      const part = bytes.subarray(done, done + piece.length);
      piece.set(part);
      done += part.length;
    }
    put(rx, free, done);
  }
}

function listenTo(index: number, fd: number): void {
  const ring = rings[index];
  if (ring === undefined) return;
  const watcher = new FdWatcher(fd, () => {
    readSync(fd, Buffer.alloc(8));
    loop(index >> 1);
  });
  watcher.watch(READABLE);
  ring.kick = { fd, watcher };
  loop(index >> 1);
}

function silence(ring: Ring | undefined): void {
  ring?.kick?.watcher.close();
  for (const fd of [ring?.kick?.fd, ring?.call]) if (fd !== undefined) closeSync(fd);
  if (ring !== undefined) Object.assign(ring, { kick: undefined, call: undefined, enabled: false });
}

/** Carries out a message; returns the payload of its answer, if it has one. */
function serve(request: number, payload: Buffer, fds: () => number): Buffer | undefined {
  const number = payload.length >= 8 ? payload.readBigUInt64LE(0) : 0n;
  const ring = payload.length >= 8 ? rings[payload.readUInt32LE(0) & 0xff] : undefined;
  const answer = (value: bigint): Buffer => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(value);
    return bytes;
  };
  switch (request) {
    case 1:
      return answer(BigInt(features) | PROTOCOL_FEATURES);
    case 2:
      tell({ accepted: String(number) });
      return undefined;
    case 15:
      return answer(MQ | LOG_SHMFD | RARP);
    case 6: {
      const fd = fds();
      tell({ log: [Number(number), fstatSync(fd).size] });
      closeSync(fd);
      return answer(0n);
    }
    case 17:
      return answer(BigInt(pairs));
    case 5:
      regions = Array.from({ length: payload.readUInt32LE(0) }, (_, index) => {
        const [guest = 0, size = 0, user = 0, offset = 0] = [0, 1, 2, 3].map(field =>
          Number(payload.readBigUInt64LE(8 + index * 32 + field * 8)),
        );
        const fd = fds();
        const memory = mapFile(fd, offset, size, { shared: true, writable: true });
        closeSync(fd);
        return { guest, size, user, view: new DataView(memory) };
      });
      tell({ regions: regions.map(({ guest, size }) => [guest, size]) });
      return undefined;
    case 8:
      if (ring !== undefined) ring.size = payload.readUInt32LE(4);
      return undefined;
    case 9:
      if (ring !== undefined) {
        const [flags, logged] = [payload.readUInt32LE(4), Number(payload.readBigUInt64LE(32))];
        tell({ ringLog: [payload.readUInt32LE(0), flags, logged] });
        [ring.desc = 0, ring.used = 0, ring.avail = 0] = [8, 16, 24].map(place =>
          Number(payload.readBigUInt64LE(place)),
        );
      }
      return undefined;
    case 10:
      if (ring !== undefined) ring.next = payload.readUInt32LE(4);
      tell({ base: [payload.readUInt32LE(0), payload.readUInt32LE(4)] });
      return undefined;
    case 11: {
      silence(ring);
      const bytes = Buffer.from(payload);
      bytes.writeUInt32LE(ring?.next ?? 0, 4);
      return bytes;
    }
    case 12:
      listenTo(Number(number & 0xffn), fds());
      return undefined;
    case 13:
      if (ring !== undefined) ring.call = fds();
      return undefined;
    case 18:
      if (ring !== undefined) ring.enabled = payload.readUInt32LE(4) === 1;
      loop((payload.readUInt32LE(0) & 0xff) >> 1);
      return undefined;
    case 19:
      tell({ rarp: payload.subarray(0, 6).toString('hex') });
      return undefined;
    default:
      return undefined;
  }
}

const server = createServer({ pauseOnConnect: true }, socket => {
  const stream = FdSocket.adopt(socket);
  if (stream === undefined) throw new Error('a socket without a descriptor');
  let held = Buffer.alloc(0);
  const fds: number[] = [];
  stream.on('data', (chunk: Buffer) => {
    held = Buffer.concat([held, chunk]);
    fds.push(...stream.takeFds(Number.POSITIVE_INFINITY));
    while (held.length >= HEADER && held.length >= HEADER + held.readUInt32LE(8)) {
      const request = held.readUInt32LE(0);
      const end = HEADER + held.readUInt32LE(8);
      const answer = serve(request, held.subarray(HEADER, end), () => fds.shift() ?? -1);
      held = held.subarray(end);
      if (answer === undefined) continue;
      const header = Buffer.alloc(HEADER);
      header.writeUInt32LE(request, 0);
      header.writeUInt32LE(5, 4);
      header.writeUInt32LE(answer.length, 8);
      stream.write(Buffer.concat([header, answer]));
    }
  });
  stream.on('close', () => {
    for (const ring of rings) silence(ring);
  });
});
// A test that ends early leaves nobody behind.
process.on('disconnect', () => process.exit());
rmSync(path, { force: true });
server.listen(path, () => tell({ listening: true }));
