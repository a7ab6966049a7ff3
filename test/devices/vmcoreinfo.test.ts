import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { RunningProgram, runToEnd } from '../core/control/program.ts';
import { FwCfgGuest } from './fw-cfg-guest.ts';

const FILE = 'etc/vmcoreinfo';
const NOTE_AT = 0x10_0000;
const TEXT = 'OSRELEASE=6.1.0\nNUMBER(phys_base)=1000000\n';

function note(text: string): Buffer {
  const header = Buffer.alloc(12);
  header.writeUInt32LE(11, 0);
  header.writeUInt32LE(text.length, 4);
  const contents = Buffer.alloc(Math.ceil(text.length / 4) * 4);
  contents.write(text, 'latin1');
  return Buffer.concat([header, Buffer.from('VMCOREINFO\0\0'), contents]);
}

function announcement(size: number, format = 1): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt16LE(1, 0);
  bytes.writeUInt16LE(format, 2);
  bytes.writeUInt32LE(size, 4);
  bytes.writeBigUInt64LE(BigInt(NOTE_AT), 8);
  return bytes;
}

async function machine(t: Test): Promise<{ program: RunningProgram; dump: (format?: string) => Promise<Buffer> }> {
  const program = await RunningProgram.start('-machine', 'pc', '-m', '8', '-nodefaults', '-device', 'vmcoreinfo');
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-note-'));
  t.teardown(async () => {
    await program.stop();
    rmSync(folder, { recursive: true });
  });
  await program.execute('qmp_capabilities');
  return {
    program,
    dump: async format => {
      const path = join(folder, `core${Math.random()}`);
      const reply = await program.execute('dump-guest-memory', {
        paging: false,
        protocol: `file:${path}`,
        ...(format && { format }),
      });
      t.same(reply, { return: {} });
      return readFileSync(path);
    },
  };
}

t.test('the file says what the host knows; a dump has the note of a guest that told of it', async t => {
  const { program, dump } = await machine(t);
  const guest = new FwCfgGuest(program);
  t.same(await guest.read((await guest.find(FILE)) ?? 0, 16), Buffer.from('01000000000000000000000000000000', 'hex'));
  const bytes = note(TEXT);
  await program.command(`write 0x${NOTE_AT.toString(16)} 0x${bytes.length.toString(16)} 0x${bytes.toString('hex')}`);
  t.notOk((await dump()).subarray(0, 0x1000).includes('VMCOREINFO'), 'nobody has told');
  t.ok(await guest.write(FILE, announcement(bytes.length)));
  const elf = await dump();
  const notes = elf.readUInt32LE(elf.readUInt32LE(0x20) + 8);
  const size = elf.readUInt32LE(elf.readUInt32LE(0x20) + 32);
  t.same(elf.subarray(notes + size - bytes.length, notes + size), bytes, 'the last of the notes');

  const kdump = await dump('kdump-zlib');
  // A flattened file: a header of 4 KiB, then pieces, each behind its place and size.
  const pieces = new Map<number, Buffer>();
  for (let at = 4096; kdump.readBigInt64BE(at) >= 0n; ) {
    const length = Number(kdump.readBigInt64BE(at + 8));
    pieces.set(Number(kdump.readBigInt64BE(at)), kdump.subarray(at + 16, at + 16 + length));
    at += 16 + length;
  }
  const sub = pieces.get(4096);
  const [noteAt, textAt] = [Number(sub?.readBigUInt64LE(48)), Number(sub?.readBigUInt64LE(32))];
  t.equal(sub?.readBigUInt64LE(40), BigInt(TEXT.length));
  t.equal(pieces.get(noteAt)?.toString('latin1', textAt - noteAt, textAt - noteAt + TEXT.length), TEXT);
  t.equal(sub?.readBigUInt64LE(0), 0n, 'only a 64-bit kernel says where it was loaded');

  await program.execute('system_reset');
  t.notOk((await dump()).subarray(0, 0x1000).includes('VMCOREINFO'), 'a reset forgets');
});

t.test('a note that is none is left out, with a warning', async t => {
  const { program, dump } = await machine(t);
  const guest = new FwCfgGuest(program);
  let complaints = '';
  program.process.stderr?.on('data', (chunk: Buffer) => {
    complaints += chunk.toString();
  });
  const cases: readonly (readonly [Buffer, RegExp])[] = [
    [announcement(8), /warning: guest note size is invalid: 8/],
    [announcement(0xffff_ffff), /warning: guest note size is invalid: 4294967295/],
    [announcement(64, 7), /warning: guest note format is unsupported: 7/],
    [announcement(64, 0), /warning: guest note is not present/],
    [announcement(64).subarray(0, 8), /warning: guest note is not present/],
    [announcement(64), /warning: Invalid guest note header/],
  ];
  await program.command(`writel 0x${NOTE_AT.toString(16)} 0x7fffffff`);
  for (const [bytes, warning] of cases) {
    complaints = '';
    t.ok(await guest.write(FILE, bytes));
    await dump();
    t.match(complaints, warning);
  }
});

t.test('one to a machine, and only where guests can write to fw_cfg', async t => {
  const twice = await runToEnd('-machine', 'pc', '-device', 'vmcoreinfo', '-device', 'vmcoreinfo');
  t.match(twice.errors, '-device vmcoreinfo: at most one vmcoreinfo device is permitted');
  const none = await runToEnd('-machine', 'none', '-device', 'vmcoreinfo');
  t.match(none.errors, '-device vmcoreinfo: vmcoreinfo device requires fw_cfg with DMA');
});
