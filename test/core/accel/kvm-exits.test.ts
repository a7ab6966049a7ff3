import t from 'tap';
import { CODE, lab, noKvm } from './kvm-lab.ts';

t.test('port accesses of every width and direction exit with their values', { skip: noKvm }, async t => {
  const { vm, bus, seen } = lab([
    0xb0,
    0x5a, // mov al, 5ah
    0xe6,
    0x80, // out 80h, al
    0xb8,
    0x34,
    0x12,
    0xe7,
    0x82, // mov ax, 1234h; out 82h, ax
    0x66,
    0xb8,
    0xef,
    0xbe,
    0xad,
    0xde,
    0x66,
    0xe7,
    0x84, // mov eax, deadbeefh; out 84h, eax
    0x66,
    0xe5,
    0x90, // in eax, 90h
    0x66,
    0xe7,
    0x94, // out 94h, eax
    0xe4,
    0x91,
    0xe6,
    0x95, // in al, 91h; out 95h, al
    0xf4,
  ]);
  t.teardown(() => vm.dispose());
  bus.reads.set(0x90, 0xfedc_ba98);
  bus.reads.set(0x91, 0x77);
  const last = seen(access => access.address === 0x95);
  vm.start();
  await last;
  vm.pause();
  t.same(bus.accesses, [
    { kind: 'out', address: 0x80, size: 1, value: 0x5a },
    { kind: 'out', address: 0x82, size: 2, value: 0x1234 },
    { kind: 'out', address: 0x84, size: 4, value: 0xdead_beef },
    { kind: 'in', address: 0x90, size: 4, value: 0xfedc_ba98 },
    { kind: 'out', address: 0x94, size: 4, value: 0xfedc_ba98 },
    { kind: 'in', address: 0x91, size: 1, value: 0x77 },
    { kind: 'out', address: 0x95, size: 1, value: 0x77 },
  ]);
  t.equal(vm.vcpus[0]?.readState().gpr[0], 0xfedc_ba77n);
});

t.test('a paused vCPU has its instruction finished', { skip: noKvm }, async t => {
  const { vm, bus, seen } = lab([0xe4, 0x99, 0xeb, 0xfc]); // in al, 99h; jmp $-2
  t.teardown(() => vm.dispose());
  bus.reads.set(0x99, 0x99);
  const first = seen(() => true);
  vm.start();
  await first;
  vm.pause();
  const state = vm.vcpus[0]?.readState();
  t.equal((state?.gpr[0] ?? 0n) & 0xffn, 0x99n);
  t.ok(state?.rip === BigInt(CODE) || state?.rip === BigInt(CODE + 2));
});
