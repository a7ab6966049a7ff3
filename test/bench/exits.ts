/**
 * What an exit costs: CPU time of the thread that runs the vCPU, against Debian's QEMU on the same guest image in the
 * same run. The guest does ROUNDS accesses and halts; the same image with none is the start-up cost, which is taken off.
 *
 *   node dist/test/bench/exits.js [rounds of measurement]
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { kvm } from '../../core/accel/kvm/accelerator.ts';
import { SharedRam } from '../../core/memory/guest-ram.ts';
import { code, dword } from '../machine-code.ts';
import { works } from './accelerators.ts';
import { benchBus, HPET, POST_PORT } from './bench-bus.ts';

const ROUNDS = 400_000;
/** Accesses a turn of the loop, so that the loop itself weighs little where a host interprets it. */
const UNROLLED = 40;
const BIOS_SIZE = 0x1_0000;
const BIOS_BASE = 0xf_0000;

/** The loop bodies, 32-bit code; EDI holds the HPET's address. */
const LOOPS = {
  'PIO out': [0xe6, POST_PORT], // out 80h, al
  'PIO in': [0xe4, POST_PORT], // in al, 80h
  'MMIO read': [0x8b, 0x07], // mov eax, [edi]
  'MMIO write': [0x89, 0x07], // mov [edi], eax
} as const;
type LoopName = keyof typeof LOOPS;
const BARS: Record<LoopName, number> = { 'PIO out': 0.92, 'PIO in': 0.92, 'MMIO read': 0.95, 'MMIO write': 0.95 };

/** A 64 KiB BIOS: real mode, then flat 32-bit protected mode, `rounds` times the body, then cli; hlt for good. */
export function image(body: readonly number[], rounds: number): Uint8Array {
  const bios = new Uint8Array(BIOS_SIZE);
  // Code and data, 4 GiB each, with their accessed bits set: the GDT is in ROM.
  const gdt = [0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0x9b, 0xcf, 0, 0xff, 0xff, 0, 0, 0, 0x93, 0xcf, 0];
  bios.set(gdt, 0x100);
  bios.set([gdt.length - 1, 0, ...dword(BIOS_BASE + 0x100)], 0x140);
  bios.set(
    code`
      fa                                       ; cli
      2e 66 0f 01 16 40 01                     ; lgdt cs:[140h]
      0f 20 c0 0c 01 0f 22 c0                  ; mov eax, cr0; or al, 1; mov cr0, eax
      66 ea ${dword(BIOS_BASE + 0x200)} 08 00  ; jmp 8:flat
    `,
    0,
  );
  const bodies = Array.from({ length: UNROLLED }, () => body).flat();
  const loop = code`
    66 b8 10 00 8e d8 8e c0             ; mov ax, 10h; mov ds, ax; mov es, ax
    b9 ${dword(rounds / UNROLLED + 1)}  ; mov ecx, turns + 1
    bf ${dword(HPET)}                   ; mov edi, HPET
    31 c0                               ; xor eax, eax
    eb ${bodies.length}                 ; jmp over the bodies, to the count
    ${bodies} 49                        ; dec ecx
    75 ${0x100 - bodies.length - 3}     ; jnz bodies
    f4 eb fd                            ; hlt; jmp $-1
  `;
  bios.set(loop, 0x200);
  bios.set([0xea, 0, 0, 0x00, 0xf0], 0xfff0);
  return bios;
}

/** Nanoseconds on a CPU of the first thread of `pid` whose name matches, once that no longer grows. */
async function settledCpuTime(pid: number, thread: RegExp): Promise<number> {
  let last = -1;
  for (let calm = 0; calm < 3; ) {
    await sleep(100);
    const now = threadTime(pid, thread);
    calm = now === last && now > 0 ? calm + 1 : 0;
    last = now;
  }
  return last;
}

function threadTime(pid: number, thread: RegExp): number {
  for (const tid of readdirSync(`/proc/${pid}/task`)) {
    const name = readFileSync(`/proc/${pid}/task/${tid}/comm`, 'latin1').trim();
    if (thread.test(name)) return Number(readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'latin1').split(' ')[0]);
  }
  return -1;
}

async function measured(child: ChildProcess, thread: RegExp): Promise<number> {
  try {
    return await settledCpuTime(child.pid ?? 0, thread);
  } finally {
    child.kill('SIGKILL');
  }
}

function qemu(bios: string): Promise<number> {
  const flags = `-M pc -accel kvm -nodefaults -display none -vga none -m 16 -bios ${bios}`.split(' ');
  const child = spawn('qemu-system-x86_64', [...flags, '-name', 'bench,debug-threads=on'], { stdio: 'ignore' });
  return measured(child, /^CPU 0\/KVM/);
}

function ours(bios: string): Promise<number> {
  const child = spawn(process.execPath, [fileURLToPath(import.meta.url), '--guest', bios], { stdio: 'inherit' });
  return measured(child, /^node/);
}

/** The child process: one guest, and as many devices as a PC has. */
function runGuest(path: string): void {
  const rom = new SharedRam('bios', BIOS_SIZE, { readonly: true });
  rom.bytes.set(readFileSync(path));
  const ram = new SharedRam('ram', 0xa_0000);
  const bus = benchBus();
  const clock = { untilDeadline: () => Number.POSITIVE_INFINITY, expire() {}, onDeadline() {} };
  const vm = kvm.createVm({
    bus,
    clock,
    cpus: 1,
    irqchip: true,
    lowRam: ram.size,
    stopped: stop => console.error('report' in stop ? stop.report : stop.reason),
  });
  vm.mapRam(0, ram, 0, ram.size, false);
  vm.mapRam(BIOS_BASE, rom, 0, BIOS_SIZE, true);
  vm.mapRam(0x1_0000_0000 - BIOS_SIZE, rom, 0, BIOS_SIZE, true);
  vm.start();
}

/** The floor: KVM_RUN in a loop in C, on a host with a compiler; undefined elsewhere. */
function buildFloor(folder: string): ((bios: string) => number) | undefined {
  const source = fileURLToPath(new URL('../../../test/bench/bare-loop.c', import.meta.url));
  const program = join(folder, 'bare-loop');
  if (spawnSync('cc', ['-O2', '-D_GNU_SOURCE', '-o', program, source], { stdio: 'inherit' }).status !== 0)
    return undefined;
  return bios => Number(spawnSync(program, [bios, String(ROUNDS)], { encoding: 'latin1' }).stdout);
}

async function main(rounds: number): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-exits-'));
  const floor = buildFloor(folder);
  const file = (name: LoopName, count: number): string => {
    const path = join(folder, `${name.replace(' ', '-')}-${count}.bin`);
    writeFileSync(path, image(LOOPS[name], count));
    return path;
  };
  console.log('CPU time per exit, the least of all rounds in us; the ratio is the median of all rounds');
  try {
    const empty = file('PIO out', 0);
    for (const name of Object.keys(LOOPS) as LoopName[]) {
      const busy = file(name, ROUNDS);
      const costs: { qemu: number; ours: number; floor: number }[] = [];
      for (let round = 0; round < rounds; round++) {
        const theirs = (await qemu(busy)) - (await qemu(empty));
        const mine = (await ours(busy)) - (await ours(empty));
        costs.push({ qemu: theirs / ROUNDS, ours: mine / ROUNDS, floor: (floor?.(busy) ?? 0) / ROUNDS });
      }
      const ratios = costs.map(cost => cost.ours / cost.qemu).sort((a, b) => a - b);
      const us = (who: 'qemu' | 'ours' | 'floor'): string =>
        (Math.min(...costs.map(cost => cost[who])) / 1000).toFixed(2);
      console.log(
        `${name.padEnd(10)}  QEMU ${us('qemu')}  ours ${us('ours')}  bare C loop ${us('floor')}` +
          `  ratio ${(ratios[ratios.length >> 1] ?? 0).toFixed(3)}, bar ${BARS[name]}` +
          `  (${ratios.map(ratio => ratio.toFixed(3)).join(' ')})`,
      );
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const [mode, argument] = process.argv.slice(2);
if (mode === '--guest' && argument !== undefined) runGuest(argument);
else if (!works(kvm)) console.log("skipped: this host has no KVM, and exits are KVM's");
else if (Number(mode ?? 5) > 0) await main(Number(mode ?? 5));
