import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { blockGraph } from '../../../core/block/block.ts';
import { Drives } from '../../../core/block/drives.ts';
import type { BlockNode } from '../../../core/block/node.ts';
import type { DriverPort } from '../../../core/register/register.ts';
import { bench } from '../../../core/testing/bench.ts';
import { am53c974 } from '../../../devices/esp/am53c974.ts';
import { dc390 } from '../../../devices/esp/dc390.ts';
import { scsiHd } from '../../../devices/scsi/scsi-disk.ts';
import { until } from '../../until.ts';

t.setTimeout(300_000);

/** How long a busy host may take over a request. */
const BLOCK = 512;
const TARGET = 2;
const R = { TCLO: 0, TCMID: 4, FIFO: 8, CMD: 0xc, STAT: 0x10, ID: 0x10, INTR: 0x14, STEP: 0x18, TCHI: 0x38 };
const D = { CMD: 0x40, STC: 0x44, SPA: 0x48, WBC: 0x4c, WAC: 0x50, STATUS: 0x54 };
const C = { RESET: 2, TI: 0x10, STEPS: 0x11, ACCEPTED: 0x12, SELECT_ATN: 0x42, DMA: 0x80 };
const PHASE = { OUT: 0, IN: 1, STATUS: 3 };
const TO_MEMORY = 0x80;
const START = 3;
const DONE = 0x08;
const DISCONNECTED = 0x20;
const MEMORY = 0x1000;
const DATA = 0x1_0000;

interface Adapter {
  readonly lab: ReturnType<typeof bench>;
  readonly port: DriverPort;
  readonly drives: Drives;
  readonly config: { read(offset: number): number; write(offset: number, value: number): void };
  image(): Buffer;
  intx(): boolean;
}

async function adapter(t: Test, type = am53c974): Promise<Adapter> {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-esp-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'disk.img');
  const image = Buffer.alloc(1024 * BLOCK);
  for (let block = 0; block < 1024; block++) image.fill(block % 253, block * BLOCK, (block + 1) * BLOCK);
  writeFileSync(file, image);
  const drives = new Drives(blockGraph());
  await drives.add(
    [
      ['id', 'd'],
      ['file', file],
      ['format', 'raw'],
      ['if', 'none'],
    ],
    { interface: 'none' },
  );
  const lab = bench({ backends: { find: (_kind, id) => drives.graph.backend(id) } });
  t.teardown(() => lab.dispose());
  lab.machine.start();
  const probe = lab.pci(type);
  probe.device.buses[0]?.plug(scsiHd, { 'scsi-id': TARGET }, { drive: 'd' });
  return {
    lab,
    port: probe.port(0),
    drives,
    config: { read: at => probe.readConfig(at, 1), write: (at, value) => probe.writeConfig(at, 1, value) },
    image: () => readFileSync(file),
    intx: () => probe.intx.level,
  };
}

/** Waits for the interrupt and takes it: the phase, and why. */
async function interrupted({ port, intx }: Adapter): Promise<{ phase: number; why: number }> {
  await until(intx);
  const phase = port.read(R.STAT, 1) & 7;
  return { phase, why: port.read(R.INTR, 1) };
}

function startDma({ port }: Adapter, address: number, length: number, direction: number): void {
  port.write(R.TCLO, 1, length & 0xff);
  port.write(R.TCMID, 1, (length >>> 8) & 0xff);
  port.write(R.TCHI, 1, length >>> 16);
  port.write(D.STC, 4, length);
  port.write(D.SPA, 4, address);
  port.write(D.CMD, 4, direction);
  port.write(D.CMD, 4, direction | START);
}

/** A whole command, the way that Linux's driver leads it; returns its status. */
async function command(a: Adapter, cdb: readonly number[], length: number, out = false): Promise<number> {
  const { port, lab } = a;
  lab.ram.bytes.set([0x80, ...cdb], MEMORY);
  port.write(R.ID, 1, TARGET);
  startDma(a, MEMORY, 1 + cdb.length, 0);
  port.write(R.CMD, 1, C.SELECT_ATN | C.DMA);
  let { phase } = await interrupted(a);
  for (let at = 0; phase === PHASE.IN || phase === PHASE.OUT; at += 0x1_0000) {
    startDma(a, DATA + at, Math.min(0x1_0000, length - at), out ? 0 : TO_MEMORY);
    port.write(R.CMD, 1, C.TI | C.DMA);
    ({ phase } = await interrupted(a));
  }
  if (phase !== PHASE.STATUS) throw new Error(`phase ${phase}`);
  port.write(R.CMD, 1, C.STEPS);
  await interrupted(a);
  const status = port.read(R.FIFO, 1);
  port.read(R.FIFO, 1);
  port.write(R.CMD, 1, C.ACCEPTED);
  if ((await interrupted(a)).why !== DISCONNECTED) throw new Error('still connected');
  return status;
}

t.test('commands by DMA', async t => {
  const a = await adapter(t);
  t.equal(a.port.read(R.TCHI, 1), 0x12, 'the chip says which it is');
  t.equal(await command(a, [0, 0, 0, 0, 0, 0], 0), 2, 'the reset is told of');
  t.equal(await command(a, [0, 0, 0, 0, 0, 0], 0), 0);
  t.equal(await command(a, [0x28, 0, 0, 0, 0, 9, 0, 1, 44, 0], 300 * BLOCK), 0);
  const { bytes } = a.lab.ram;
  t.same(Buffer.from(bytes.subarray(DATA, DATA + 300 * BLOCK)), a.image().subarray(9 * BLOCK, 309 * BLOCK));
  bytes.fill(0x77, DATA, DATA + 300 * BLOCK);
  t.equal(await command(a, [0x2a, 0, 0, 0, 0, 5, 0, 1, 44, 0], 300 * BLOCK, true), 0);
  t.ok(
    a
      .image()
      .subarray(5 * BLOCK, 305 * BLOCK)
      .every(byte => byte === 0x77),
  );
  t.equal(a.port.read(D.STATUS, 4) & DONE, DONE);
  t.equal(a.port.read(D.STATUS, 4) & DONE, 0, 'reading clears');
});

t.test('a target that takes its time, an error, and no target', async t => {
  const a = await adapter(t);
  await command(a, [0, 0, 0, 0, 0, 0], 0);
  const node = a.drives.graph.backend('d')?.root as BlockNode;
  const { readv } = node;
  node.readv = async (...args) => {
    await new Promise(resolve => setImmediate(resolve));
    await readv.apply(node, args);
  };
  t.equal(await command(a, [0x28, 0, 0, 0, 0, 9, 0, 1, 44, 0], 300 * BLOCK), 0);
  t.same(Buffer.from(a.lab.ram.bytes.subarray(DATA, DATA + 300 * BLOCK)), a.image().subarray(9 * BLOCK, 309 * BLOCK));
  node.readv = () => Promise.reject(new Error('no luck'));
  t.equal(await command(a, [0x28, 0, 0, 0, 0, 9, 0, 0, 1, 0], BLOCK), 2);
  node.readv = readv;
  a.port.write(R.ID, 1, 5);
  startDma(a, MEMORY, 7, 0);
  a.port.write(R.CMD, 1, C.SELECT_ATN | C.DMA);
  t.equal((await interrupted(a)).why, DISCONNECTED);
});

t.test('commands without DMA go through the FIFO', async t => {
  const a = await adapter(t);
  await command(a, [0, 0, 0, 0, 0, 0], 0);
  a.port.write(R.ID, 1, TARGET);
  for (const byte of [0x80, 0x12, 0, 0, 0, 36, 0]) a.port.write(R.FIFO, 1, byte);
  a.port.write(R.CMD, 1, C.SELECT_ATN);
  t.equal((await interrupted(a)).phase, PHASE.IN);
  const text: number[] = [];
  for (let index = 0; index < 36; index++) {
    a.port.write(R.CMD, 1, C.TI);
    a.port.read(R.INTR, 1);
    text.push(a.port.read(R.FIFO, 1));
  }
  t.equal(Buffer.from(text).toString('latin1', 8, 24), 'QEMU    QEMU HAR');
});

t.test('a command that is under way is saved and goes on', async t => {
  const a = await adapter(t);
  await command(a, [0, 0, 0, 0, 0, 0], 0);
  const node = a.drives.graph.backend('d')?.root as BlockNode;
  const { readv } = node;
  node.readv = () => new Promise(() => {});
  a.lab.ram.bytes.set([0x80, 0x28, 0, 0, 0, 0, 3, 0, 0, 1, 0], MEMORY);
  a.port.write(R.ID, 1, TARGET);
  startDma(a, MEMORY, 11, 0);
  a.port.write(R.CMD, 1, C.SELECT_ATN | C.DMA);
  const devices = [...a.lab.machine.devices()];
  const saved = devices.map(device => device.save());
  node.readv = readv;
  a.lab.machine.stop();
  for (const [index, device] of devices.entries()) device.restore(saved[index] ?? null);
  a.lab.machine.start();
  t.equal((await interrupted(a)).phase, PHASE.IN);
  startDma(a, DATA, BLOCK, TO_MEMORY);
  a.port.write(R.CMD, 1, C.TI | C.DMA);
  t.equal((await interrupted(a)).phase, PHASE.STATUS);
  t.same(Buffer.from(a.lab.ram.bytes.subarray(DATA, DATA + BLOCK)), a.image().subarray(3 * BLOCK, 4 * BLOCK));
});

t.test('the DC-390 keeps its settings in an EEPROM', async t => {
  const { config } = await adapter(t, dc390);
  const clock = (bit: number): void => {
    config.write(0x80, bit << 6);
    config.write(0x80, 0x80 | (bit << 6));
    config.write(0x80, bit << 6);
  };
  const word = (address: number): number => {
    config.write(0xc0, 0);
    for (const bit of [1, 1, 0]) clock(bit);
    for (let bit = 5; bit >= 0; bit--) clock((address >>> bit) & 1);
    let value = 0;
    for (let bit = 0; bit < 16; bit++) {
      clock(0);
      value = (value << 1) | (config.read(0) === 0 ? 0 : 1);
    }
    config.write(0xc0, 0);
    return value;
  };
  const words = Array.from({ length: 64 }, (_, address) => word(address));
  t.equal(words[0], 0x57);
  t.equal(words[32], 0x0f07);
  t.equal(words.reduce((sum, value) => sum + value, 0) & 0xffff, 0x1234);
  t.equal(config.read(0), 0x22);
});

t.test('no access throws', async t => {
  const a = await adapter(t);
  const access = fc.record({
    at: fc.oneof(fc.nat(0x7f), fc.constantFrom(...Object.values(R), ...Object.values(D))),
    size: fc.constantFrom(1, 2, 4),
    value: fc.oneof(
      fc.nat(0xffff_ffff),
      fc.constantFrom(...Object.values(C), C.SELECT_ATN | C.DMA, C.TI | C.DMA, 0x43, 3),
    ),
  });
  fc.assert(
    fc.property(fc.array(access, { maxLength: 60 }), accesses => {
      for (const { at, size, value } of accesses) {
        a.port.read(at, size as 1);
        a.port.write(at, size as 1, value);
      }
    }),
    { numRuns: 200 },
  );
  a.port.write(R.CMD, 1, C.RESET);
  await command(a, [0, 0, 0, 0, 0, 0], 0);
  t.equal(await command(a, [0x28, 0, 0, 0, 0, 9, 0, 0, 1, 0], BLOCK), 0, 'after a reset all is well');
});
