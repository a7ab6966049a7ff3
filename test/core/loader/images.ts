/** The smallest images of each kind, for tests that need to know every byte. */

export interface ElfOptions {
  readonly bits?: 32 | 64;
  readonly address?: number;
  readonly memorySize?: number;
  readonly code?: Uint8Array;
  /** Puts a XEN_ELFNOTE_PHYS32_ENTRY note into the file. */
  readonly pvhEntry?: number;
}

/** An ELF executable with one PT_LOAD segment, linked at 0xc0000000 above its physical address. */
export function elf(options: ElfOptions = {}): Uint8Array {
  const { bits = 32, address = 0x10_0000, code = Uint8Array.of(0xf4) } = options;
  const wide = bits === 64;
  const ehsize = wide ? 64 : 52;
  const phentsize = wide ? 56 : 32;
  const notes = options.pvhEntry === undefined ? new Uint8Array(0) : xenNote(18, options.pvhEntry);
  const phnum = notes.length > 0 ? 2 : 1;
  const noteOffset = ehsize + phnum * phentsize;
  const codeOffset = noteOffset + notes.length;
  const bytes = new Uint8Array(codeOffset + code.length);
  const view = new DataView(bytes.buffer);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, wide ? 2 : 1, 1, 1]);
  view.setUint16(16, 2, true);
  view.setUint16(18, wide ? 62 : 3, true);
  view.setUint32(20, 1, true);
  const virtual = address + 0xc000_0000;
  if (wide) {
    view.setBigUint64(24, BigInt(virtual), true);
    view.setBigUint64(32, BigInt(ehsize), true);
    view.setUint16(54, phentsize, true);
    view.setUint16(56, phnum, true);
  } else {
    view.setUint32(24, virtual, true);
    view.setUint32(28, ehsize, true);
    view.setUint16(42, phentsize, true);
    view.setUint16(44, phnum, true);
  }
  const program = (index: number, type: number, offset: number, filesz: number, memsz: number): void => {
    const at = ehsize + index * phentsize;
    view.setUint32(at, type, true);
    if (wide) {
      for (const [field, value] of [offset, virtual, address, filesz, memsz, 4].entries()) {
        view.setBigUint64(at + 8 + field * 8, BigInt(value), true);
      }
    } else {
      for (const [field, value] of [offset, virtual, address, filesz, memsz].entries())
        view.setUint32(at + 4 + field * 4, value, true);
      view.setUint32(at + 28, 4, true);
    }
  };
  program(0, 1, codeOffset, code.length, options.memorySize ?? code.length);
  if (notes.length > 0) program(1, 4, noteOffset, notes.length, notes.length);
  bytes.set(notes, noteOffset);
  bytes.set(code, codeOffset);
  return bytes;
}

function xenNote(type: number, value: number): Uint8Array {
  const bytes = new Uint8Array(20);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 4, true);
  view.setUint32(4, 4, true);
  view.setUint32(8, type, true);
  bytes.set(new TextEncoder().encode('Xen\0'), 12);
  view.setUint32(16, value, true);
  return bytes;
}

/** A flat multiboot kernel with the address fields of its header (flag 16), its header 32 bytes into the file. */
export function multiboot(loadAddress = 0x10_0000, code = Uint8Array.of(0xf4), size = 0x2000): Uint8Array {
  const offset = 32;
  const codeOffset = offset + 32;
  const bytes = new Uint8Array(codeOffset + code.length);
  const view = new DataView(bytes.buffer);
  const flags = 0x1_0000;
  const end = loadAddress + bytes.length;
  const fields = [
    0x1bad_b002,
    flags,
    -(0x1bad_b002 + flags) >>> 0,
    loadAddress + offset,
    loadAddress,
    end,
    loadAddress + size,
    loadAddress + codeOffset,
  ];
  for (const [index, value] of fields.entries()) view.setUint32(offset + index * 4, value, true);
  bytes.set(code, codeOffset);
  return bytes;
}

/** A bzImage with one setup sector. */
export function bzImage(version = 0x20f, kernel = Uint8Array.of(0xf4)): Uint8Array {
  const bytes = new Uint8Array(1024 + kernel.length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0x1f1, 1);
  view.setUint16(0x1fe, 0xaa55, true);
  view.setUint16(0x200, 0x6aeb, true);
  view.setUint32(0x202, 0x5372_6448, true);
  view.setUint16(0x206, version, true);
  view.setUint8(0x211, 1);
  view.setUint32(0x22c, 0x7fff_ffff, true);
  view.setUint16(0x236, 1, true);
  view.setUint32(0x238, 255, true);
  view.setBigUint64(0x258, 0x100_0000n, true);
  view.setUint32(0x260, 0x10_0000, true);
  bytes.set(kernel, 1024);
  return bytes;
}
