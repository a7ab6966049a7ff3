import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from '../../firmware/guest-cache/process.ts';
import { fixChecksum } from '../option-rom.ts';

/** The boot ROMs, by QEMU's names for their files, and what selects each in the source. */
export const VARIANTS = { 'linuxboot_dma.bin': 'LINUX', 'multiboot_dma.bin': 'MULTIBOOT', 'pvh.bin': 'PVH' } as const;

/** Compiled, this file is dist/core/loader/rom/assemble.js. */
const ROOT = fileURLToPath(new URL('../../../../', import.meta.url));
const SOURCE = join(ROOT, 'core', 'loader', 'rom', 'boot-rom.S');
const TARGET = join(ROOT, 'core', 'loader', 'boot-roms.ts');
const PNP = [0x24, 0x50, 0x6e, 0x50] as const;
const PNP_SIZE = 32;

/**
 * Assembles one boot ROM, checksums included.
 *
 * @throws SouthbridgeError ERR_PROGRAM_MISSING without a C compiler, ERR_PROGRAM_FAILED with its last words
 */
export async function assembleRom(name: keyof typeof VARIANTS): Promise<Uint8Array> {
  const scratch = await mkdtemp(join(tmpdir(), 'southbridge-rom-'));
  try {
    const output = join(scratch, name);
    const flat = ['-Wl,--oformat,binary', '-Wl,-Ttext,0', '-Wl,-e,_start', '-Wl,--build-id=none'];
    await run('gcc', ['-m32', '-nostdlib', '-static', ...flat, `-D${VARIANTS[name]}`, SOURCE, '-o', output]);
    const rom = new Uint8Array(await readFile(output));
    const pnp = rom.findIndex((_byte, index) => PNP.every((byte, offset) => rom[index + offset] === byte));
    const header = rom.subarray(pnp, pnp + PNP_SIZE);
    header[9] = -header.reduce((sum, byte) => sum + byte, 0) & 0xff;
    fixChecksum(rom);
    return rom;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  let text = '// Made by core/loader/rom/assemble.ts from boot-rom.S: do not edit.\n\n';
  text +=
    "/** The boot ROMs that firmware runs for `-kernel`, by QEMU's names for their files; base64. */\nexport const BOOT_ROMS = {\n";
  for (const name of Object.keys(VARIANTS) as (keyof typeof VARIANTS)[]) {
    const base64 = Buffer.from(await assembleRom(name)).toString('base64');
    const lines = base64.match(/.{1,110}/g) ?? [];
    text += `  '${name}':\n    ${lines.map(line => `'${line}'`).join(' +\n    ')},\n`;
  }
  await writeFile(TARGET, `${text}} as const;\n`);
}
