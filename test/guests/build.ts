import { mkdir, readdir, rename, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SouthbridgeError } from '../../core/errors.ts';
import { run } from '../../core/firmware/guest-cache/process.ts';

/** What the compiler is told in common: bare metal, one static image, no floating point, no libraries. */
const COMMON = [
  '-O2',
  '-g',
  '-Wall',
  '-Wextra',
  '-Werror',
  '-std=gnu11',
  '-ffreestanding',
  '-fno-builtin',
  '-fno-pic',
  '-fno-pie',
  '-fno-stack-protector',
  '-fno-asynchronous-unwind-tables',
  '-fcf-protection=none',
  '-mgeneral-regs-only',
  '-nostdlib',
  '-static',
  '-Wl,--build-id=none',
  '-Wl,-z,noexecstack',
  '-Wl,-n',
] as const;
const KERNEL = ['start.S', 'vectors.S', 'guest.c'] as const;
const DISKS = ['disks.c', 'virtio-disk.c', 'ahci-disk.c'] as const;
const BITS_32 = ['-m32', '-march=i686', '-Wl,-T,guest.lds'] as const;
const BITS_64 = ['-m64', '-mno-red-zone', '-Wl,-T,guest.lds'] as const;

interface GuestRecipe {
  readonly summary: string;
  readonly sources: readonly string[];
  readonly flags: readonly string[];
}

/** Our own bare-metal guests: ELF executables with a PVH entry point, and a boot sector. And a program for a guest's Linux. */
export const GUESTS = {
  demo32: { summary: 'the demo in 32-bit mode', sources: [...KERNEL, 'demo.c'], flags: BITS_32 },
  demo64: { summary: 'the demo in 64-bit mode', sources: [...KERNEL, 'demo.c'], flags: BITS_64 },
  smp64: { summary: 'wakes and interrupts every other CPU', sources: [...KERNEL, 'ap.S', 'smp.c'], flags: BITS_64 },
  smp32: { summary: 'the same in 32-bit mode', sources: [...KERNEL, 'ap.S', 'smp.c'], flags: BITS_32 },
  bench32: { summary: 'times exits in 32-bit ring 0', sources: [...KERNEL, 'bench.c'], flags: BITS_32 },
  bench64: { summary: 'times exits in 64-bit ring 0', sources: [...KERNEL, 'bench.c'], flags: BITS_64 },
  'bench64-ring3': {
    summary: 'times exits in 64-bit ring 3',
    sources: [...KERNEL, 'bench.c'],
    flags: [...BITS_64, '-DRING3'],
  },
  net32: {
    summary: 'sends or receives frames by polling, in 32-bit mode',
    sources: [...KERNEL, 'net.c'],
    flags: BITS_32,
  },
  net64: {
    summary: 'sends or receives frames by polling, in 64-bit mode',
    sources: [...KERNEL, 'net.c'],
    flags: BITS_64,
  },
  disks32: { summary: 'a load for a disk in 32-bit mode', sources: [...KERNEL, ...DISKS], flags: BITS_32 },
  disks64: { summary: 'a load for a disk in 64-bit mode', sources: [...KERNEL, ...DISKS], flags: BITS_64 },
  volumes: {
    summary: 'a program for Linux that turns OSS volumes up',
    sources: ['volumes.c'],
    flags: ['-m32', '-march=i686'],
  },
  cipher: {
    summary: 'a program for Linux that has its kernel encipher',
    sources: ['cipher.c'],
    flags: ['-m32', '-march=i686'],
  },
  real16: {
    summary: 'a boot sector that takes interrupts in real mode',
    sources: ['real16.S'],
    flags: ['-m32', '-Wl,-Ttext,0x7c00', '-Wl,-e,start', '-Wl,--oformat,binary'],
  },
} as const satisfies Readonly<Record<string, GuestRecipe>>;

export type GuestName = keyof typeof GUESTS;

/** Compiled, this file is dist/test/guests/build.js. */
const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const SOURCES = join(ROOT, 'test', 'guests', 'src');
const OUTPUT = join(ROOT, 'dist', 'guests');

/** Where the guest is once it has been built. */
export function guestPath(name: GuestName): string {
  return join(OUTPUT, name);
}

/**
 * Builds the guest, unless it is newer than all sources, and returns where it is.
 *
 * @throws SouthbridgeError ERR_PROGRAM_MISSING without a C compiler, ERR_PROGRAM_FAILED with the compiler's last words
 */
export async function buildGuest(name: GuestName): Promise<string> {
  const { sources, flags }: GuestRecipe = GUESTS[name];
  const output = guestPath(name);
  const built = await stat(output).catch(() => undefined);
  if (built !== undefined && built.mtimeMs >= (await newestSource())) return output;
  await mkdir(OUTPUT, { recursive: true });
  const scratch = `${output}.${process.pid}`;
  await run(process.env['CC'] ?? 'gcc', [...COMMON, ...flags, ...sources, '-o', scratch], {
    cwd: SOURCES,
    hint: 'install gcc and binutils (Debian: build-essential), which the native addon needs too',
  });
  await rename(scratch, output);
  return output;
}

async function newestSource(): Promise<number> {
  const times = (await readdir(SOURCES)).map(async file => (await stat(join(SOURCES, file))).mtimeMs);
  return Math.max(...(await Promise.all(times)));
}

function isGuestName(name: string): name is GuestName {
  return Object.hasOwn(GUESTS, name);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const wanted = process.argv.slice(2);
  for (const name of wanted.length === 0 ? Object.keys(GUESTS) : wanted) {
    if (!isGuestName(name)) throw new SouthbridgeError('ERR_GUEST_NAME', `there is no guest called '${name}'`);
    await buildGuest(name);
  }
}
