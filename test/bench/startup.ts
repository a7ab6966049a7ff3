/**
 * From the start of the process to the guest's first exit that a person could see, and what is resident then: ours and
 * Debian's QEMU, by turns, on the same image and with the same options.
 */
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { kvm } from '../../core/accel/kvm/accelerator.ts';
import { works } from './accelerators.ts';
import { ENVIRONMENT } from './environment.ts';
import { median } from './median.ts';

const ROUNDS = 9;
const RAM_MIB = 32;
const BIOS_SIZE = 0x1_0000;
const DEBUG_PORT = 0xe9;
const KIB = 1024;

/** A BIOS that says "!" on the debug port and halts. */
function image(): Uint8Array {
  const bios = new Uint8Array(BIOS_SIZE);
  bios.set([0xb0, 0x21, 0xe6, DEBUG_PORT, 0xfa, 0xf4], 0);
  bios.set([0xea, 0x00, 0x00, 0x00, 0xf0], BIOS_SIZE - 16); // jmp f000:0000
  return bios;
}

interface Start {
  readonly ms: number;
  readonly residentKib: number;
}

function start(command: string, args: readonly string[]): Promise<Start> {
  return new Promise((resolve, reject) => {
    const began = performance.now();
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'], env: ENVIRONMENT });
    child.once('error', reject);
    child.once('exit', () => reject(new Error(`${command} ended before its guest had said anything`)));
    child.stdout.once('data', () => {
      const ms = performance.now() - began;
      const status = readFileSync(`/proc/${child.pid}/status`, 'latin1');
      child.removeAllListeners('exit');
      child.kill('SIGKILL');
      child.once('exit', () => resolve({ ms, residentKib: Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1]) }));
    });
  });
}

const folder = mkdtempSync(join(tmpdir(), 'southbridge-startup-'));
try {
  const bios = join(folder, 'bios.bin');
  writeFileSync(bios, image());
  const options = ['-M', 'pc', '-nodefaults', '-display', 'none', '-m', String(RAM_MIB), '-bios', bios];
  const debug = ['-chardev', 'stdio,id=out,signal=off', '-device', `isa-debugcon,iobase=${DEBUG_PORT},chardev=out`];
  const program = fileURLToPath(new URL('../../southbridge.js', import.meta.url));
  const withKvm = works(kvm);
  if (!withKvm) console.log('without KVM: our software CPU beside TCG');
  const sides = {
    ours: [process.execPath, [program, '-accel', withKvm ? 'kvm' : 'wasm']],
    qemu: ['qemu-system-x86_64', ['-accel', withKvm ? 'kvm' : 'tcg']],
  } as const;
  const hasQemu = spawnSync('qemu-system-x86_64', ['-version']).status === 0;
  const results: Record<string, Start[]> = { ours: [], qemu: [] };
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, [command, before]] of Object.entries(sides)) {
      if (name === 'qemu' && !hasQemu) continue;
      results[name]?.push(await start(command, [...before, ...options, ...debug]));
    }
  }
  for (const [name, starts] of Object.entries(results)) {
    if (starts.length === 0) {
      console.log(`${name}: not installed`);
      continue;
    }
    console.log(
      `${name.padEnd(5)} first exit ${median(starts.map(each => each.ms)).toFixed(0)} ms   resident ${(median(starts.map(each => each.residentKib)) / KIB).toFixed(0)} MiB, of ${RAM_MIB} MiB guest RAM what the guest touched`,
    );
  }
  if (hasQemu)
    console.log(
      `ratio ${(median((results['ours'] ?? []).map(each => each.ms)) / median((results['qemu'] ?? []).map(each => each.ms))).toFixed(2)} (bar 1.00)`,
    );
} finally {
  rmSync(folder, { recursive: true, force: true });
}
