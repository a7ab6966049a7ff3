import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import type { CpuState } from '../../../core/accel/cpu-state.ts';
import { SouthbridgeError } from '../../../core/errors.ts';
import { parseElf } from '../../../core/loader/elf.ts';
import { type BootEnvironment, type BootImage, FW_CFG } from '../../../core/loader/image.ts';
import { firmwareKernel, loadElf, loadKernel } from '../../../core/loader/kernel.ts';
import { loadLinux, parseLinux, ramRange } from '../../../core/loader/linux.ts';
import { parseOptionRom, retargetOptionRom } from '../../../core/loader/option-rom.ts';
import { guestOrSkip } from '../../guests/guest-or-skip.ts';
import { bzImage, elf, multiboot } from './images.ts';
import { noQemu, qemuFwCfg } from './qemu-fw-cfg.ts';

const MIB = 2 ** 20;
const memory = [ramRange(0, 0x9_fc00), ramRange(MIB, 127 * MIB)];
const environment: BootEnvironment = { memory, commandLine: 'console=ttyS0', kernelName: 'kernel' };

function powerOnState(): CpuState {
  const none = { selector: 0, base: 0n, limit: 0, attributes: 0, unusable: true };
  return {
    gpr: new BigUint64Array(16).fill(0xdeadn),
    rip: 0xfff0n,
    rflags: 2n,
    cs: none,
    ds: none,
    es: none,
    fs: none,
    gs: none,
    ss: none,
    tr: none,
    ldtr: none,
    gdtr: { base: 0n, limit: 0 },
    idtr: { base: 0n, limit: 0 },
    cr0: 0n,
    cr2: 0n,
    cr3: 0n,
    cr4: 0n,
    cr8: 0n,
    efer: 0n,
    apicBase: 0n,
    fxsave: new Uint8Array(512),
    debug: new BigUint64Array(6),
    halted: true,
  };
}

function entered(image: BootImage): CpuState {
  const cpu = powerOnState();
  image.enter(cpu);
  return cpu;
}

/** The image as it lies in memory. */
function placed(image: BootImage, size = 128 * MIB): DataView {
  const bytes = new Uint8Array(size);
  for (const { address, bytes: contents } of image.segments) bytes.set(contents, address);
  return new DataView(bytes.buffer);
}

t.test('an i386 ELF is loaded at its physical address and entered in protected mode', async t => {
  const image = loadElf(elf({ address: 0x20_0000, memorySize: 0x3000, code: Uint8Array.of(1, 2, 3) }), environment);
  const code = image.segments.find(({ address }) => address === 0x20_0000);
  t.equal(code?.size, 0x3000, 'with room for its bss');
  t.same(code?.bytes, Uint8Array.of(1, 2, 3));
  const cpu = entered(image);
  t.equal(cpu.rip, 0x20_0000n, 'the virtual entry point, made physical');
  t.equal(cpu.cr0 & 0x8000_0001n, 1n, 'protected mode without paging');
  t.equal(cpu.cs.attributes, 0xc09b);
  t.equal(cpu.gpr[0], 0n, 'no register keeps its old value');
  t.equal(cpu.halted, false);
});

t.test('an x86-64 ELF is entered in 64-bit mode over page tables that map low memory to itself', async t => {
  const image = loadElf(elf({ bits: 64 }), environment);
  const cpu = entered(image);
  t.equal(cpu.efer, 0x500n);
  t.equal(cpu.cs.attributes, 0xa09b);
  const view = placed(image);
  const translate = (linear: number): number => {
    const pml4e = view.getUint32(Number(cpu.cr3), true);
    const pdpte = view.getUint32((pml4e & ~0xfff) + Math.floor(linear / 2 ** 30) * 8, true);
    const pde = view.getUint32((pdpte & ~0xfff) + (Math.floor(linear / 2 ** 21) % 512) * 8, true);
    return ((pde & 0xffe0_0000) >>> 0) + (linear % 2 ** 21);
  };
  for (const linear of [0, 0x10_0000, 0x7fff_ffff, 0xfee0_0000]) t.equal(translate(linear), linear);
});

t.test('a PVH kernel gets a start_info with command line, initrd and memory map', async t => {
  const initrd = new Uint8Array(5000).fill(7);
  const image = loadKernel(elf({ pvhEntry: 0x10_0000 }), { ...environment, initrd, rsdp: 0xf_0000 });
  t.equal(image.format, 'pvh');
  const view = placed(image);
  const info = Number(entered(image).gpr[3]);
  const at = (offset: number): number => Number(view.getBigUint64(info + offset, true));
  t.equal(view.getUint32(info, true), 0x336e_c578);
  t.equal(view.getUint32(info + 12, true), 1, 'one module');
  t.equal(at(32), 0xf_0000, 'the RSDP');
  t.equal(Number(view.getBigUint64(at(16) + 8, true)), 5000, 'the initrd, with its size');
  t.equal(view.getUint8(Number(view.getBigUint64(at(16), true)) + 4999), 7, 'and contents');
  t.equal(view.getUint32(info + 48, true), memory.length);
  t.equal(Number(view.getBigUint64(at(40) + 24, true)), MIB, 'the second range of the map');
  t.equal(view.getUint32(at(24), true), 0x736e_6f63, 'the command line begins with "cons"');
});

t.test('a bzImage gets a zero page, and the initrd stays clear of where it unpacks itself', async t => {
  const initrd = new Uint8Array(MIB);
  const image = loadKernel(bzImage(), { ...environment, initrd });
  const cpu = entered(image);
  t.equal(cpu.rip, BigInt(MIB));
  t.equal(cpu.cs.selector, 0x10);
  t.equal(cpu.ds.selector, 0x18);
  const view = placed(image);
  const zeroPage = Number(cpu.gpr[6]);
  t.equal(view.getUint32(zeroPage + 0x202, true), 0x5372_6448);
  t.equal(view.getUint8(zeroPage + 0x210), 0xff, 'loader type: not assigned');
  t.equal(view.getUint8(zeroPage + 0x1e8), 2, 'memory map entries');
  t.equal(view.getUint32(zeroPage + 0x21c, true), MIB);
  t.equal(view.getUint32(zeroPage + 0x218, true), 127 * MIB - 0x1000);
  const tight = { memory: [ramRange(0, 0x9_fc00), ramRange(MIB, 16 * MIB)], initrd };
  t.throws(() => loadKernel(bzImage(), tight), { code: 'ERR_IMAGE_NO_RAM', message: /initrd is too large/ });
  t.equal(entered(loadLinux(bzImage(), environment, 64)).rip, BigInt(MIB + 0x200));
});

t.test('a multiboot kernel gets its information structure, memory map and modules', async t => {
  const modules = [
    { bytes: Uint8Array.of(1, 2, 3), commandLine: 'first a' },
    { bytes: new Uint8Array(5000).fill(9), commandLine: 'second' },
  ];
  const image = loadKernel(multiboot(), { ...environment, modules });
  const cpu = entered(image);
  t.equal(cpu.gpr[0], 0x2bad_b002n);
  const view = placed(image);
  const info = Number(cpu.gpr[3]);
  const word = (offset: number): number => view.getUint32(info + offset, true);
  const text = (address: number): string => {
    let string = '';
    for (let byte = view.getUint8(address); byte !== 0; byte = view.getUint8(++address))
      string += String.fromCharCode(byte);
    return string;
  };
  t.equal(word(4), 639, 'KiB below 1 MiB');
  t.equal(word(8), 127 * 1024, 'KiB from 1 MiB');
  t.equal(text(word(16)), 'kernel console=ttyS0');
  t.equal(word(20), 2);
  const second = word(24) + 16;
  t.equal(view.getUint32(second + 4, true) - view.getUint32(second, true), 5000);
  t.equal(view.getUint8(view.getUint32(second, true) + 4999), 9);
  t.equal(text(view.getUint32(second + 8, true)), 'second');
  t.equal(word(44), 2 * 24, 'size of the memory map');
  t.equal(view.getUint32(word(48), true), 20, 'an entry does not count its own size');
});

t.test('images are refused by name', async t => {
  t.throws(() => loadKernel(new Uint8Array(0), environment), { code: 'ERR_IMAGE_FORMAT' });
  t.throws(() => loadKernel(elf().subarray(0, 60), environment), { code: 'ERR_IMAGE_TRUNCATED' });
  t.throws(
    () => loadKernel(elf({ address: 0xa_0000 }), environment),
    { code: 'ERR_IMAGE_NO_RAM' },
    'no RAM at the VGA window',
  );
  t.throws(() => loadKernel(elf({ memorySize: 0x7fff_ffff }), environment), { code: 'ERR_IMAGE_NO_RAM' });
  t.throws(
    () => loadKernel(elf({ bits: 64, address: 0x500 }), environment),
    { code: 'ERR_IMAGE_OVERLAP' },
    'where the GDT goes',
  );
  t.throws(
    () => loadKernel(bzImage(0x200), environment),
    { code: 'ERR_IMAGE_FORMAT' },
    'too old to go without firmware',
  );
  t.throws(() => loadKernel(bzImage(), { memory, commandLine: 'x'.repeat(256) }), { code: 'ERR_IMAGE_COMMAND_LINE' });
  t.throws(() => firmwareKernel(bzImage(), { memory, commandLine: 'vga=0y' }), {
    message: "invalid 'vga=' kernel parameter.",
  });
  t.throws(() => firmwareKernel(elf(), environment), {
    message: 'Error loading uncompressed kernel without PVH ELF Note',
  });
});

t.test('no mutation of an image does more than throw a named error', async t => {
  const images = [elf(), elf({ bits: 64 }), elf({ pvhEntry: 0x10_0000 }), multiboot(), bzImage(), bzImage(0x203)];
  const mutation = fc.record({
    image: fc.nat(images.length - 1),
    changes: fc.array(fc.tuple(fc.nat(0x27f), fc.oneof(fc.nat(255), fc.constantFrom(0, 0x7f, 0x80, 0xff))), {
      maxLength: 12,
    }),
    length: fc.nat(2048),
  });
  const property = fc.property(mutation, ({ image, changes, length }) => {
    const bytes = (images[image] ?? elf()).slice(0, length);
    for (const [offset, value] of changes) if (offset < bytes.length) bytes[offset] = value;
    for (const load of [loadKernel, firmwareKernel, parseOptionRom]) {
      try {
        load(bytes, environment);
      } catch (error) {
        if (!(error instanceof SouthbridgeError && error.code.startsWith('ERR_IMAGE_'))) throw error;
      }
    }
  });
  t.doesNotThrow(() => fc.assert(property, { numRuns: 3000 }));
});

t.test("Debian's kernels", async t => {
  const files = await guestOrSkip(t, 'linux-i386');
  if (files === undefined) return;
  const vmlinuz = await readFile(files.vmlinuz);
  const { version, header } = parseLinux(vmlinuz);
  t.equal(version, 0x20f);
  t.equal(header.pref_address, 0x100_0000);
  t.equal(header.cmdline_size, 2047);
  const direct = loadKernel(vmlinuz, environment);
  t.equal(direct.format, 'linux');
  const vmlinux = await readFile(files.vmlinux);
  const { bits, physicalEntry } = parseElf(vmlinux);
  t.equal(bits, 32);
  t.ok(
    physicalEntry >= 0x100_0000 && physicalEntry < 0x200_0000,
    'the entry point is where the kernel lies physically',
  );
  t.equal(entered(loadLinux(vmlinux, environment)).rip, BigInt(physicalEntry));
});

t.test('fw_cfg items are those of QEMU', { skip: noQemu }, async t => {
  const directory = mkdtempSync(join(tmpdir(), 'southbridge-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const initrd = Uint8Array.from({ length: 4096 * 3 }, (_, index) => index);
  writeFileSync(join(directory, 'initrd'), initrd);
  const linux = await guestOrSkip(t, 'linux-i386');
  const kernels: { [name: string]: Uint8Array; vmlinuz?: Uint8Array } = {
    bzImage: bzImage(),
    old: bzImage(0x201),
    multiboot: multiboot(),
    pvh: elf({ pvhEntry: 0x10_0000, code: new Uint8Array(8192).fill(0xf4) }),
  };
  if (linux !== undefined) kernels.vmlinuz = await readFile(linux.vmlinuz);
  for (const [name, kernel] of Object.entries(kernels)) {
    const kernelName = join(directory, name);
    writeFileSync(kernelName, kernel);
    const commandLine = 'console=ttyS0 vga=0x305';
    const initrdName = join(directory, 'initrd');
    const ours = firmwareKernel(kernel, {
      memory,
      commandLine,
      kernelName,
      initrd,
      modules: [{ bytes: initrd, commandLine: initrdName }],
    });
    const compared = ours.items.map(item => ({ ...item, bytes: item.bytes.subarray(0, 0x8000) }));
    const theirs = await qemuFwCfg(
      ['-m', '128', '-kernel', kernelName, '-initrd', initrdName, '-append', commandLine],
      compared.map(({ selector, bytes }) => ({ selector, length: bytes.length })),
    );
    // QEMU leaves the last word of a module's entry as it found it; the specification wants 0 (3.3, mods).
    if (name === 'multiboot') theirs.get(FW_CFG.KERNEL_DATA)?.fill(0, 0x2000 + 12, 0x2000 + 16);
    for (const { selector, bytes } of compared) {
      // QEMU serves the header of an ELF kernel out of a stack frame that is gone.
      if (name === 'pvh' && selector === FW_CFG.SETUP_DATA) continue;
      const other = theirs.get(selector) ?? new Uint8Array(0);
      const difference = bytes.findIndex((byte, index) => byte !== other[index]);
      t.equal(difference, -1, `${name}: item ${selector.toString(16)}, ${bytes.length} bytes`);
    }
  }
});

t.test("iPXE's option ROMs", async t => {
  const files = await guestOrSkip(t, 'ipxe');
  if (files === undefined) return;
  const rom = await readFile(files.e1000);
  const [image, ...others] = parseOptionRom(rom);
  t.same(image?.pci, { vendor: 0x8086, device: 0x100e, codeType: 'pc-at' });
  t.equal(others.length, 0);
  const sum = (bytes: Uint8Array): number => bytes.reduce((total, byte) => (total + byte) & 0xff, 0);
  const [changed] = parseOptionRom(retargetOptionRom(rom, 0x1234, 0x5678));
  t.match(changed?.pci, { vendor: 0x1234, device: 0x5678 });
  t.equal(sum(changed?.bytes ?? new Uint8Array(1)), 0, 'its checksum holds');
});
