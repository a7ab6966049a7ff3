/**
 * A disk as a guest sees it: our own bare-metal program (test/guests/src/disks.c) keeps requests under way on virtio-blk and
 * AHCI, on our machine and on Debian's QEMU by turns, over the same raw file and with the same cache mode. Part of
 * `npm run bench -- block`.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { kvm } from '../../core/accel/kvm/accelerator.ts';
import { buildGuest } from '../guests/build.ts';
import { writeDiskImage } from '../guests/disk-image.ts';
import { works } from './accelerators.ts';

const SIZE = 128 << 20;
/** ACPI power management timer. */
const TICKS_A_MS = 3579.545;
/** Of QEMU's requests a second, what ours are to reach. */
const BAR = 0.9;

const DISKS = {
  virtio: ['-device', 'virtio-blk-pci,drive=disk'],
  ahci: ['-device', 'ahci,id=hba', '-device', 'ide-hd,bus=hba.0,drive=disk'],
} as const;
type Disk = keyof typeof DISKS;
/** What -drive calls them: through the host's page cache, and past it. */
const CACHES = ['writeback', 'none'] as const;
type Cache = (typeof CACHES)[number];

interface Side {
  readonly name: 'ours' | 'qemu';
  readonly command: string;
  readonly before: readonly string[];
}

/** What one load came to. */
interface Result {
  readonly requestsASecond: number;
  /** CPU time of all the process's threads for a request, the guest's own included, in microseconds. */
  readonly cpuUs: number;
}

const NS_A_TICK = 1e9 / 100;
/** All loads of one boot take some ten seconds. */
const LIMIT_MS = 90_000;

/** A guest that said nothing more: QEMU 7.2's TCG loses a wake-up once in some tens of boots, and sleeps for ever. */
class Stuck extends Error {}

/** CPU time of all threads, also of those that have ended, in nanoseconds; proc(5) counts hundredths of a second. */
function cpuTime(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1')
    .replace(/^.*\) /, '')
    .split(' ');
  return (Number(fields[11]) + Number(fields[12])) * NS_A_TICK;
}

/** Boots the guest once, and gives the results of all its loads by what they are. */
function boot(
  side: Side,
  disk: Disk,
  cache: Cache,
  image: string,
  guest: string,
  ms: number,
): Promise<Map<string, Result>> {
  const child: ChildProcess = spawn(
    side.command,
    [
      ...side.before,
      ...['-M', 'q35', '-m', '64', '-nodefaults', '-display', 'none', '-no-reboot', '-serial', 'stdio'],
      ...['-device', 'isa-debug-exit,iobase=0xf4', '-kernel', guest, '-append', `disk=${disk} ms=${ms}`],
      ...['-drive', `if=none,id=disk,format=raw,file=${image},cache=${cache}`, ...DISKS[disk]],
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const results = new Map<string, Result>();
  return new Promise((resolve, reject) => {
    let rest = '';
    let before = 0;
    let output = '';
    const limit = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Stuck(`${side.name}, ${disk}, cache=${cache}: nothing more within ${LIMIT_MS} ms, after\n${output}`));
    }, LIMIT_MS);
    child.once('error', reject);
    child.stdout?.on('data', (chunk: Buffer) => {
      output += chunk.toString('latin1');
      const lines = (rest + chunk.toString('latin1')).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const found = /^disk: \w+ (\w+) bytes (\d+) depth (\d+) (?:(warm)|requests (\d+) ticks (\d+))/.exec(line);
        if (found === null) continue;
        const [, op = '', bytes = '', depth = '', warm, requests, ticks] = found;
        const now = cpuTime(child.pid ?? 0);
        if (warm !== undefined) before = now;
        else {
          results.set(`${op.padEnd(5)} ${bytes.padEnd(6)} ${depth.padEnd(2)}`, {
            requestsASecond: (Number(requests) * 1000 * TICKS_A_MS) / Number(ticks),
            cpuUs: (now - before) / 1000 / Number(requests),
          });
        }
      }
    });
    child.once('close', status => {
      clearTimeout(limit);
      if (status === 0 && results.size > 0) resolve(results);
      else reject(new Error(`${side.name}, ${disk}: the guest ended with ${status} and said\n${output}`));
    });
  });
}

const largest = (values: readonly number[]): number => Math.max(...values);
const least = (values: readonly number[]): number => Math.min(...values);

/** Prints a row for each load. `folder` is where the image goes. */
export async function benchGuestDisks(folder: string, { rounds = 3, ms = 500 } = {}): Promise<void> {
  const withKvm = works(kvm);
  const guest = await buildGuest(withKvm ? 'disks64' : 'disks32');
  const program = fileURLToPath(new URL('../../southbridge.js', import.meta.url));
  const hasQemu = spawnSync('qemu-system-x86_64', ['-version']).status === 0;
  const sides: Side[] = [
    { name: 'ours', command: process.execPath, before: [program, '-accel', withKvm ? 'kvm' : 'wasm'] },
  ];
  if (hasQemu) sides.push({ name: 'qemu', command: 'qemu-system-x86_64', before: ['-accel', withKvm ? 'kvm' : 'tcg'] });
  const image = join(folder, 'guest.raw');
  writeDiskImage(image, SIZE);
  console.log(
    `\nA guest's requests, ${withKvm ? 'KVM on both sides' : 'our software CPU beside TCG'}: the best of ${rounds} rounds; bar ${BAR} of QEMU's requests a second`,
  );
  console.log(
    'cache      disk    op    bytes  depth   ours/s     MB/s   qemu/s     MB/s   ratio   CPU µs: ours   qemu  ratio',
  );
  for (const cache of CACHES) {
    for (const disk of Object.keys(DISKS) as Disk[]) {
      const all: Record<Side['name'], Map<string, Result>[]> = { ours: [], qemu: [] };
      for (let round = 0; round < rounds; round++) {
        for (const side of sides) {
          try {
            all[side.name].push(await boot(side, disk, cache, image, guest, ms));
          } catch (error) {
            // A stuck QEMU costs its round; that ours is stuck would be a defect, and ends the run.
            if (!(error instanceof Stuck) || side.name === 'ours') throw error;
            console.log(error.message.split('\n', 1)[0]);
          }
        }
      }
      for (const load of all.ours[0]?.keys() ?? []) {
        const of = (name: Side['name']): Result[] => all[name].flatMap(results => results.get(load) ?? []);
        const column = (name: Side['name']): readonly [rate: number, cpu: number] => [
          largest(of(name).map(each => each.requestsASecond)),
          least(of(name).map(each => each.cpuUs)),
        ];
        const bytes = Number(load.split(/ +/)[1]);
        const rate = (value: number): string =>
          `${value.toFixed(0).padStart(8)} ${((value * bytes) / 1e6).toFixed(0).padStart(8)}`;
        const [mine, myCpu] = column('ours');
        const [theirs, theirCpu] = column('qemu');
        const beside = hasQemu ? `${rate(theirs)} ${(mine / theirs).toFixed(2).padStart(7)}` : '-'.padStart(25);
        const cpuBeside = hasQemu
          ? `${theirCpu.toFixed(1).padStart(6)} ${(myCpu / theirCpu).toFixed(2).padStart(6)}`
          : '';
        console.log(
          `${cache.padEnd(10)} ${disk.padEnd(7)} ${load}    ${rate(mine)} ${beside}   ${myCpu.toFixed(1).padStart(12)} ${cpuBeside}`,
        );
      }
    }
  }
}
