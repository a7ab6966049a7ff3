import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { RunningProgram } from '../core/control/program.ts';

const MIB = 2 ** 20;
const LABEL_SIZE = 128 * 1024;
const SIZE = 4 * MIB;
const FIRST = 0x1_0000_0000;
/** QEMU's docs/specs/acpi_nvdimm: the port, and a page of the test's own. */
const PORT = 0xa18;
const PAGE = 0x10_0000;
const READ_FIT = 0x1_0000;
const GPE_STATUS = 0xafe0;
const NVDIMM_EVENT = 1 << 4;
const SUCCESS = 0;
const NOT_SUPPORTED = 1;
const NON_EXISTING = 2;
const INVALID = 3;
const CHANGED = 0x100;

const MACHINE = ['-machine', 'pc,nvdimm=on', '-m', '128M,slots=3,maxmem=256M', '-nodefaults'];
const hex = (value: number): string => `0x${value.toString(16)}`;

function words(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [index, value] of values.entries()) bytes.writeUInt32LE(value, 4 * index);
  return bytes;
}

async function readMemory(program: RunningProgram, address: number, size: number): Promise<Buffer> {
  const reply = await program.command(`read ${hex(address)} ${size}`);
  return Buffer.from(reply.replace(/^OK 0x/, ''), 'hex');
}

async function writeMemory(program: RunningProgram, address: number, bytes: Uint8Array): Promise<void> {
  await program.command(`write ${hex(address)} ${bytes.length} 0x${Buffer.from(bytes).toString('hex')}`);
}

interface Answer {
  readonly status: number;
  readonly data: Buffer;
}

/** What the guest's `_DSM` does: the call into a page, the page's address to the port, the answer from the page. */
async function dsm(
  program: RunningProgram,
  call: { readonly handle: number; readonly operation: number; readonly revision?: number },
  argument: Uint8Array = Buffer.alloc(0),
): Promise<Answer> {
  const head = words(call.handle, call.revision ?? 1, call.operation);
  await writeMemory(program, PAGE, Buffer.concat([head, argument]));
  await program.command(`outl ${hex(PORT)} ${hex(PAGE)}`);
  const length = (await readMemory(program, PAGE, 4)).readUInt32LE();
  const answer = await readMemory(program, PAGE + 4, length - 4);
  return { status: answer.readUInt32LE(), data: answer.subarray(4) };
}

async function start(t: Test, ...options: readonly string[]): Promise<RunningProgram> {
  const program = await RunningProgram.start(...MACHINE, ...options);
  t.teardown(() => program.stop());
  await program.execute('qmp_capabilities');
  return program;
}

function folder(t: Test): string {
  const path = mkdtempSync(join(tmpdir(), 'southbridge-nvdimm-'));
  t.teardown(() => rmSync(path, { recursive: true }));
  return path;
}

t.test('what is written to a module and its labels is in the file', async t => {
  const file = join(folder(t), 'module');
  const program = await start(
    t,
    '-object',
    `memory-backend-file,id=m0,mem-path=${file},share=on,size=${SIZE}`,
    '-device',
    `nvdimm,id=n0,memdev=m0,label-size=${LABEL_SIZE}`,
  );
  const data = SIZE - LABEL_SIZE;
  t.match(await program.execute('query-memory-devices'), {
    return: [{ type: 'nvdimm', data: { id: 'n0', addr: FIRST, size: data, slot: 0, memdev: '/objects/m0' } }],
  });
  await writeMemory(program, FIRST + data - 4, Buffer.from('last'));
  await writeMemory(program, FIRST + data, Buffer.from('gone'));
  t.same(await readMemory(program, FIRST + data, 4), Buffer.alloc(4), 'labels are not memory');

  t.same(await dsm(program, { handle: 1, operation: 0 }), { status: 0b111_0001, data: Buffer.alloc(0) });
  const size = await dsm(program, { handle: 1, operation: 4 });
  t.same([size.status, size.data], [SUCCESS, words(LABEL_SIZE, 4096 - 20)]);
  const text = Buffer.from('a label, at an odd place');
  const place = words(LABEL_SIZE - text.length, text.length);
  t.equal((await dsm(program, { handle: 1, operation: 6 }, Buffer.concat([place, text]))).status, SUCCESS);
  t.same(await dsm(program, { handle: 1, operation: 5 }, place), { status: SUCCESS, data: text });

  const contents = readFileSync(file);
  t.equal(contents.subarray(data - 4, data).toString(), 'last');
  t.same(contents.subarray(SIZE - text.length), text);
  t.same(contents.subarray(data, data + 4), Buffer.alloc(4));
});

t.test('calls that cannot be answered', async t => {
  const program = await start(
    t,
    '-object',
    `memory-backend-ram,id=m0,size=${SIZE}`,
    '-device',
    `nvdimm,memdev=m0,label-size=${2 * MIB},slot=1`,
    '-object',
    `memory-backend-ram,id=m1,size=${SIZE}`,
    '-device',
    'nvdimm,memdev=m1,slot=2',
  );
  const status = async (handle: number, operation: number, argument?: Uint8Array, revision = 1): Promise<number> =>
    (await dsm(program, { handle, operation, revision }, argument)).status;

  t.equal(await status(0, 0), 0, 'the root device has no functions');
  t.equal(await status(0, 1), NOT_SUPPORTED);
  t.equal(await status(2, 4, undefined, 2), NOT_SUPPORTED, 'another revision');
  t.equal(await status(2, 3), NOT_SUPPORTED);
  t.equal(await status(1, 0), 0, 'nothing in slot 0');
  t.equal(await status(1, 4), NON_EXISTING);
  t.equal(await status(3, 0), 0, 'no labels');
  t.equal(await status(3, 4), NOT_SUPPORTED);
  t.equal(await status(2, 5, words(2 * MIB - 4, 8)), INVALID, 'over the end');
  t.equal(await status(2, 5, words(0xffff_fff0, 0x20)), INVALID, 'round the end of 32 bits');
  t.equal(await status(2, 5, words(0, 4096)), INVALID, 'more than a page holds');
  t.equal(await status(2, 6, words(0, 4096)), INVALID);
  t.equal(await status(READ_FIT, 0), 0b11);
  t.equal(await status(READ_FIT, 2), NOT_SUPPORTED);

  await program.command(`outl ${hex(PORT)} 0xfffff000`);
  await program.command(`outl ${hex(PORT)} 0xe0000000`);
  t.match(await program.command(`inl ${hex(PORT)}`), /^OK 0x0+$/, 'a page that is no memory is left alone');
});

t.test('a module that comes while the guest runs is in _FIT, and stays', async t => {
  const program = await start(t);
  const fit = (offset: number): Promise<Answer> => dsm(program, { handle: READ_FIT, operation: 1 }, words(offset));
  t.same(await fit(0), { status: SUCCESS, data: Buffer.alloc(0) });
  await program.execute('object-add', { 'qom-type': 'memory-backend-ram', id: 'm0', size: SIZE });
  t.match(await program.execute('device_add', { driver: 'nvdimm', id: 'n0', memdev: 'm0', unarmed: true }), {
    return: {},
  });
  const event = await program.command(`inb ${hex(GPE_STATUS)}`);
  t.equal(Number(event.split(' ')[1]) & NVDIMM_EVENT, NVDIMM_EVENT, 'the SCI has a cause');
  t.equal((await fit(8)).status, CHANGED, 'whoever is in the middle begins again');
  const { data } = await fit(0);
  t.equal((await fit(data.length)).data.length, 0);
  t.equal((await fit(data.length + 1)).status, INVALID);

  t.equal(data.readUInt16LE(0), 0, 'an address range');
  t.equal(Number(data.readBigUInt64LE(32)), FIRST);
  t.equal(Number(data.readBigUInt64LE(40)), SIZE);
  const mapping = data.subarray(data.readUInt16LE(2));
  t.equal(mapping.readUInt16LE(0), 1, 'a region mapping');
  t.equal(mapping.readUInt16LE(44), 1 << 3, 'not armed');

  t.match(await program.execute('device_del', { id: 'n0' }), {
    error: { desc: 'nvdimm device hot unplug is not supported yet.' },
  });
  await program.command('outl 0xa00 0');
  t.match(await program.command('inb 0xa14'), /^OK 0x0+$/, 'the registers of DIMMs show it as an empty slot');
});

t.test('modules that are refused', async t => {
  const program = await start(t);
  const file = join(folder(t), 'module');
  writeFileSync(file, Buffer.alloc(SIZE));
  await program.execute('object-add', { 'qom-type': 'memory-backend-ram', id: 'small', size: 2 * MIB });
  await program.execute('object-add', {
    'qom-type': 'memory-backend-file',
    id: 'ro',
    'mem-path': file,
    size: SIZE,
    readonly: true,
  });
  const refused = async (properties: object, desc: string): Promise<void> => {
    t.match(await program.execute('device_add', { driver: 'nvdimm', ...properties }), { error: { desc } });
  };
  await refused({}, "'memdev' property is not set");
  await refused(
    { memdev: 'small', 'label-size': 1024 },
    "Property 'nvdimm.label-size' (0x400) is required at least 0x20000",
  );
  await refused(
    { memdev: 'small', 'label-size': LABEL_SIZE },
    'the size of memdev small (0x200000) is too small to contain nvdimm label (0x20000) and aligned PMEM (0x200000)',
  );
  await refused({ memdev: 'ro' }, "'unarmed' property must be 'on' since memdev ro is read-only");
  t.match(
    await program.execute('device_add', { driver: 'nvdimm', memdev: 'ro', unarmed: true, 'label-size': LABEL_SIZE }),
    { return: {} },
  );
  await writeMemory(program, FIRST, Buffer.from('nothing'));
  t.same(await readMemory(program, FIRST, 7), Buffer.alloc(7), 'a module of a read-only file is not written');
  t.equal((await dsm(program, { handle: 1, operation: 6 }, words(0, 4, 1))).status, INVALID, 'nor its labels');
});

t.test('a machine without nvdimm=on takes none', async t => {
  const program = await RunningProgram.start('-machine', 'q35', '-m', '128M,slots=1,maxmem=256M', '-nodefaults');
  t.teardown(() => program.stop());
  await program.execute('qmp_capabilities');
  await program.execute('object-add', { 'qom-type': 'memory-backend-ram', id: 'm0', size: SIZE });
  t.match(await program.execute('device_add', { driver: 'nvdimm', memdev: 'm0' }), {
    error: { desc: "nvdimm is not enabled: missing 'nvdimm' in '-M'" },
  });
});
