import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { inflateSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { RunningProgram } from './program.ts';

const MARK = 0x1234_5678;
const MARK_AT = 0x20_0000;

async function machine(t: Test): Promise<{ program: RunningProgram; folder: string }> {
  const program = await RunningProgram.start('-machine', 'pc', '-m', '8', '-nodefaults');
  t.teardown(() => program.stop());
  await program.execute('qmp_capabilities');
  await program.command(`writel 0x${MARK_AT.toString(16)} 0x${MARK.toString(16)}`);
  return { program, folder: mkdtempSync(join(tmpdir(), 'southbridge-dump-')) };
}

/** Where an ELF file has a physical address. */
function fileOffset(elf: Buffer, physical: number): number {
  const count = elf.readUInt16LE(0x38);
  for (let index = 0; index < count; index++) {
    const at = Number(elf.readBigUInt64LE(0x20)) + 56 * index;
    const start = Number(elf.readBigUInt64LE(at + 0x18));
    const size = Number(elf.readBigUInt64LE(at + 0x20));
    if (elf.readUInt32LE(at) === 1 && physical >= start && physical < start + size)
      return Number(elf.readBigUInt64LE(at + 8)) + physical - start;
  }
  return -1;
}

t.test('ELF: memory, notes and what readelf says', async t => {
  const { program, folder } = await machine(t);
  const path = join(folder, 'core');
  t.strictSame(await program.execute('query-dump'), { return: { status: 'none', completed: 0, total: 0 } });
  t.strictSame(await program.execute('dump-guest-memory', { paging: false, protocol: `file:${path}` }), { return: {} });
  const total = 8 * 2 ** 20 + 2 ** 18;
  const result = { status: 'completed', completed: total, total };
  t.strictSame(await program.execute('query-dump'), { return: result });
  t.match(program.events, [{ event: 'STOP' }, { event: 'DUMP_COMPLETED', data: { result } }, { event: 'RESUME' }]);
  const elf = readFileSync(path);
  t.equal(elf.readUInt32LE(fileOffset(elf, MARK_AT)), MARK);
  t.ok(elf.subarray(-11).equals(Buffer.from('\0.shstrtab\0')));
  const readelf = await promisify(execFile)('readelf', ['-hlnW', path]).catch(() => undefined);
  if (readelf === undefined) return t.comment('no readelf here');
  t.equal(readelf.stderr, '');
  t.match(readelf.stdout, /Type: +CORE/);
  t.match(readelf.stdout, /LOAD +0x\w+ 0x0000000000100000 0x0000000000100000 0x700000 0x700000/);
  t.match(readelf.stdout, /CORE +0x00000090\tNT_PRSTATUS/);
  t.match(readelf.stdout, /QEMU +0x000001b8/);
});

t.test('ELF: part of memory, in the background', async t => {
  const { program, folder } = await machine(t);
  const path = join(folder, 'part');
  const part = { paging: false, protocol: `file:${path}`, begin: MARK_AT, length: 8192 };
  t.strictSame(await program.execute('dump-guest-memory', { ...part, detach: true }), { return: {} });
  for (;;) {
    const { return: dump } = await program.execute('query-dump');
    if (Reflect.get(Object(dump), 'status') !== 'active') break;
  }
  t.match(await program.execute('query-dump'), { return: { status: 'completed', total: 8192, completed: 8192 } });
  const elf = readFileSync(path);
  t.equal(elf.readUInt32LE(fileOffset(elf, MARK_AT)), MARK);
  t.equal(fileOffset(elf, MARK_AT - 4096), -1);
});

t.test('kdump: the page is where its descriptor says', async t => {
  const { program, folder } = await machine(t);
  const path = join(folder, 'kdump');
  await program.execute('dump-guest-memory', { paging: false, protocol: `file:${path}`, format: 'kdump-zlib' });
  const file = unflattened(readFileSync(path));
  t.equal(file.toString('latin1', 0, 8), 'KDUMP   ');
  const [blockSize, subHeaderBlocks, bitmapBlocks] = [428, 432, 436].map(at => file.readUInt32LE(at));
  t.equal(blockSize, 4096);
  const bitmap = 4096 * (1 + (subHeaderBlocks ?? 0));
  const descriptors = bitmap + 4096 * (bitmapBlocks ?? 0);
  const isThere = (page: number): boolean => ((file[bitmap + (page >> 3)] ?? 0) & (1 << (page & 7))) !== 0;
  const wanted = MARK_AT / 4096;
  t.equal(isThere(wanted), true);
  t.equal(isThere(0x800), false, 'nothing is behind RAM');
  let index = 0;
  for (let page = 0; page < wanted; page++) if (isThere(page)) index++;
  const at = descriptors + 24 * index;
  const offset = Number(file.readBigUInt64LE(at));
  t.equal(file.readUInt32LE(at + 12), 1, 'compressed');
  const page = inflateSync(file.subarray(offset, offset + file.readUInt32LE(at + 8)));
  t.equal(page.readUInt32LE(0), MARK);
});

/** Puts a flattened dump's pieces where they belong. */
function unflattened(flat: Buffer): Buffer {
  const pieces: { at: number; bytes: Buffer }[] = [];
  for (let from = 4096; flat.readBigInt64BE(from) !== -1n; ) {
    const [at, length] = [Number(flat.readBigInt64BE(from)), Number(flat.readBigInt64BE(from + 8))];
    pieces.push({ at, bytes: flat.subarray(from + 16, from + 16 + length) });
    from += 16 + length;
  }
  const file = Buffer.alloc(Math.max(...pieces.map(({ at, bytes }) => at + bytes.length)));
  for (const { at, bytes } of pieces) bytes.copy(file, at);
  return file;
}

t.test("what cannot be is refused in QEMU's words", async t => {
  const { program } = await machine(t);
  const refusal = async (args: object): Promise<unknown> => {
    const reply = await program.execute('dump-guest-memory', { paging: false, protocol: 'file:/dev/null', ...args });
    return Reflect.get(Object(reply['error']), 'desc');
  };
  t.equal(await refusal({ protocol: 'tcp:x' }), "Invalid parameter 'protocol'");
  t.equal(await refusal({ protocol: 'fd:x' }), "File descriptor named 'x' has not been found");
  t.equal(await refusal({ begin: 0 }), "Parameter 'length' is missing");
  t.equal(await refusal({ begin: 0x9000_0000, length: 4096 }), "Invalid parameter 'begin'");
  t.equal(await refusal({ format: 'kdump-lzo' }), 'kdump-lzo is not available now');
  t.equal(
    await refusal({ format: 'kdump-zlib', paging: true }),
    "kdump-compressed format doesn't support paging or filter",
  );
});
