import t from 'tap';
import type { DebugOptions, InterruptSource, VmOptions, VmStop } from '../../../core/accel/accelerator.ts';
import { VirtualClock } from '../../../core/clock/clock.ts';
import { code, dword } from '../../machine-code.ts';
import { type Access, type Lab, lab as makeLab, noTimers } from './wasm-lab.ts';

t.setTimeout(120_000);

/** Local APIC registers (Intel SDM volume 3, table 11-1). */
const ID = 0x20;
const TPR = 0x80;
const EOI = 0xb0;
const LDR = 0xd0;
const DFR = 0xe0;
const SVR = 0xf0;
const ICR_LOW = 0x300;
const ICR_HIGH = 0x310;
const LVT_TIMER = 0x320;
const LVT_LINT0 = 0x350;
const LVT_LINT1 = 0x360;
const INITIAL_COUNT = 0x380;

const INIT = 0x4500;
const STARTUP = 0x4600;
const TO_SELF = 0x4_0000;
const TO_ALL = 0x8_0000;
const TO_OTHERS = 0xc_0000;
const LOGICAL = 0x800;
const LOWEST_PRIORITY = 0x100;
const NMI = 0x400;
const SECOND_CODE = 0x2000;
const HANDLER = 0x3000;
const VECTOR = 0x41;

/** `mov dword [FEE00000 + register], value`, in real mode: the module checks no limits. */
const apic = (register: number, value: number): number[] => code`
  67 66 c7 05 ${dword(0xfee0_0000 + register)} ${dword(value)}
`;
/** `mov eax, [FEE00000 + register]` */
const fromApic = (register: number): number[] => code`67 66 a1 ${dword(0xfee0_0000 + register)}`;
const ipi = (command: number, destination = 0): number[] => [
  ...apic(ICR_HIGH, destination << 24),
  ...apic(ICR_LOW, command),
];
const start = (apicId: number): number[] => [...ipi(INIT, apicId), ...ipi(STARTUP | (SECOND_CODE >> 12), apicId)];
const APIC_ON = apic(SVR, 0x1ff);
const SLEEP = code`fb f4 eb fc ; sti; hlt; jmp $-2`;
const SPIN = code`eb fe`;
/** The APIC ID to port 93h, the end of the interrupt, back. */
const TELL = [
  ...code`66 50`,
  ...fromApic(ID),
  ...code`66 c1 e8 18 e6 93 ; shr eax, 24; out 93h, al`,
  ...apic(EOI, 0),
  ...code`66 58 cf`,
];
/** `in al, 91h; out 92h, al` for ever. */
const BUSY = code`e4 91 e6 92 eb fa`;

const word = (value: number): number[] => [value & 0xff, (value >> 8) & 0xff];

const at =
  (address: number) =>
  (access: Access): boolean =>
    access.address === address;

function lab(boot: readonly number[], second: readonly number[], options: Partial<VmOptions> = {}): Lab {
  const guest = makeLab(boot, { cpus: 2, irqchip: false, ...options });
  guest.ram.bytes.set(second, SECOND_CODE);
  guest.ram.bytes.set(TELL, HANDLER);
  setVector(guest, VECTOR, HANDLER);
  return guest;
}

function setVector({ ram }: Lab, vector: number, address: number): void {
  ram.view.setUint32(4 * vector, address, true);
}

const tick = (ms: number): Promise<void> => new Promise(done => setTimeout(done, ms));

t.test('two CPUs run in turn, stop together and go on', async t => {
  const guest = lab([...start(1), ...code`e6 90 eb fc`], BUSY);
  t.teardown(() => guest.vm.dispose());
  guest.bus.reads.set(0x91, 0x5c);
  guest.vm.start();
  await guest.seen(at(0x92), 20);
  await guest.seen(at(0x90), 20);
  guest.vm.pause();
  const count = guest.bus.accesses.length;
  const [first, second] = guest.vm.vcpus.map(vcpu => vcpu.readState());
  t.equal(first?.cs.base, 0n);
  t.equal(first?.apicBase, 0xfee0_0900n);
  t.equal(second?.cs.base, 0x2000n);
  t.equal(second?.apicBase, 0xfee0_0800n, 'not the bootstrap processor');
  await tick(20);
  t.equal(guest.bus.accesses.length, count, 'nobody runs while paused');
  guest.vm.start();
  await guest.seen(at(0x92), 5);
  t.ok(guest.bus.accesses.filter(at(0x92)).every(access => access.value === 0x5c));
});

t.test('one that waits for another does not keep it from running, whichever it is', async t => {
  for (const [waiting, other] of [
    [SPIN, BUSY],
    [code`f3 90 eb fc`, BUSY],
    [SLEEP, BUSY],
    [BUSY, SPIN],
  ] as const) {
    const guest = lab([...start(1), ...waiting], other);
    guest.vm.start();
    await guest.seen(at(0x92), 50);
    guest.vm.dispose();
  }
  t.pass();
});

t.test('CPUID and IA32_APIC_BASE tell them apart', async t => {
  /** CPUID leaf and subleaf: EAX, EBX, ECX and EDX to port 94h. */
  const cpuid = (leaf: number, subleaf = 0): number[] => code`
    66 b8 ${dword(leaf)} 66 b9 ${dword(subleaf)} 0f a2
    66 e7 94 66 89 d8 66 e7 94 66 89 c8 66 e7 94 66 89 d0 66 e7 94
  `;
  const tell = [...cpuid(1), ...cpuid(4), ...cpuid(0xb, 0), ...cpuid(0xb, 1), ...cpuid(0xb, 2)];
  const base = code`66 b9 1b 00 00 00 0f 32 66 e7 95 ; mov ecx, 1bh; rdmsr; out 95h, eax`;
  const guest = lab([...tell, ...base, ...start(6), ...SLEEP], [...tell, ...base, ...BUSY], { apicIds: [0, 6] });
  t.teardown(() => guest.vm.dispose());
  const topology = { dies: 1, cores: 3, threads: 2 };
  for (const [index, apicId] of [0, 6].entries()) {
    guest.vm.setPosition(index, { apicId, topology });
  }
  guest.vm.start();
  await guest.seen(at(0x92));
  const said = guest.bus.accesses.filter(at(0x94)).map(({ value }) => value);
  t.equal(said.length, 2 * 5 * 4);
  for (const [number, apicId] of [0, 6].entries()) {
    const [one = [], four = [], ...levels] = Array.from({ length: 5 }, (_, leaf) =>
      said.slice(20 * number + 4 * leaf, 20 * number + 4 * leaf + 4),
    );
    t.equal((one[1] ?? 0) >>> 16, (apicId << 8) | 6, 'its APIC ID, and six in its package');
    t.equal((one[3] ?? 0) & (1 << 28), 1 << 28, 'HTT');
    t.equal((four[0] ?? 0) >>> 14, (3 << 12) | 1, 'four core IDs, two threads to a cache');
    t.strictSame(levels, [
      [1, 2, 0x100, apicId],
      [3, 6, 0x201, apicId],
      [0, 0, 2, apicId],
    ]);
  }
  t.strictSame(
    guest.bus.accesses.filter(at(0x95)).map(({ value }) => value),
    [0xfee0_0900, 0xfee0_0800],
  );
});

t.test('interrupts find the CPUs that they are for', async t => {
  const ids = [0, 1, 2, 5];
  const SWEEP = VECTOR - 0x10;
  const LOGICAL_IDS = 0x2800;
  const PROGRAM = 0x4000;
  // The IDs that software gives come from a table.
  const second = code`
    ${APIC_ON} ${fromApic(ID)}
    66 c1 e8 16 89 c3 66 8b 87 ${LOGICAL_IDS & 0xff} ${LOGICAL_IDS >> 8} ; shr eax, 22; mov bx, ax; mov eax, [bx + LOGICAL_IDS]
    67 66 a3 ${dword(0xfee0_0000 + LDR)} e6 92 ${SLEEP}
  `;
  const boot = [
    ...apic(LDR, 1 << 24),
    ...APIC_ON,
    ...ipi(TO_OTHERS | INIT),
    ...ipi(TO_OTHERS | STARTUP | (SECOND_CODE >> 12)),
    ...SLEEP,
  ];
  const guest = lab(boot, second, { cpus: 4, apicIds: ids });
  t.teardown(() => guest.vm.dispose());
  for (const [index, id] of ids.entries()) guest.ram.view.setUint32(LOGICAL_IDS + 4 * id, 1 << (24 + index), true);
  guest.ram.bytes.set([...code`e6 96`, ...apic(EOI, 0), 0xcf], 0x3800);
  setVector(guest, SWEEP, 0x3800);
  guest.vm.start();
  await guest.seen(at(0x92), 3);

  /** Who took it, once `sweepers` CPUs have taken another of lower priority. */
  const takers = async (send: () => void, sweepers = ids.length): Promise<number[]> => {
    const from = guest.bus.accesses.length;
    const swept = guest.seen(at(0x96), sweepers);
    send();
    await swept;
    const told = guest.bus.accesses.slice(from).filter(at(0x93));
    return told.map(({ value }) => value).sort();
  };
  const message = (destination: number, data: number, logical = false): Promise<number[]> =>
    takers(() => {
      guest.vm.injectMsi(0xfee0_0000 | (destination << 12) | (logical ? 4 : 0), data);
      guest.vm.injectMsi(0xfee0_0000 | (0xff << 12), SWEEP);
    });
  t.strictSame(await message(5, VECTOR), [5], 'physical');
  t.strictSame(await message(3, VECTOR), [], 'nobody has that ID');
  t.strictSame(await message(0xff, VECTOR), ids, 'broadcast');
  t.strictSame(await message(0b1010, VECTOR, true), [1, 5], 'logical');
  t.strictSame(await message(0b1110, LOWEST_PRIORITY | VECTOR, true), [1], 'the least busy of some');

  /** Has that CPU execute `program`. */
  const perform = (index: number, program: readonly number[], sweepers?: number): Promise<number[]> =>
    takers(() => {
      guest.vm.pause();
      guest.ram.bytes.set([...program, ...ipi(TO_ALL | SWEEP), ...SLEEP], PROGRAM);
      guest.vm.dmaWritten(PROGRAM, 256);
      const vcpu = guest.vm.vcpus[index];
      const state = vcpu?.readState();
      if (vcpu === undefined || state === undefined) throw new Error(`no CPU ${index}`);
      const cs = { ...state.cs, selector: 0, base: 0n };
      vcpu.writeState({ ...state, rip: BigInt(PROGRAM), cs, rflags: state.rflags & ~0x200n, halted: false });
      guest.vm.start();
    }, sweepers);
  t.strictSame(await perform(3, ipi(VECTOR, 1)), [1], 'from one to another');
  t.strictSame(await perform(1, ipi(TO_SELF | VECTOR)), [1], 'to itself');
  t.strictSame(await perform(2, ipi(TO_ALL | VECTOR)), ids, 'to all');
  t.strictSame(await perform(2, ipi(TO_OTHERS | VECTOR)), [0, 1, 5], 'to the others');
  t.strictSame(await perform(0, ipi(LOGICAL | VECTOR, 0b0101)), [0, 2], 'to logical IDs');
  t.strictSame(
    await perform(2, [...apic(TPR, 0x50), ...ipi(TO_ALL | VECTOR)], 3),
    [0, 1, 5],
    'a task is more important',
  );
  t.strictSame(await perform(2, apic(TPR, 0)), [2], 'and no longer');
  t.strictSame(await perform(1, [...apic(DFR, 0x0fff_ffff), ...apic(LDR, 0x22 << 24)]), [], 'the cluster model:');
  t.strictSame(await message(0x22, VECTOR, true), [1], 'its cluster and its bit');
  t.strictSame(await message(0x32, VECTOR, true), [], 'another cluster');
  t.strictSame(await message(0x21, VECTOR, true), [0], 'another bit, and one with the flat model');
  t.strictSame(await perform(2, [...apic(SVR, 0xff), ...ipi(TO_ALL | VECTOR)], 3), [0, 1, 5], 'switched off');
});

t.test('NMIs: by message, and by the line for those that listen', async t => {
  const mark = code`50 67 66 a1 ${dword(0xfee0_0000 + ID)} 66 c1 e8 18 e6 97 58 cf`;
  const boot = [...apic(LVT_LINT1, 0x400), ...APIC_ON, ...apic(LVT_LINT1, 0x400), ...start(1), ...SLEEP];
  const guest = lab(boot, [...APIC_ON, ...code`e6 92 fa f4 eb fc`]);
  t.teardown(() => guest.vm.dispose());
  guest.ram.bytes.set(mark, 0x3800);
  setVector(guest, 2, 0x3800);
  guest.vm.start();
  await guest.seen(at(0x92));
  const both = guest.seen(at(0x97), 2);
  guest.vm.injectNmi();
  guest.vm.injectMsi(0xfee0_1000, NMI);
  await both;
  t.strictSame(
    guest.bus.accesses.filter(at(0x97)).map(({ value }) => value),
    [0, 1],
  );
});

class TwoRequests implements InterruptSource {
  requests: number[] = [];
  readonly acknowledged: number[] = [];
  #changed: () => void = () => {};
  get pending(): boolean {
    return this.requests.length > 0;
  }
  acknowledge(): number {
    const vector = Math.min(...this.requests);
    this.requests = this.requests.filter(request => request !== vector);
    this.acknowledged.push(vector);
    return vector;
  }
  onPending(changed: () => void): void {
    this.#changed = changed;
  }
  raise(vector: number): void {
    this.requests.push(vector);
    this.#changed();
  }
}

t.test("the 8259A's interrupts go to the CPU that hears them on LINT0, the most important first", async t => {
  const interrupts = new TwoRequests();
  // Interrupts wait while port 91h reads 0.
  const boot = code`e6 90 ${start(1)} e4 91 84 c0 74 fa fb f4 eb fc ; in al, 91h; test al, al; jz $-4; sti; hlt; jmp $-2`;
  const guest = lab(boot, [...APIC_ON, ...apic(LVT_LINT0, 0x1_0700), ...code`fb`, ...BUSY], { interrupts });
  t.teardown(() => guest.vm.dispose());
  for (const vector of [8, 9]) {
    guest.ram.bytes.set(code`50 b0 ${vector} e6 98 58 cf`, 0x3800 + 0x10 * vector);
    setVector(guest, vector, 0x3800 + 0x10 * vector);
  }
  guest.vm.start();
  await guest.seen(at(0x92));
  interrupts.raise(9);
  interrupts.raise(8);
  await guest.seen(at(0x92), 5);
  t.strictSame(interrupts.acknowledged, [], 'the first CPU is not ready, and the second does not listen');
  guest.bus.reads.set(0x91, 1);
  await guest.seen(at(0x98), 2);
  t.strictSame(interrupts.acknowledged, [8, 9]);
  t.strictSame(
    guest.bus.accesses.filter(at(0x98)).map(({ value }) => value),
    [8, 9],
  );
});

t.test('a level-triggered interrupt ends where it came from', async t => {
  const ended: number[] = [];
  const guest = lab([...APIC_ON, ...start(1), ...SLEEP], [...APIC_ON, ...code`e6 92`, ...SLEEP], {
    endOfInterrupt: vector => ended.push(vector),
  });
  t.teardown(() => guest.vm.dispose());
  guest.vm.start();
  await guest.seen(at(0x92));
  const edge = VECTOR;
  const level = 0xc000 | VECTOR;
  for (const [data, before] of [
    [edge, []],
    [edge, []],
    [level, undefined],
    [edge, [VECTOR]],
  ] as const) {
    const told = guest.seen(at(0x93));
    guest.vm.injectMsi(0xfee0_1000, data);
    t.equal((await told).value, 1);
    if (before !== undefined) t.strictSame(ended, before);
  }
});

t.test('each CPU has its own timer', async t => {
  const clock = new VirtualClock(() => 0);
  const timer = (register: number): number[] => [
    ...apic(LVT_TIMER, 0x2_0000 | VECTOR),
    ...apic(INITIAL_COUNT, register),
  ];
  const guest = lab(
    [...APIC_ON, ...start(1), ...timer(3_000_000), ...SLEEP],
    [...APIC_ON, ...timer(1_000_000), ...code`e6 92`, ...SLEEP],
    { clock: { ...noTimers, virtual: clock }, icount: { shift: 3, sleep: false } },
  );
  t.teardown(() => guest.vm.dispose());
  clock.resume();
  guest.vm.start();
  await guest.seen(at(0x93), 40);
  guest.vm.pause();
  const told = guest.bus.accesses.filter(at(0x93)).map(({ value }) => value);
  const second = told.filter(id => id === 1).length;
  t.ok(Math.abs(second - 30) <= 2, `the second has ${second} of 40, at three times the rate`);
});

t.test('a run that counts instructions repeats itself', async t => {
  const run = async (): Promise<string> => {
    const clock = new VirtualClock(() => 0);
    // Each counts in a word of its own and shows it now and then; the first interrupts the second.
    const count = (port: number): number[] => code`66 43 66 f7 c3 ff ff 03 00 75 f5 66 89 d8 66 e7 ${port}`;
    const first = [...count(0x98), ...ipi(VECTOR, 1)];
    const second = count(0x99);
    const guest = lab(
      [...APIC_ON, ...start(1), ...first, ...code`e9 ${word(-first.length - 3)}`],
      [...APIC_ON, ...code`fb`, ...second, ...code`eb ${-second.length - 2}`],
      { clock: { ...noTimers, virtual: clock }, icount: { shift: 3, sleep: false } },
    );
    clock.resume();
    guest.vm.start();
    await guest.seen(at(0x99), 30);
    guest.vm.dispose();
    return guest.bus.accesses
      .slice(0, 80)
      .map(({ address, value }) => `${address.toString(16)}=${value}`)
      .join(' ');
  };
  const once = await run();
  t.match(once, / 98=.* 93=1 .*99=/);
  t.equal(await run(), once);
});

t.test('a reset starts all over: the others wait again', async t => {
  const guest = lab([...start(1), ...code`e6 90 eb fc`], BUSY);
  t.teardown(() => guest.vm.dispose());
  guest.vm.start();
  for (let round = 0; round < 3; round++) {
    await guest.seen(at(0x92), 2);
    let once = true;
    await guest.seen(access => {
      if (access.address !== 0x91 || !once) return false;
      once = false;
      guest.vm.reset();
      return true;
    });
  }
  guest.vm.pause();
  guest.vm.reset();
  t.match(guest.vm.vcpus[1]?.readState(), { cs: { base: 0xffff_0000n }, rip: 0xfff0n });
  guest.vm.start();
  await guest.seen(at(0x92), 2);
  guest.vm.pause();
  t.equal(guest.vm.vcpus[1]?.readState().cs.base, 0x2000n);
});

t.test('INIT keeps the x87 FPU, and stops a CPU until the next start-up message', async t => {
  const boot = code`${start(1)} e4 91 84 c0 74 fa ${start(1)} ${SLEEP} ; in al, 91h; test al, al; jz $-4`;
  const second = code`
    e4 95 84 c0 74 0b                     ; in al, 95h; test al, al; jz past the next line
    d9 1e 00 2a 66 a1 00 2a 66 e7 94      ; fstp dword [2a00h]; mov eax, [2a00h]; out 94h, eax
    db e3 d9 e8 e6 92 eb fc               ; fninit; fld1; out 92h, al; jmp $-2
  `;
  const guest = lab(boot, second);
  t.teardown(() => guest.vm.dispose());
  guest.vm.start();
  await guest.seen(at(0x92), 3);
  const restarted = guest.seen(at(0x94));
  guest.bus.reads.set(0x95, 1);
  guest.bus.reads.set(0x91, 1);
  t.equal((await restarted).value, 0x3f80_0000, '1.0');
});

t.test('saved state of all CPUs goes on where it was, in another VM', async t => {
  const options = { cpus: 3 };
  // The first counts, the second counts with a timer running, the third waits to be started.
  const count = (port: number): number[] => code`66 43 66 89 d8 66 e7 ${port} eb f6`;
  const boot = [...APIC_ON, ...start(1), ...count(0x98)];
  const second = [...APIC_ON, ...apic(LVT_TIMER, 0x2_0000 | VECTOR), ...apic(INITIAL_COUNT, 1_000_000), 0xfb];
  const one = lab(boot, [...second, ...count(0x99)], options);
  one.vm.start();
  await one.seen(at(0x99), 100);
  await one.seen(at(0x98), 10);
  one.vm.pause();
  const state = one.vm.saveState();
  const values = [0x98, 0x99].map(port => one.bus.accesses.findLast(at(port))?.value ?? 0);

  const two = lab([], [], options);
  two.ram.bytes.set(one.ram.bytes.subarray(0, 0xa_0000));
  two.vm.restoreState(state);
  for (const [index, vcpu] of two.vm.vcpus.entries())
    t.strictSame(vcpu.readState(), one.vm.vcpus[index]?.readState(), `CPU ${index}`);
  two.vm.start();
  await two.seen(at(0x98), 10);
  await two.seen(at(0x99), 10);
  await two.seen(at(0x93), 2);
  two.vm.pause();
  for (const [index, port] of [0x98, 0x99].entries())
    t.ok((two.bus.accesses.find(at(port))?.value ?? 0) - (values[index] ?? 0) <= 1, `CPU ${index} goes on counting`);
  t.throws(() => one.vm.restoreState(state.subarray(1)), { code: 'ERR_STATE_FORMAT' });
  t.throws(() => lab([], [], { cpus: 2 }).vm.restoreState(state), { code: 'ERR_STATE_FORMAT' });
  one.vm.dispose();
  two.vm.dispose();
});

t.test('a debugger stops and steps each CPU', async t => {
  let stopped: (stop: VmStop) => void = () => {};
  const guest = lab([...start(1), ...code`e6 90 eb fc`], BUSY, { stopped: stop => stopped(stop) });
  t.teardown(() => guest.vm.dispose());
  const go = (options: Partial<DebugOptions>, stepped?: number): Promise<VmStop> => {
    for (const vcpu of guest.vm.vcpus)
      vcpu.setDebug?.({ singleStep: vcpu.index === stepped, softwareBreakpoints: false, hardware: [], ...options });
    return new Promise(resolve => {
      stopped = resolve;
      guest.vm.start();
    });
  };
  const breakAt = (address: number): Partial<DebugOptions> => ({
    hardware: [{ kind: 'execute', address: BigInt(address), length: 1 }],
  });
  guest.vm.start();
  await guest.seen(at(0x92), 2);
  guest.vm.pause();
  t.match(await go(breakAt(SECOND_CODE + 2)), { cpu: 1, address: SECOND_CODE + 2, trap: { kind: 'hardware' } });
  const first = guest.vm.vcpus[0]?.readState();
  t.match(await go({}, 1), { cpu: 1, address: SECOND_CODE + 4, trap: { kind: 'step' } });
  t.match(await go({}, 1), { cpu: 1, address: SECOND_CODE });
  t.strictSame(guest.vm.vcpus[0]?.readState(), first, 'the other stands still');
  const loop = 0x1000 + start(1).length;
  t.match(await go(breakAt(loop)), { cpu: 0, address: loop });
  t.match(await go(breakAt(loop)), { cpu: 0, address: loop }, 'once around');
  t.match(await go({}, 0), { cpu: 0, address: loop + 2 });
  const access = { kind: 'write', address: 0x2a00n, length: 1 } as const;
  guest.vm.pause();
  guest.ram.bytes.set(code`fe 06 00 2a eb fa ; inc byte [2a00h]; jmp $-4`, SECOND_CODE + 4);
  guest.vm.dmaWritten(SECOND_CODE, 16);
  t.match(await go({ hardware: [access] }), { cpu: 1, trap: { kind: 'hardware', index: 0 } });
  for (const vcpu of guest.vm.vcpus) vcpu.setDebug?.(undefined);
  guest.vm.start();
  await guest.seen(at(0x90), 3);
});

t.test('a triple fault of one stops the machine, and a reset brings it back', async t => {
  let stopped: (stop: VmStop) => void = () => {};
  // lidt [a table of no entries]; int3
  const guest = lab([...start(1), ...code`e6 90 eb fc`], code`2e 0f 01 1e 00 2a e4 91 84 c0 75 fa cc`, {
    stopped: stop => stopped(stop),
  });
  t.teardown(() => guest.vm.dispose());
  // Protected mode, where the module looks at the table's limit.
  guest.ram.bytes.set(
    code`66 b8 01 00 00 00 0f 22 c0 0f 01 1e 00 2a cc ; mov cr0, PE; lidt [2a00h]; int3`,
    SECOND_CODE,
  );
  const stop = new Promise<VmStop>(resolve => {
    stopped = resolve;
  });
  guest.vm.start();
  t.match(await stop, { reason: 'shutdown', cpu: 1 });
  guest.ram.bytes.set(BUSY, SECOND_CODE);
  guest.vm.reset();
  guest.vm.start();
  await guest.seen(at(0x92), 3);
  await guest.seen(at(0x90), 3);
});
