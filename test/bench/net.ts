/**
 * Frames a second and Gbit/s through e1000 and virtio-net, beside Debian's QEMU on the same bare-metal guest program
 * (test/guests/src/net.c) and the same backend in the same run: with KVM where the host has it, else our software CPU against
 * QEMU's. Then the cards alone, without a CPU: descriptors that qtest puts into memory, and one write to the doorbell.
 *
 *   node dist/test/bench/net.js [rounds of measurement] [frames]
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { closeSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { kvm } from '../../core/accel/kvm/accelerator.ts';
import { bindUdp } from '../../core/host/datagrams.ts';
import { buildGuest } from '../guests/build.ts';
import { works } from './accelerators.ts';
import { CardsAlone } from './net-cards.ts';

/** Of QEMU's frames a second over a wire. The cards alone have none: they show where the time goes. */
const BAR = 0.9;
const PATIENCE_MS = 120_000;
/** A frame on a stream has its length before it. */
const LENGTH_SIZE = 4;
const PIECE = 0x1_0000;
/** Frames that do not count for each one that does. */
const WARM = 2;
const QEMU = 'qemu-system-x86_64';

interface Program {
  readonly command: string;
  readonly args: readonly string[];
}
interface Load {
  readonly card: 'e1000' | 'virtio';
  readonly send: boolean;
  /** Bytes of a frame as the guest makes it. */
  readonly size: number;
  /** Bytes of data in each segment, where the card cuts what the guest makes. */
  readonly mss?: number;
}

const DEVICE = { e1000: 'e1000', virtio: 'virtio-net-pci' } as const;
const HEADERS = 54;
const LOADS: readonly Load[] = (['e1000', 'virtio'] as const).flatMap(card => [
  { card, send: true, size: 60 },
  { card, send: true, size: 1514 },
  ...(card === 'e1000' ? [{ card, send: true, size: 10 * 1460 + HEADERS, mss: 1460 }] : []),
  { card, send: false, size: 60 },
  { card, send: false, size: 1514 },
]);

/** Frames for the guest, with their lengths on a unix socket, as fast as they are taken. */
class Source {
  readonly #server: Server;
  #stream: Socket | undefined;

  constructor(path: string) {
    this.#server = createServer(stream => {
      this.#stream = stream;
      stream.on('error', () => {});
      stream.resume();
    });
    this.#server.listen(path);
  }

  /** Sends frames without end: what a card loses does not count. */
  flood(size: number): void {
    const stream = this.#stream;
    if (stream === undefined) throw new Error('nobody has connected');
    const frame = Buffer.alloc(LENGTH_SIZE + size, 0x5a);
    frame.writeUInt32BE(size);
    frame.fill(0xff, LENGTH_SIZE, LENGTH_SIZE + 6);
    const piece = Buffer.concat(Array.from({ length: Math.ceil(PIECE / frame.length) }, () => frame));
    const more = (): void => {
      while (!stream.destroyed && stream.write(piece));
    };
    stream.on('drain', more);
    more();
  }

  close(): void {
    this.#stream?.destroy();
    this.#server.close();
  }
}

/** Frames a second. What is sent goes to a UDP socket that nobody reads: the kernel takes each datagram, and drops it. */
async function measure(program: Program, load: Load, count: number, kernel: string, folder: string): Promise<number> {
  const { card, send, size, mss } = load;
  // The first frames pass through compilers, ours more than QEMU's: its software CPU's largest functions take seconds.
  const words = `card=${card} do=${send ? 'send' : 'receive'} size=${size} count=${count} warm=${WARM * count}${mss ? ` mss=${mss}` : ''}`;
  const machine = '-M pc -m 64 -nodefaults -display none -no-reboot -serial stdio'.split(' ');
  const path = join(folder, `source-${process.hrtime.bigint()}`);
  const source = send ? undefined : new Source(path);
  const port = await freePort();
  const sink = send ? bindUdp('127.0.0.1', port) : undefined;
  const netdev =
    source !== undefined
      ? `stream,id=n0,addr.type=unix,addr.path=${path}`
      : `dgram,id=n0,local.type=inet,local.host=127.0.0.1,local.port=0,remote.type=inet,remote.host=127.0.0.1,remote.port=${port}`;
  const child = spawn(
    program.command,
    [
      ...program.args,
      ...machine,
      ...['-netdev', netdev, '-device', `${DEVICE[card]},netdev=n0,romfile=`],
      ...['-kernel', kernel, '-append', words],
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  try {
    const lines = new Lines(child);
    if (source !== undefined) {
      await lines.until(/net: ready/);
      source.flood(size);
    }
    await lines.until(/net: begin/);
    const began = performance.now();
    await lines.until(/net: end/);
    const segments = mss ? Math.ceil((size - HEADERS) / mss) : 1;
    return (count * segments * 1000) / (performance.now() - began);
  } finally {
    child.kill('SIGKILL');
    source?.close();
    if (sink !== undefined) closeSync(sink);
  }
}

async function freePort(): Promise<number> {
  const probe = createSocket('udp4').bind(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  return port;
}

/** What a guest says on its serial port. */
class Lines {
  #text = '';
  readonly #child: ChildProcess;

  constructor(child: ChildProcess) {
    this.#child = child;
    child.stdout?.on('data', (data: Buffer) => (this.#text += data.toString('latin1')));
  }

  async until(pattern: RegExp): Promise<void> {
    const limit = AbortSignal.timeout(PATIENCE_MS);
    while (!pattern.test(this.#text)) {
      if (this.#child.stdout === null) throw new Error('no output');
      if (/FAIL/.test(this.#text)) throw new Error(this.#text);
      await once(this.#child.stdout, 'data', { signal: limit });
    }
  }
}

/** The best of the rounds of each, in turn: the host disturbs both. */
async function compare(
  rounds: number,
  mine: () => Promise<number>,
  theirs: (() => Promise<number>) | undefined,
  better: (a: number, b: number) => number,
): Promise<[number, number | undefined]> {
  let best = await mine();
  let other = await theirs?.();
  for (let round = 1; round < rounds; round++) {
    best = better(best, await mine());
    if (theirs !== undefined && other !== undefined) other = better(other, await theirs());
  }
  return [best, other];
}

function row(
  what: string,
  unit: string,
  [mine, theirs]: [number, number | undefined],
  ratio: number | undefined,
  bar = 0,
): void {
  const number = (value: number | undefined): string =>
    (value === undefined ? '-' : Math.round(value).toLocaleString('en')).padStart(11);
  const verdict =
    ratio === undefined ? '' : `  ratio ${ratio.toFixed(2)}${ratio < bar ? `, below the bar of ${bar}` : ''}`;
  console.log(`${what.padEnd(34)} ours ${number(mine)}  QEMU ${number(theirs)} ${unit}${verdict}`);
}

const [rounds = 3, frames = 400_000] = process.argv.slice(2).map(Number);
const accelerator = works(kvm) ? 'kvm' : undefined;
const southbridge = fileURLToPath(new URL('../../southbridge.js', import.meta.url));
const own = (accel: string): Program => ({ command: process.execPath, args: [southbridge, '-accel', accel] });
const theirs = (accel: string): Program | undefined =>
  spawnSync(QEMU, ['--version']).status === 0 ? { command: QEMU, args: ['-accel', accel] } : undefined;

const folder = mkdtempSync(join(tmpdir(), 'southbridge-net-'));
try {
  const kernel = await buildGuest(accelerator === undefined ? 'net32' : 'net64');
  console.log(`frames a second on the wire, ${accelerator ?? 'wasm against tcg'}, sent by UDP, received from a stream`);
  const qemu = theirs(accelerator ?? 'tcg');
  for (const load of LOADS) {
    const { card, send, size, mss } = load;
    const name = `${card} ${send ? 'sends' : 'receives'} ${size} bytes${mss ? `, cut at ${mss}` : ''}`;
    const count = mss ? Math.ceil(frames / 10) : frames;
    const run = (program: Program) => (): Promise<number> => measure(program, load, count, kernel, folder);
    const found = await compare(rounds, run(own(accelerator ?? 'wasm')), qemu && run(qemu), Math.max);
    const [mine, other] = found;
    row(name, 'frames/s', found, other && mine / other, BAR);
    const bits = (mss ? HEADERS + mss : size) * 8;
    console.log(
      `${''.padEnd(34)} ${((mine * bits) / 1e9).toFixed(3).padStart(16)} ${(((other ?? 0) * bits) / 1e9).toFixed(3).padStart(16)}   Gbit/s`,
    );
  }
  console.log('\nnanoseconds a frame in the card alone, no CPU, nobody on the wire');
  const alone =
    (device: string, ask: (card: CardsAlone) => Promise<number>) =>
    (command: readonly string[]) =>
    async (): Promise<number> => {
      const card = await CardsAlone.start(command, device, folder);
      try {
        return await ask(card);
      } finally {
        card.stop();
      }
    };
  for (const [name, device, ask] of [
    ['e1000 sends 60 bytes', 'e1000', card => card.e1000(60, false, 30)],
    ['e1000 sends 1514 bytes', 'e1000', card => card.e1000(1514, false, 30)],
    ['e1000 sends itself 60 bytes', 'e1000', card => card.e1000(60, true, 30)],
    ['e1000 sends itself 1514 bytes', 'e1000', card => card.e1000(1514, true, 30)],
    ['virtio sends 60 bytes', 'virtio-net-pci', card => card.virtio(60, 30)],
    ['virtio sends 1514 bytes', 'virtio-net-pci', card => card.virtio(1514, 30)],
  ] as const satisfies readonly (readonly [string, string, (card: CardsAlone) => Promise<number>])[]) {
    const run = alone(device, ask);
    const other = theirs('tcg');
    const found = await compare(
      rounds,
      run([process.execPath, southbridge, '-accel', 'qtest']),
      other && run([other.command, ...other.args]),
      Math.min,
    );
    row(name, 'ns', found, found[1] && found[1] / found[0]);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
