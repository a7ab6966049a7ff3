/** Compute Express Link beyond what QEMU's registers can confirm: see also the register scripts of test/oracle/scripts/cxl.ts. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { RunningProgram, runToEnd } from '../core/control/program.ts';

const MIB = 2 ** 20;
/** Where the machine has CXL: host bridges' registers, the first window; the BARs of the memory device. */
const HOST = 0x1_0000_0000;
const WINDOW = HOST + 256 * MIB;
const ECAM = 0xb000_0000;
const COMPONENT = 0xe810_0000;
const DEVICE = 0xe811_0000;
const DECODER = 0x1120;
const GLOBAL_CONTROL = 0x1114;
const CONTROL = { LOCK: 1 << 8, COMMIT: 1 << 9, COMMITTED: 1 << 10, ERROR: 1 << 11 } as const;
const BACKENDS = [
  ...['-object', 'memory-backend-ram,id=m,size=256M', '-object', 'memory-backend-ram,id=l,size=64K'],
] as const;
const PORT = ['-device', 'pxb-cxl,id=c,bus_nr=52', '-device', 'cxl-rp,bus=c,id=r,chassis=1,port=4'] as const;
const MEMORY = ['-device', 'cxl-type3,bus=r,memdev=m,lsa=l,id=t'] as const;
const MACHINE = [
  ...['-machine', 'q35,cxl=on,cxl-fmw.0.targets.0=c,cxl-fmw.0.size=1G', '-m', '128M', '-nodefaults'],
  ...[...BACKENDS, ...PORT, ...MEMORY],
] as const;

const hex = (value: number): string => `0x${value.toString(16)}`;

/** The machine as firmware leaves it: buses numbered, BARs placed. */
class CxlMachine {
  readonly program: RunningProgram;

  private constructor(program: RunningProgram) {
    this.program = program;
  }

  static async start(t: Test, ...more: readonly string[]): Promise<CxlMachine> {
    const program = await RunningProgram.start(...MACHINE, ...more);
    t.teardown(() => program.stop());
    await program.execute('qmp_capabilities');
    return new CxlMachine(program);
  }

  async open(): Promise<this> {
    for (const [register, value] of [
      [0x8000_0064, 0],
      [0x8000_0060, ECAM + 1],
    ] as const) {
      await this.program.command(`outl 0xcf8 ${hex(register)}`);
      await this.program.command(`outl 0xcfc ${hex(value)}`);
    }
    const [port, memory] = [ECAM + (52 << 20), ECAM + (53 << 20)];
    await this.write(port + 0x18, 0x35_3534);
    await this.write(port + 0x20, 0xe810_e810);
    await this.write(port + 0x04, 6);
    await this.write(memory + 0x10, COMPONENT);
    await this.write(memory + 0x18, DEVICE);
    await this.write(memory + 0x04, 6);
    return this;
  }

  async write(address: number, value: number): Promise<void> {
    await this.program.command(`writel ${hex(address)} ${hex(value)}`);
  }

  async read(address: number): Promise<number> {
    return Number((await this.program.command(`readl ${hex(address)}`)).split(' ')[1]);
  }

  async bytes(address: number, length: number): Promise<Buffer> {
    return Buffer.from((await this.program.command(`read ${hex(address)} ${length}`)).slice(5), 'hex');
  }

  /** Sets and commits a decoder of 256 MiB at the window. */
  async decode(block: number, control: number, low = 0): Promise<number> {
    await this.write(block + DECODER, WINDOW % 2 ** 32);
    await this.write(block + DECODER + 4, 1);
    await this.write(block + DECODER + 8, 256 * MIB);
    await this.write(block + DECODER + 0x14, low);
    await this.write(block + GLOBAL_CONTROL, 2);
    await this.write(block + DECODER + 0x10, control | CONTROL.COMMIT);
    return this.read(block + DECODER + 0x10);
  }

  /** Runs a command of the mailbox: its return code, and the bytes of its output. */
  async mailbox(opcode: number, input: Uint8Array = Buffer.alloc(0), length = input.length) {
    const mailbox = DEVICE + 0x88;
    if (input.length > 0)
      await this.program.command(
        `write ${hex(mailbox + 0x20)} ${input.length} 0x${Buffer.from(input).toString('hex')}`,
      );
    await this.write(mailbox + 8, ((length << 16) | opcode) >>> 0);
    await this.write(mailbox + 0xc, length >>> 16);
    await this.write(mailbox + 4, 1);
    return { code: await this.read(mailbox + 0x14), length: (await this.read(mailbox + 8)) >>> 16 };
  }
}

const words = (...values: readonly number[]): Buffer => Buffer.from(Uint32Array.from(values).buffer);

t.test('a decoder is committed, taken back, locked, and refused what it cannot do', async t => {
  const machine = await (await CxlMachine.start(t)).open();
  const host = HOST;
  const { COMMIT, COMMITTED, ERROR, LOCK } = CONTROL;
  t.equal(await machine.decode(host, 0, 4), COMMIT | COMMITTED);
  await machine.write(WINDOW, 0x1234_5678);
  t.equal(await machine.read(WINDOW), 0, 'the device does not decode yet');
  t.equal(await machine.decode(COMPONENT, 0), COMMIT | COMMITTED);
  await machine.write(WINDOW + 0x100, 0x1234_5678);
  t.equal(await machine.read(WINDOW + 0x100), 0x1234_5678);
  await machine.write(COMPONENT + GLOBAL_CONTROL, 0);
  t.equal(await machine.read(WINDOW + 0x100), 0, 'its decoders are off');
  await machine.write(COMPONENT + GLOBAL_CONTROL, 2);

  await machine.write(COMPONENT + DECODER + 0x10, 0);
  t.equal(await machine.read(COMPONENT + DECODER + 0x10), 0, 'no longer committed');
  t.equal(await machine.read(WINDOW + 0x100), 0);
  t.equal(await machine.decode(COMPONENT, 0x07), 0x07 | COMMIT | ERROR, '32 KiB is reserved');
  t.equal(await machine.decode(COMPONENT, 0x40), 0x40 | COMMIT | ERROR, 'so are 16 ways');
  await machine.write(COMPONENT + DECODER + 0x10, 0);
  t.equal(await machine.decode(COMPONENT, 0, 0x1000_0000), COMMIT | COMMITTED);
  t.equal(await machine.read(WINDOW + 0x100), 0, 'all of its memory is skipped');

  await machine.write(COMPONENT + DECODER + 0x10, 0);
  t.equal(await machine.decode(COMPONENT, LOCK), LOCK | COMMIT | COMMITTED);
  await machine.write(COMPONENT + DECODER + 0x10, 0);
  await machine.write(COMPONENT + DECODER + 8, 0);
  t.equal(await machine.read(COMPONENT + DECODER + 0x10), LOCK | COMMIT | COMMITTED);
  t.equal(await machine.read(COMPONENT + DECODER + 8), 256 * MIB);
  t.equal(await machine.read(WINDOW + 0x100), 0x1234_5678);
  await machine.program.execute('system_reset');
  await machine.open();
  t.equal(await machine.read(COMPONENT + DECODER + 0x10), 0, 'until reset');
});

t.test('commands that lie about what they need', async t => {
  const machine = await (await CxlMachine.start(t)).open();
  const [INVALID_INPUT, WRONG_LENGTH] = [0x02, 0x16];
  t.same(await machine.mailbox(0x4102, words(0xffff_fff0, 0x20)), { code: INVALID_INPUT, length: 0 });
  t.same(await machine.mailbox(0x4102, words(0, 2049)), { code: INVALID_INPUT, length: 0 }, 'more than the payload');
  t.same(await machine.mailbox(0x4102, words(0, 2048)), { code: 0, length: 2048 });
  t.same(await machine.mailbox(0x4102, words(65_536, 0)), { code: 0, length: 0 });
  t.same(await machine.mailbox(0x4103, words(0), 4), { code: WRONG_LENGTH, length: 0 }, 'not even a header');
  t.same(await machine.mailbox(0x4103, words(0, 0), 0x801), { code: WRONG_LENGTH, length: 0 }, 'beyond the payload');
  t.same(await machine.mailbox(0x4103, words(0, 0), 0xf_ffff), { code: WRONG_LENGTH, length: 0 });
  t.same(await machine.mailbox(0x4103, words(0xffff_ffff, 0, 1)), { code: INVALID_INPUT, length: 0 });
  const log = Buffer.from('0da9c0b5bf414b788f7996b1623b3f17', 'hex');
  t.same(await machine.mailbox(0x0401, Buffer.concat([log, words(8, 12)])), { code: 0, length: 12 });
  t.same(await machine.bytes(DEVICE + 0xa8, 12), Buffer.from('020100000301020000020000', 'hex'), 'offsets are bytes');
  t.same(await machine.mailbox(0x0401, Buffer.concat([log, words(52, 1)])), { code: INVALID_INPUT, length: 0 });
  t.same(await machine.mailbox(0x0401, Buffer.concat([log, words(0xffff_ffff, 2)])), {
    code: INVALID_INPUT,
    length: 0,
  });
  t.same(await machine.mailbox(0x0103, words(0x0101_0101)), { code: 0, length: 0 });
  t.same(await machine.mailbox(0x0102), { code: 0, length: 4 });
  t.equal(await machine.read(DEVICE + 0xa8), 0x0101_0101, 'the policy that was set');
});

t.test('the time goes on from what was set, through resets', async t => {
  const machine = await (await CxlMachine.start(t)).open();
  await machine.mailbox(0x0301, words(0xffff_ff00, 1));
  await machine.program.command('clock_step 1000');
  await machine.mailbox(0x0300);
  t.same(await machine.bytes(DEVICE + 0xa8, 8), words(0x2e8, 2));
  await machine.program.execute('system_reset');
  await machine.open();
  await machine.mailbox(0x0300);
  t.same(await machine.bytes(DEVICE + 0xa8, 8), words(0x2e8, 2));
});

t.test('attributes come from a file', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-cxl-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'cdat');
  const refused = async (contents: Uint8Array, message: string): Promise<void> => {
    writeFileSync(path, contents);
    const { code, errors } = await runToEnd(
      ...MACHINE.slice(0, -2),
      '-device',
      `cxl-type3,bus=r,memdev=m,lsa=l,cdat=${path}`,
    );
    t.equal(code, 1);
    t.match(errors, message);
  };
  const header = Buffer.alloc(16);
  await refused(header.subarray(0, 15), 'CDAT: File too short');
  await refused(Buffer.concat([header, Buffer.from([6, 0, 8, 0, 0, 0, 0, 0])]), 'Type 6 is reserved');
  await refused(Buffer.concat([header, Buffer.from([3, 0, 0, 0])]), 'CDAT: File length mismatch');
  await refused(Buffer.concat([header, Buffer.from([3, 0, 8, 0])]), 'CDAT: File length mismatch');
  await refused(Buffer.concat([header, Buffer.from([5, 0, 17, 0]), Buffer.alloc(13)]), 'CDAT: File length mismatch');
});

t.test('a memory device and a root port on conventional PCI', async t => {
  const program = await RunningProgram.start(
    ...[
      '-machine',
      'pc',
      '-nodefaults',
      ...BACKENDS,
      '-device',
      'cxl-type3,memdev=m,lsa=l,addr=4',
      '-device',
      'cxl-rp,addr=5',
    ],
  );
  t.teardown(() => program.stop());
  for (const [device, id] of [
    [4, 0x0d93_8086],
    [5, 0x7075_8086],
  ] as const) {
    await program.command(`outl 0xcf8 ${hex(0x8000_0000 + (device << 11))}`);
    t.equal(Number((await program.command('inl 0xcfc')).split(' ')[1]), id);
  }
});

t.test('what is refused', async t => {
  const refused = async (message: string, ...args: readonly string[]): Promise<void> => {
    const { code, errors } = await runToEnd('-nodefaults', ...args);
    t.equal(code, 1);
    t.match(errors, message);
  };
  const window = (options: string): string[] => ['-machine', `q35,cxl=on,${options}`];
  const on = ['-machine', 'q35,cxl=on'];
  await refused('CXL host bridges present, but cxl=off', '-machine', 'q35', ...PORT);
  await refused('pxb-cxl devices cannot reside on a PCI bus', '-machine', 'pc', '-device', 'pxb-cxl');
  await refused('Could not resolve CXLFM target c', ...window('cxl-fmw.0.targets.0=c,cxl-fmw.0.size=4G'));
  await refused(
    'Size of a CXL fixed memory window must my a multiple of 256MiB',
    ...window('cxl-fmw.0.targets.0=c,cxl-fmw.0.size=100M'),
  );
  await refused("Parameter 'cxl-fmw.0.size' is missing", ...window('cxl-fmw.0.targets.0=c'));
  await refused("Parameter 'cxl-fmw.0.targets' is missing", ...window('cxl-fmw.0.size=4G'));
  await refused("Parameter 'cxl-fmw.0.way' is unexpected", ...window('cxl-fmw.0.way=1,cxl-fmw.0.size=4G'));
  await refused("Invalid parameter type for 'cxl-fmw', expected: array", ...window('cxl-fmw=1'));
  await refused(
    'Interleave granularity: 100 invalid',
    ...window('cxl-fmw.0.targets.0=c,cxl-fmw.0.size=4G,cxl-fmw.0.interleave-granularity=100'),
  );
  const five = [0, 1, 2, 3, 4].map(n => `cxl-fmw.0.targets.${n}=c`).join(',');
  await refused('Interleave ways: 5 not supported', ...window(`cxl-fmw.0.size=4G,${five}`));
  await refused('memdev property must be set', ...on, ...PORT, '-device', 'cxl-type3,bus=r');
  await refused('lsa property must be set', ...on, ...PORT, ...BACKENDS, '-device', 'cxl-type3,bus=r,memdev=m');
  await refused(
    "can't use already busy memdev: m",
    ...[...on, ...PORT, ...BACKENDS, ...MEMORY, '-device', 'cxl-rp,bus=c,id=r2,chassis=2'],
    ...['-device', 'cxl-type3,bus=r2,memdev=m,lsa=l'],
  );
  await refused('Only PCI/PCIe bridges can be plugged into pxb-cxl', ...on, ...PORT, '-device', 'edu,bus=c');
  await refused(
    'Insufficient space for pxb cxl host register space',
    ...[...on, ...Array.from({ length: 17 }, (_, n) => ['-device', `pxb-cxl,bus=pcie.0,bus_nr=${100 + n}`]).flat()],
  );
});

t.test('all of it moves to another machine', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-cxl-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const uri = `unix:${join(folder, 'migration')}`;
  const source = await (await CxlMachine.start(t)).open();
  await source.decode(HOST, 0, 4);
  await source.decode(COMPONENT, 0x11);
  await source.write(WINDOW + 0x5000, 0xfeed_beef);
  await source.mailbox(0x4103, Buffer.concat([words(32, 0), Buffer.from('label')]));
  await source.mailbox(0x0301, words(5, 6));
  // A data object half-way through being read.
  const exchange = ECAM + (53 << 20) + 0x190;
  for (const word of [0x0002_1e98, 3, 0]) await source.write(exchange + 0x10, word);
  await source.write(exchange + 0x08, 0x8000_0000);
  await source.write(exchange + 0x14, 0);

  const target = await CxlMachine.start(t, '-incoming', uri);
  await source.program.execute('migrate', { uri });
  for (let tries = 0; tries < 200; tries++) {
    const answer = await target.program.execute('query-migrate');
    if (JSON.stringify(answer).includes('completed')) break;
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  t.equal(await target.read(COMPONENT + DECODER + 0x10), 0x11 | CONTROL.COMMIT | CONTROL.COMMITTED);
  t.equal(await target.read(WINDOW + 0x5000), 0xfeed_beef);
  t.equal(await target.read(exchange + 0x14), 7, 'the next word of the answer');
  await target.mailbox(0x4102, words(32, 8));
  t.same(await target.bytes(DEVICE + 0xa8, 8), Buffer.from('label\0\0\0'));
  await target.mailbox(0x0300);
  t.same(await target.bytes(DEVICE + 0xa8, 8), words(5, 6));
});
