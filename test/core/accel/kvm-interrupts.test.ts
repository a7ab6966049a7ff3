import t from 'tap';
import type { InterruptSource } from '../../../core/accel/accelerator.ts';
import { at, lab, noKvm, setVector } from './kvm-lab.ts';

const HANDLER = 0x1100;
const MARK = 0x99;

/** Real mode: sti; hlt for ever. */
const SLEEP = [0xfb, 0xf4, 0xeb, 0xfd];
/** out MARK, al; mov al, 20h; out 20h, al; iret */
const MARK_AND_EOI = [0xe6, MARK, 0xb0, 0x20, 0xe6, 0x20, 0xcf];
/** Both i8259s: ICW1 to ICW4 with vectors from 8 and 70h, all inputs open (8259A datasheet). */
const PIC_SETUP = [
  [0x20, 0x11],
  [0x21, 0x08],
  [0x21, 0x04],
  [0x21, 0x01],
  [0x21, 0x00],
  [0xa0, 0x11],
  [0xa1, 0x70],
  [0xa1, 0x02],
  [0xa1, 0x01],
  [0xa1, 0x00],
].flatMap(([port = 0, value = 0]) => [0xb0, value, 0xe6, port]);

t.test("an edge on the kernel's PIC reaches a halted guest, and again", { skip: noKvm }, async t => {
  const guest = lab([...PIC_SETUP, 0xe6, 0x90, ...SLEEP], { pit: false });
  t.teardown(() => guest.vm.dispose());
  setVector(guest.ram, 0x0d, HANDLER);
  guest.ram.bytes.set(MARK_AND_EOI, HANDLER);
  guest.vm.start();
  await guest.seen(at(0x90));
  for (let round = 0; round < 3; round++) {
    const marked = guest.seen(at(MARK));
    guest.vm.setIrq(5, true);
    guest.vm.setIrq(5, false);
    await marked;
  }
  t.equal(guest.bus.accesses.filter(at(MARK)).length, 3);
});

t.test("the kernel's PIT ticks", { skip: noKvm }, async t => {
  const start = [0xb0, 0x34, 0xe6, 0x43, 0xb0, 0xa9, 0xe6, 0x40, 0xb0, 0x04, 0xe6, 0x40]; // channel 0, mode 2, 1193: 1 kHz
  const guest = lab([...PIC_SETUP, ...start, ...SLEEP]);
  t.teardown(() => guest.vm.dispose());
  setVector(guest.ram, 0x08, HANDLER);
  guest.ram.bytes.set(MARK_AND_EOI, HANDLER);
  const ticks = guest.seen(at(MARK), 50);
  guest.vm.start();
  await ticks;
  t.pass('50 ticks');
});

class OneInterrupt implements InterruptSource {
  pending = false;
  acknowledged = 0;
  #changed: () => void = () => {};
  acknowledge(): number {
    this.pending = false;
    this.acknowledged++;
    return 0x21;
  }
  onPending(changed: () => void): void {
    this.#changed = changed;
  }
  raise(): void {
    this.pending = true;
    this.#changed();
  }
}

for (const [name, loop] of [
  ['halted', SLEEP],
  ['spinning', [0xfb, 0xeb, 0xfe]],
] as const) {
  t.test(`our own irqchip interrupts a ${name} guest`, { skip: noKvm }, async t => {
    const interrupts = new OneInterrupt();
    const guest = lab([0xfa, 0xe6, 0x90, ...loop], { irqchip: false, interrupts });
    t.teardown(() => guest.vm.dispose());
    setVector(guest.ram, 0x21, HANDLER);
    guest.ram.bytes.set([0xe6, MARK, 0xcf], HANDLER);
    guest.vm.start();
    await guest.seen(at(0x90));
    for (let round = 0; round < 3; round++) {
      const marked = guest.seen(at(MARK));
      interrupts.raise();
      await marked;
    }
    t.equal(interrupts.acknowledged, 3);
    t.equal(guest.bus.accesses.filter(at(MARK)).length, 3);
    guest.vm.pause();
    const wasHalted = guest.vm.vcpus[0]?.halted;
    if (name === 'halted') t.type(wasHalted, 'boolean');
  });
}

t.test('an interrupt raised by an exit waits until the guest takes interrupts', { skip: noKvm }, async t => {
  const interrupts = new OneInterrupt();
  const guest = lab([0xfa, 0xe6, 0x90, 0xe6, 0x91, ...SLEEP], { irqchip: false, interrupts });
  t.teardown(() => guest.vm.dispose());
  setVector(guest.ram, 0x21, HANDLER);
  guest.ram.bytes.set([0xe6, MARK, 0xcf], HANDLER);
  const order: number[] = [];
  const marked = guest.seen(access => {
    order.push(access.address);
    if (access.address === 0x90) interrupts.raise();
    return access.address === MARK;
  });
  guest.vm.start();
  await marked;
  t.same(order, [0x90, 0x91, MARK]);
});

t.test('an NMI reaches the guest though it takes no interrupts', { skip: noKvm }, async t => {
  const guest = lab([0xfa, 0xe6, 0x90, 0xf4, 0xeb, 0xfd]);
  t.teardown(() => guest.vm.dispose());
  setVector(guest.ram, 2, HANDLER);
  guest.ram.bytes.set([0xe6, MARK, 0xcf], HANDLER);
  guest.vm.start();
  await guest.seen(at(0x90));
  const marked = guest.seen(at(MARK));
  guest.vm.injectNmi();
  await marked;
  t.pass('handled');
});

t.test('a reset brings the power-on state back, from outside and from inside an exit', { skip: noKvm }, async t => {
  const guest = lab([0x66, 0xb8, ...[0x78, 0x56, 0x34, 0x12], 0xe6, 0x90, 0xeb, 0xfe]);
  t.teardown(() => guest.vm.dispose());
  let again = guest.seen(at(0x90), 3);
  guest.vm.start();
  guest.bus.onAccess = (inner => access => {
    if (guest.bus.accesses.length === 1) guest.vm.reset();
    inner(access);
  })(guest.bus.onAccess);
  await new Promise(done => setTimeout(done, 20));
  t.equal(guest.bus.accesses.length, 2, 'the exit that reset the VM, and the one after it');
  guest.vm.reset();
  await again;
  again = guest.seen(at(0x90));
  guest.vm.pause();
  guest.vm.reset();
  const state = guest.vm.vcpus[0]?.readState();
  t.equal(state?.rip, 0xfff0n);
  t.equal(state?.cs.base, 0xffff_0000n);
  t.equal(state?.gpr[0], 0n);
  t.equal((state?.gpr[2] ?? 0n) & 0xf00n, 0xf00n, 'EDX holds the signature');
  guest.vm.start();
  await again;
});
