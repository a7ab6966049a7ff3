import t from 'tap';
import type { Vm } from '../../../core/accel/accelerator.ts';
import { wasm } from '../../../core/accel/wasm/accelerator.ts';
import { VirtualClock } from '../../../core/clock/clock.ts';
import { code, dword } from '../../machine-code.ts';
import { CODE, lab, noTimers, RAM_SIZE, RecordingBus } from './wasm-lab.ts';

const CLI = 0xfa;
const STI = 0xfb;
const HLT = 0xf4;
const IRET = 0xcf;
/** `out dx, al` after `mov dx, port`. */
const outAl = (port: number): number[] => [0xba, port & 0xff, port >> 8, 0xee];
const movAl = (value: number): number[] => [0xb0, value];
const JMP_SELF = [0xeb, 0xfe];
/** `out imm8, al` for each byte: the 8259A pair, vectors from 8 and 70h, everything unmasked. */
const PIC_INIT = [
  [0x20, 0x11],
  [0x21, 0x08],
  [0x21, 0x04],
  [0x21, 0x01],
  [0xa0, 0x11],
  [0xa1, 0x70],
  [0xa1, 0x02],
  [0xa1, 0x01],
  [0x21, 0x00],
  [0xa1, 0x00],
].flatMap(([port = 0, value = 0]) => [...movAl(value), 0xe6, port]);
const writeVector = (ram: Uint8Array, vector: number, address: number): void => {
  ram.set([address & 0xff, address >> 8, 0, 0], 4 * vector);
};

t.test('runs from the reset vector and reaches ports and memory at their own sizes', async t => {
  const { vm, bus, seen } = lab([
    CLI,
    ...movAl(0x5a),
    ...outAl(0x402),
    0xb8,
    0x34,
    0x12,
    0xef, // mov ax, 1234h; out dx, ax
    0x66,
    0xb8,
    0x78,
    0x56,
    0x34,
    0x92,
    0x66,
    0xef, // mov eax, 92345678h; out dx, eax
    0x66,
    0xed, // in eax, dx
    0x66,
    0xef,
    0x68,
    0x00,
    0xa0,
    0x1f, // push a000h; pop ds
    0x66,
    0xa3,
    0x10,
    0x00, // mov [10h], eax
    0xa1,
    0x10,
    0x00, // mov ax, [10h]
    ...outAl(0x99),
    ...JMP_SELF,
  ]);
  bus.reads.set(0x402, 0xf000_0001);
  bus.reads.set(0xa_0010, 0x77);
  const last = seen(({ address }) => address === 0x99);
  vm.start();
  await last;
  vm.pause();
  t.match(bus.accesses, [
    { kind: 'out', address: 0x402, size: 1, value: 0x5a },
    { kind: 'out', address: 0x402, size: 2, value: 0x1234 },
    { kind: 'out', address: 0x402, size: 4, value: 0x9234_5678 },
    { kind: 'in', address: 0x402, size: 4 },
    { kind: 'out', address: 0x402, size: 4, value: 0xf000_0001 },
    { kind: 'write', address: 0xa_0010, size: 4, value: 0xf000_0001 },
    { kind: 'read', address: 0xa_0010, size: 2 },
    { kind: 'out', address: 0x99, size: 1, value: 0x77 },
  ]);
  t.equal(bus.accesses.length, 8);
  vm.dispose();
});

t.test('words outside RAM are read as words, by compiled code too', async t => {
  // 60000 times: mov ax, [10h]; movzx eax, byte [12h]; add bx, [14h]; each is compiled before long.
  const { vm, bus, seen } = lab([
    CLI,
    0x68,
    0x00,
    0xa0,
    0x1f,
    0xb9,
    0x60,
    0xea,
    0xa1,
    0x10,
    0,
    0x66,
    0x0f,
    0xb6,
    0x06,
    0x12,
    0,
    0x03,
    0x1e,
    0x14,
    0,
    0xe2,
    0xf1,
    0xe6,
    0x80,
    HLT,
  ]);
  const done = seen(({ address }) => address === 0x80);
  vm.start();
  await done;
  const sizes = new Set(
    bus.accesses.filter(({ kind }) => kind === 'read').map(({ address, size }) => `${address & 0xff}:${size}`),
  );
  t.same([...sizes], ['16:2', '18:1', '20:2']);
  vm.dispose();
});

t.test('an interrupt wakes a halted guest, which costs no CPU until then', async t => {
  const { vm, bus, ram, seen } = lab([
    CLI,
    ...PIC_INIT,
    ...movAl(1),
    0xe6,
    0x80,
    STI,
    HLT,
    ...movAl(3),
    0xe6,
    0x80,
    CLI,
    HLT,
  ]);
  ram.bytes.set([...movAl(0x20), 0xe6, 0x20, ...movAl(2), 0xe6, 0x80, IRET], 0x2000);
  writeVector(ram.bytes, 8 + 5, 0x2000);
  const ready = seen(({ value }) => value === 1);
  vm.start();
  await ready;
  await new Promise(done => setTimeout(done, 20));
  t.equal(vm.vcpus[0]?.halted, true);
  const before = process.cpuUsage();
  await new Promise(done => setTimeout(done, 100));
  t.ok(process.cpuUsage(before).user < 50_000);
  const done = seen(({ value }) => value === 3);
  vm.setIrq(5, true);
  await done;
  vm.setIrq(5, false);
  t.same(
    bus.accesses.filter(({ address }) => address === 0x80).map(({ value }) => value),
    [1, 2, 3],
  );
  vm.dispose();
});

t.test('a device that interrupts from inside its own register access does not disturb the instruction', async t => {
  // A loop hot enough to be compiled: in al, 61h must not be torn by the handler's own use of AL.
  const loop = [0xe4, 0x61, 0x3c, 0x42, 0x75, 0x04, 0xe2, 0xf8, 0xeb, 0x04, 0xb0, 0xee, 0xe6, 0x80];
  const { vm, bus, ram, seen } = lab([
    CLI,
    ...PIC_INIT,
    STI,
    0xb9,
    0,
    0x40,
    ...loop,
    ...movAl(0x99),
    0xe6,
    0x80,
    CLI,
    HLT,
  ]);
  ram.bytes.set([0x50, ...movAl(0x20), 0xe6, 0x20, ...movAl(2), 0xe6, 0x81, 0x58, IRET], 0x2000);
  writeVector(ram.bytes, 8 + 5, 0x2000);
  bus.reads.set(0x61, 0x42);
  const done = seen(({ address }) => address === 0x80);
  const record = bus.onAccess;
  let interrupts = 0;
  bus.onAccess = access => {
    if (access.kind === 'in') vm.setIrq(5, true);
    if (access.address === 0x81) {
      interrupts++;
      vm.setIrq(5, false);
    }
    record(access);
  };
  vm.start();
  t.equal((await done).value, 0x99, 'AL was 42h each time');
  t.ok(interrupts > 0x1000, `${interrupts} interrupts`);
  vm.dispose();
});

t.test('a triple fault stops the guest with its registers, and a reset makes it whole again', async t => {
  const { vm, ram, stopped, seen } = lab([
    CLI,
    0x0f,
    0x01,
    0x1e,
    0x00,
    0x30, // lidt [3000h], which is empty
    0x0f,
    0x20,
    0xc0,
    0x0c,
    0x01,
    0x0f,
    0x22,
    0xc0, // CR0.PE
    0xcc,
  ]);
  vm.start();
  const stop = await stopped;
  t.equal(stop.reason, 'shutdown');
  t.match(stop.reason === 'shutdown' ? stop.report : '', /CR0=60000011/);
  const { generation } = ram;
  ram.bytes.set([...movAl(7), 0xe6, 0x80, ...JMP_SELF], CODE);
  vm.reset();
  t.ok(ram.generation > generation, 'the views of guest RAM were replaced');
  t.equal(ram.bytes[CODE + 1], 7);
  const alive = seen(({ address }) => address === 0x80);
  vm.start();
  t.equal((await alive).value, 7);
  vm.dispose();
});

t.test('RAM under ROM comes back when the chipset shadows it', async t => {
  const { vm, ram, rom } = lab([HLT]);
  rom.bytes[0x1234] = 0xab;
  vm.unmapRam(0xf_0000, 0x1_0000);
  vm.mapRam(0xf_0000, rom, 0, 0x1_0000, true);
  t.equal(ram.bytes[0xf_1234], 0xab);
  vm.unmapRam(0xf_0000, 0x1_0000);
  t.equal(ram.bytes[0xf_1234], 0xff, 'nobody answers');
  vm.mapRam(0xf_0000, ram, 0xf_0000, 0x1_0000, false);
  t.equal(ram.bytes[0xf_1234], 0);
  t.throws(() => vm.mapRam(0, rom, 0, 0x1000, false), { code: 'ERR_RAM_MAP' });
  vm.dispose();
});

t.test('architectural state can be written and read back', async t => {
  const { vm } = lab([HLT]);
  const [cpu] = vm.vcpus;
  if (cpu === undefined) throw new Error('no CPU');
  t.match(cpu.readState(), {
    rip: 0xfff0n,
    cr0: 0x6000_0010n,
    cs: { selector: 0xf000, base: 0xffff_0000n },
    rflags: 2n,
  });
  const state = cpu.readState();
  state.gpr.set([1n, 2n, 3n, 4n, 0x8000n, 6n, 7n, 0xffff_ffffn]);
  state.cr0 = 0x11n;
  state.rip = 0x10_0000n;
  state.rflags = 0x246n;
  const flat = { selector: 0x10, base: 0n, limit: 0xffff_ffff, attributes: 0xc093, unusable: false };
  state.cs = { ...flat, selector: 8, attributes: 0xc09b };
  state.ds = flat;
  state.es = flat;
  state.ss = flat;
  state.fs = flat;
  state.gs = flat;
  state.fxsave.fill(0x5c, 32, 42);
  state.fxsave[4] = 0xff;
  state.fxsave.fill(0x3d, 160, 288);
  cpu.writeState(state);
  const { cr8, apicBase, tr, ldtr, ...back } = cpu.readState();
  void [cr8, apicBase, tr, ldtr];
  t.match(state, back);
  state.efer = 0x500n;
  t.throws(() => cpu.writeState(state), { code: 'ERR_CPU_STATE' });
  vm.dispose();
});

/** Counts in memory at 3000h while interrupt 0 of a timer counts at 3004h and keeps what RDTSC and RDRAND say. */
const COUNTING = [
  CLI,
  ...PIC_INIT,
  STI,
  0x66,
  0xff,
  0x06,
  0x00,
  0x30, // inc dword [3000h]
  0x66,
  0x69,
  0xc0,
  0x6d,
  0x4e,
  0xc6,
  0x41, // imul eax, eax, 41c64e6dh
  0x66,
  0x05,
  0x39,
  0x30,
  0,
  0, // add eax, 3039h
  0xeb,
  0xec,
];
const COUNTING_HANDLER = [
  0x66,
  0x50,
  0x66,
  0x52, // push eax, edx
  0x66,
  0xff,
  0x06,
  0x04,
  0x30, // inc dword [3004h]
  0x0f,
  0x31,
  0x66,
  0x31,
  0x06,
  0x08,
  0x30, // rdtsc; xor [3008h], eax
  0x66,
  0x0f,
  0xc7,
  0xf0,
  0x66,
  0x31,
  0x06,
  0x0c,
  0x30, // rdrand eax; xor [300ch], eax
  ...movAl(0x20),
  0xe6,
  0x20,
  0x66,
  0x5a,
  0x66,
  0x58,
  IRET,
];

/** A clock of one periodic timer, on interrupt 0. */
function timerClock(periodNs: number) {
  const virtual = new VirtualClock(() => 0);
  let vm: Vm | undefined;
  let fired = 0;
  const timer = virtual.timer('periodic', () => {
    fired++;
    vm?.setIrq(0, true);
    vm?.setIrq(0, false);
    timer.arm(periodNs);
  });
  const clock = {
    virtual,
    untilDeadline: () => Math.max(0, virtual.nextDeadlineNs - virtual.now()),
    expire: () => virtual.expire(),
    onDeadline() {},
  };
  return {
    clock,
    start(of: Vm): void {
      vm = of;
      virtual.resume();
      timer.arm(periodNs);
    },
    get fired(): number {
      return fired;
    },
  };
}

async function countedRun(interrupts: number, interfere: boolean): Promise<string> {
  const timer = timerClock(700_000);
  const { vm, ram } = lab(COUNTING, { clock: timer.clock, icount: { shift: 3, sleep: false } });
  ram.bytes.set(COUNTING_HANDLER, 0x2000);
  writeVector(ram.bytes, 8, 0x2000);
  timer.start(vm);
  await new Promise<void>(done => {
    const expire = timer.clock.expire;
    timer.clock.expire = () => {
      expire();
      if (timer.fired < interrupts) return;
      vm.pause();
      done();
    };
    vm.start();
    const kick = (): void => {
      if (timer.fired >= interrupts) return;
      if (interfere) vm.kick();
      setTimeout(kick, 1);
    };
    kick();
  });
  await new Promise(done => setTimeout(done, 1));
  const { gpr, rip } = vm.vcpus[0]?.readState() ?? { gpr: [], rip: 0n };
  const results = [0, 4, 8, 12].map(offset => ram.view.getUint32(0x3000 + offset, true));
  vm.dispose();
  return JSON.stringify([...gpr, rip, ...results].map(String));
}

t.test('a run that counts instructions repeats bit for bit', async t => {
  const first = await countedRun(300, false);
  t.equal(await countedRun(300, false), first);
  t.equal(await countedRun(300, true), first, 'whatever the host does meanwhile');
  t.not(await countedRun(301, false), first);
});

t.test('saved state goes on where it was, in another VM', async t => {
  const one = lab([CLI, ...PIC_INIT, ...movAl(1), 0xe6, 0x80, STI, HLT, ...movAl(3), 0xe6, 0x80, CLI, HLT]);
  const ready = one.seen(({ value }) => value === 1);
  one.vm.start();
  await ready;
  await new Promise(done => setTimeout(done, 5));
  one.vm.pause();
  const state = one.vm.saveState();
  const two = lab([]);
  two.ram.bytes.set(one.ram.bytes);
  two.ram.bytes.set([...movAl(0x20), 0xe6, 0x20, IRET], 0x2000);
  writeVector(two.ram.bytes, 0x70 + 3, 0x2000);
  two.vm.restoreState(state);
  t.same(two.vm.vcpus[0]?.readState(), one.vm.vcpus[0]?.readState());
  const done = two.seen(({ value }) => value === 3);
  two.vm.start();
  two.vm.setIrq(11, true);
  await done;
  t.throws(() => one.vm.restoreState(state.subarray(1)), { code: 'ERR_STATE_FORMAT' });
  one.vm.dispose();
  two.vm.dispose();
});

t.test('an NMI comes through with interrupts off, and IRET brings them back as they were', async t => {
  const { vm, bus, ram, seen } = lab([
    CLI,
    ...movAl(1),
    0xe6,
    0x80,
    0x80,
    0x3e,
    0,
    0x30,
    0,
    0x74,
    0xf9,
    0x9c,
    0x58,
    0xe7,
    0x82,
    HLT,
  ]);
  ram.bytes.set([0xc6, 0x06, 0, 0x30, 1, IRET], 0x2000); // mov byte [3000h], 1
  writeVector(ram.bytes, 2, 0x2000);
  const ready = seen(({ value }) => value === 1);
  vm.start();
  await ready;
  const flags = seen(({ address }) => address === 0x82);
  vm.injectNmi();
  t.equal((await flags).value & 0x200, 0);
  t.equal(bus.accesses.length > 0, true);
  vm.dispose();
});

t.test('what it cannot do has a name', async t => {
  const options = { bus: new RecordingBus(), clock: noTimers, cpus: 1, irqchip: true, lowRam: RAM_SIZE, stopped() {} };
  t.throws(() => wasm.createVm({ ...options, cpus: 2 }), { code: 'ERR_VM_IRQCHIP' });
  t.throws(() => wasm.createVm({ ...options, lowRam: 2 ** 31 }), { code: 'ERR_RAM_SIZE' });
});

t.test('PAE has pages of 2 MiB although CR4.PSE is clear (Intel SDM volume 3, section 4.4.2)', async t => {
  const GDT = 0x7000;
  const POINTERS = 0x8000;
  const DIRECTORY = 0x9000;
  const FLAT = CODE + 0x80;
  const { vm, ram, seen } = lab([
    ...code`
      fa                               ; cli
      66 b8 20 00 00 00 0f 22 e0       ; mov eax, PAE; mov cr4, eax
      66 b8 ${dword(POINTERS)} 0f 22 d8 ; mov eax, POINTERS; mov cr3, eax
      0f 01 16 ${GDT & 0xff} ${GDT >> 8} ; lgdt [GDT]
      66 b8 11 00 00 80 0f 22 c0       ; mov eax, PG | ET | PE; mov cr0, eax
      66 ea ${dword(FLAT)} 08 00       ; jmp 8:FLAT
    `,
  ]);
  ram.view.setUint16(GDT, 3 * 8 - 1, true);
  ram.view.setUint32(GDT + 2, GDT, true);
  ram.bytes.set([0xff, 0xff, 0, 0, 0, 0x9b, 0xcf, 0, 0xff, 0xff, 0, 0, 0, 0x93, 0xcf, 0], GDT + 8);
  ram.view.setUint32(POINTERS, DIRECTORY | 1, true);
  ram.view.setUint32(DIRECTORY, 0x83, true);
  ram.view.setUint32(DIRECTORY + 8, 0x83, true);
  ram.bytes.set(
    code`
      66 b8 10 00 8e d8      ; mov ax, 10h; mov ds, ax
      a1 ${dword(0x20_0000 + CODE)} ; mov eax, [200000h + CODE]: the same page once more
      e7 99                  ; out 99h, eax
      eb fe                  ; jmp $
    `,
    FLAT,
  );
  const out = seen(({ address }) => address === 0x99);
  vm.start();
  t.equal((await out).value, ram.view.getUint32(CODE, true));
  vm.pause();
});
