import t from 'tap';
import { code, dword } from '../../machine-code.ts';
import { at, lab, noKvm } from './kvm-lab.ts';

/** mov ecx, msr; mov eax, low; mov edx, high; wrmsr */
const wrmsr = (msr: number, low: number, high: number): number[] => code`
  66 b9 ${dword(msr)} 66 b8 ${dword(low)} 66 ba ${dword(high)} 0f 30
`;

const APIC_BASE = 0x1b;
const X2APIC_ICR = 0x830;
const INIT = 0x4500;
const SIPI_AT_2000 = 0x4602;
/**
 * CPU 0 turns its x2APIC on, starts the CPU with that APIC ID at 0000:2000 (Intel SDM volume 3, section 9.4.4) and writes
 * port 90h for ever.
 */
const boot = (apicId: number): number[] => code`
  ${wrmsr(APIC_BASE, 0xfee0_0d00, 0)} ${wrmsr(X2APIC_ICR, INIT, apicId)} ${wrmsr(X2APIC_ICR, SIPI_AT_2000, apicId)}
  e6 90 eb fc  ; out 90h, al; jmp $-2
`;
/** CPU 1: in al, 91h; out 92h, al; for ever. */
const SECOND = [0xe4, 0x91, 0xe6, 0x92, 0xeb, 0xfa];

t.test('two CPUs run side by side, stop together and go on', { skip: noKvm }, async t => {
  const guest = lab(boot(1), { cpus: 2 });
  t.teardown(() => guest.vm.dispose());
  guest.ram.bytes.set(SECOND, 0x2000);
  guest.bus.reads.set(0x91, 0x5c);
  guest.vm.start();
  await guest.seen(at(0x92), 20);
  await guest.seen(at(0x90), 20);
  guest.vm.pause();
  const count = guest.bus.accesses.length;
  const second = guest.vm.vcpus[1]?.readState();
  t.equal(second?.cs.base, 0x2000n);
  t.equal((second?.gpr[0] ?? 0n) & 0xffn, 0x5cn, 'its instruction is finished');
  await new Promise(done => setTimeout(done, 20));
  t.equal(guest.bus.accesses.length, count, 'nobody runs while paused');
  guest.vm.start();
  await guest.seen(at(0x92), 5);
  t.ok(guest.bus.accesses.filter(at(0x92)).every(access => access.value === 0x5c));
});

t.test('state can be read and an NMI sent while both run', { skip: noKvm }, async t => {
  const guest = lab(boot(1), { cpus: 2 });
  t.teardown(() => guest.vm.dispose());
  guest.ram.bytes.set(SECOND, 0x2000);
  guest.ram.bytes.set([0, 0x21, 0, 0], 4 * 2);
  guest.ram.bytes.set([0xe6, 0x93, 0xcf], 0x2100);
  guest.vm.start();
  await guest.seen(at(0x92), 3);
  for (let round = 0; round < 20; round++) {
    t.equal(guest.vm.vcpus[1]?.readState().cs.base, 0x2000n);
    await guest.seen(at(0x92));
  }
  const marked = guest.seen(at(0x93), 2);
  guest.vm.injectNmi();
  await marked;
});

t.test('a CPU that resets the machine from an exit starts it all over', { skip: noKvm }, async t => {
  const guest = lab(boot(1), { cpus: 2 });
  t.teardown(() => guest.vm.dispose());
  guest.ram.bytes.set(SECOND, 0x2000);
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
  await guest.seen(at(0x92), 2);
  guest.vm.pause();
  t.equal(guest.vm.vcpus[1]?.readState().cs.base, 0x2000n);
});

t.test('a CPU answers to the APIC ID that its place gives it', { skip: noKvm }, async t => {
  const guest = lab(boot(4), { cpus: 2, apicIds: [0, 4] });
  t.teardown(() => guest.vm.dispose());
  guest.ram.bytes.set(SECOND, 0x2000);
  guest.vm.start();
  await guest.seen(at(0x92), 3);
  t.equal(guest.vm.vcpus[1]?.readState().cs.base, 0x2000n);
});
