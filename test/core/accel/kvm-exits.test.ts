import t from 'tap';
import { code } from '../../machine-code.ts';
import { CODE, lab, noKvm } from './kvm-lab.ts';

t.test('port accesses of every width and direction exit with their values', { skip: noKvm }, async t => {
  const { vm, bus, seen } = lab(code`
    b0 5a                       ; mov al, 5ah
    e6 80                       ; out 80h, al
    b8 34 12 e7 82              ; mov ax, 1234h; out 82h, ax
    66 b8 ef be ad de 66 e7 84  ; mov eax, deadbeefh; out 84h, eax
    66 e5 90                    ; in eax, 90h
    66 e7 94                    ; out 94h, eax
    e4 91 e6 95                 ; in al, 91h; out 95h, al
    f4
  `);
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
