import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { blockGraph } from '../../core/block/block.ts';
import { Drives } from '../../core/block/drives.ts';
import { errno } from '../../core/block/io-error.ts';
import { bench } from '../../core/testing/bench.ts';
import { VirtioDriver } from '../../core/testing/virtio-driver.ts';
import type { DriverQueue } from '../../core/testing/virtio-driver-queue.ts';
import { virtioBlkPci } from '../../devices/virtio-blk.ts';

const SECTORS = 64;
const IN = 0;
const OUT = 1;
const FLUSH = 4;
const GET_ID = 8;
const DISCARD = 11;
const WRITE_ZEROES = 13;
const OK = 0;
const IOERR = 1;
const UNSUPP = 2;
const SEG_MAX = 12;
const CAPACITY = 0;

interface Disk {
  readonly lab: ReturnType<typeof bench>;
  readonly driver: VirtioDriver;
  readonly queue: DriverQueue;
  readonly drives: Drives;
  image(): Buffer;
  /** Does a request with `data` in both directions; gives its status, or undefined while it is under way. */
  request(
    type: number,
    sector: number,
    data: Uint8Array | number,
  ): () => { status: number; data: Uint8Array } | undefined;
  finish(wait: () => { status: number; data: Uint8Array } | undefined): Promise<{ status: number; data: Uint8Array }>;
}

async function disk(
  t: Test,
  props: Readonly<Record<string, string>> = {},
  drive: readonly [string, string][] = [],
): Promise<Disk> {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-virtio-'));
  const file = join(folder, 'disk.img');
  writeFileSync(file, Buffer.alloc(SECTORS * 512, 'x'));
  const drives = new Drives(blockGraph());
  const options: [string, string][] = [['id', 'd0'], ['file', file], ['format', 'raw'], ['if', 'none'], ...drive];
  await drives.add(options, { interface: 'none', snapshot: false, isDefault: false });
  const lab = bench({ backends: { find: (_kind, id) => drives.graph.backend(id) } });
  t.teardown(() => lab.dispose());
  t.teardown(() => rmSync(folder, { recursive: true }));
  lab.machine.start();
  const driver = new VirtioDriver(lab, lab.pci(virtioBlkPci, { drive: 'd0', ...props }));
  driver.negotiate(-1n & ((1n << 34n) - 1n) & ~(1n << 33n));
  const queue = driver.queue(0);
  driver.start();
  const request: Disk['request'] = (type, sector, data) => {
    const length = typeof data === 'number' ? data : data.length;
    const header = driver.allocate(16);
    const address = driver.allocate(length);
    const status = driver.allocate(1);
    driver.ram.view.setUint32(header, type, true);
    driver.ram.view.setUint32(header + 8, sector, true);
    driver.ram.bytes[status] = 0xff;
    if (typeof data !== 'number') driver.ram.bytes.set(data, address);
    const pieces = [{ address: header, length: 16 }];
    if (length > 0) pieces.push({ address, length, ...(typeof data === 'number' && { writable: true }) });
    queue.add([...pieces, { address: status, length: 1, writable: true }]);
    queue.kick();
    return () => {
      const value = driver.ram.bytes[status] ?? 0xff;
      return value === 0xff ? undefined : { status: value, data: driver.ram.bytes.slice(address, address + length) };
    };
  };
  const finish: Disk['finish'] = async wait => {
    for (;;) {
      const done = wait();
      if (done !== undefined) return done;
      await new Promise(resolve => setImmediate(resolve));
    }
  };
  return { lab, driver, queue, drives, image: () => readFileSync(file), request, finish };
}

/** One range of a discard or write zeroes request. */
function range(sector: number, sectors: number, flags: number): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, sector, true);
  view.setUint32(8, sectors, true);
  view.setUint32(12, flags, true);
  return bytes;
}

t.test('reads, writes, flushes and says who it is', async t => {
  const { driver, request, finish, image } = await disk(t, { serial: 'S-42', 'queue-size': '64' });
  t.equal(driver.readConfig(CAPACITY, 4), SECTORS);
  t.equal(driver.readConfig(SEG_MAX, 4), 62);
  t.equal((await finish(request(OUT, 3, Buffer.alloc(1024, 'w')))).status, OK);
  t.equal((await finish(request(FLUSH, 0, 0))).status, OK);
  t.equal(image().toString('latin1', 3 * 512, 5 * 512), 'w'.repeat(1024));
  const read = await finish(request(IN, 2, 1024));
  t.equal(Buffer.from(read.data).toString(), 'x'.repeat(512) + 'w'.repeat(512));
  const id = await finish(request(GET_ID, 0, 20));
  t.equal(Buffer.from(id.data).toString('latin1', 0, 5), 'S-42\0');
});

t.test('refuses what is out of range or unknown', async t => {
  const { request, finish } = await disk(t);
  t.equal((await finish(request(IN, SECTORS, 512))).status, IOERR);
  t.equal((await finish(request(IN, SECTORS - 1, 1024))).status, IOERR);
  t.equal((await finish(request(IN, 0, 511))).status, IOERR, 'half a sector');
  t.equal((await finish(request(77, 0, 0))).status, UNSUPP);
  t.equal((await finish(request(DISCARD, 0, range(0, 8, 1)))).status, UNSUPP, 'no flags for discard');
  t.equal((await finish(request(WRITE_ZEROES, 0, range(60, 8, 0)))).status, IOERR);
});

t.test('zeroes and discards ranges', async t => {
  const { request, finish, image } = await disk(t);
  t.equal((await finish(request(WRITE_ZEROES, 0, range(8, 8, 1)))).status, OK);
  t.ok(
    image()
      .subarray(8 * 512, 16 * 512)
      .every(byte => byte === 0),
  );
  t.equal((await finish(request(DISCARD, 0, range(16, 8, 0)))).status, OK);
});

t.test('read-only disks say so, and take no writes', async t => {
  const { driver, request, finish } = await disk(t, {}, [['readonly', 'on']]);
  t.ok(driver.features & (1n << 5n), 'RO');
  t.equal((await finish(request(OUT, 0, new Uint8Array(512)))).status, IOERR);
});

t.test('werror=stop keeps a request until the machine goes on', async t => {
  const { lab, drives, request, finish, image } = await disk(t, { werror: 'stop' });
  const backend = drives.graph.backend('d0');
  if (backend === undefined) throw new Error('there is no drive');
  drives.graph.stopMachine = () => lab.machine.stop('io-error');
  const write = backend.writev.bind(backend);
  backend.writev = () => errno.ENOSPC;
  const pending = request(OUT, 0, Buffer.alloc(512, 'n'));
  t.equal(pending(), undefined);
  t.equal(lab.machine.power.state, 'io-error');
  t.equal(backend.ioStatus, 'nospace');
  backend.writev = write;
  lab.machine.start();
  t.equal((await finish(pending)).status, OK);
  t.equal(image().toString('latin1', 0, 512), 'n'.repeat(512));
  t.equal(backend.ioStatus, 'ok');
});

t.test('a snapshot has the requests that wait', async t => {
  const { lab, drives, request, finish } = await disk(t, { werror: 'stop' });
  const backend = drives.graph.backend('d0');
  if (backend === undefined) throw new Error('there is no drive');
  drives.graph.stopMachine = () => lab.machine.stop('io-error');
  const write = backend.writev.bind(backend);
  backend.writev = () => errno.ENOSPC;
  const pending = request(OUT, 5, Buffer.alloc(512, 's'));
  backend.writev = write;
  const saved = [...lab.machine.devices()]
    .filter(device => device.typeName.startsWith('virtio'))
    .map(device => [device, device.save()] as const);
  for (const [device] of saved) device.reset();
  for (const [device, state] of saved) device.restore(state);
  lab.machine.start();
  t.equal((await finish(pending)).status, OK);
});
