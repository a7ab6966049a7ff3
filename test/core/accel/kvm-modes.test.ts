import t from 'tap';
import type { CpuState } from '../../../core/accel/cpu-state.ts';
import { code } from '../../machine-code.ts';
import { at, CODE, type Lab, lab, noKvm } from './kvm-lab.ts';

const PML4 = 0x2000;
const PDPT = 0x3000;
const PD = 0x4000;
const PRESENT_WRITABLE = 3;
const LARGE = 0x80;
const FOUR_GIB = 2 ** 32;

/** Puts the CPU into 64-bit mode at ring 0 with the first 2 MiB, and 2 MiB of devices at `gpa`, mapped at their own addresses. */
function enterLongMode({ ram, vm }: Lab, gpa: number): void {
  const entry = (table: number, index: number, value: number): void => {
    ram.view.setUint32(table + 8 * index, value >>> 0, true);
    ram.view.setUint32(table + 8 * index + 4, Math.floor(value / FOUR_GIB), true);
  };
  entry(PML4, 0, PDPT | PRESENT_WRITABLE);
  entry(PDPT, 0, PD | PRESENT_WRITABLE);
  entry(PDPT, Math.floor(gpa / 2 ** 30), (PD + 0x1000) | PRESENT_WRITABLE);
  entry(PD, 0, LARGE | PRESENT_WRITABLE);
  entry(PD + 0x1000, Math.floor(gpa / 2 ** 21) % 512, gpa + (LARGE | PRESENT_WRITABLE));
  const [cpu] = vm.vcpus;
  if (cpu === undefined) throw new Error('no CPU');
  const data = { selector: 16, base: 0n, limit: 0xffff_ffff, attributes: 0xc093, unusable: false };
  const state: CpuState = {
    ...cpu.readState(),
    rip: BigInt(CODE),
    cs: { selector: 8, base: 0n, limit: 0xffff_ffff, attributes: 0xa09b, unusable: false },
    ds: data,
    es: data,
    ss: data,
    cr0: 0x8000_0011n,
    cr3: BigInt(PML4),
    cr4: 0x20n,
    efer: 0x500n,
  };
  cpu.writeState(state);
}

t.test(
  '64-bit ring 0: ports, and memory far above 4 GiB with accesses of 8 bytes in two halves',
  { skip: noKvm },
  async t => {
    const device = 0x48_0000_0000;
    const guest = lab(code`
    48 b8 08 00 00 00 48 00 00 00  ; mov rax, device + 8
    48 8b 18                       ; mov rbx, [rax]
    48 89 58 08                    ; mov [rax+8], rbx
    88 18                          ; mov [rax], bl
    b0 5a e6 90 f4 eb fd           ; mov al, 5ah; out 90h, al; hlt
  `);
    t.teardown(() => guest.vm.dispose());
    enterLongMode(guest, device);
    guest.bus.reads.set(device + 8, 0x89ab_cdef);
    guest.bus.reads.set(device + 12, 0xfedc_ba98);
    guest.vm.start();
    await guest.seen(at(0x90));
    guest.vm.pause();
    t.same(guest.bus.accesses, [
      { kind: 'read', address: device + 8, size: 4, value: 0x89ab_cdef },
      { kind: 'read', address: device + 12, size: 4, value: 0xfedc_ba98 },
      { kind: 'write', address: device + 16, size: 4, value: 0x89ab_cdef },
      { kind: 'write', address: device + 20, size: 4, value: 0xfedc_ba98 },
      { kind: 'write', address: device + 8, size: 1, value: 0xef },
      { kind: 'out', address: 0x90, size: 1, value: 0x5a },
    ]);
    const [cpu] = guest.vm.vcpus;
    t.equal(cpu?.readState().gpr[3], 0xfedc_ba98_89ab_cdefn);
    t.equal(cpu?.translate?.(BigInt(device + 0x1234)), device + 0x1234);
    t.equal(cpu?.translate?.(0x1_4000_0000n), undefined);
  },
);

t.test('a debugger steps, stops at its breakpoint, and lets the guest go on', { skip: noKvm }, async t => {
  const guest = lab(code`
    40 40 40 90     ; inc ax, three times; nop
    e6 90 eb fc     ; out 90h, al; jmp $-2
  `);
  t.teardown(() => guest.vm.dispose());
  const [cpu] = guest.vm.vcpus;
  if (cpu === undefined) throw new Error('no CPU');
  const state = cpu.readState();
  cpu.writeState({ ...state, rip: BigInt(CODE), cs: { ...state.cs, selector: 0, base: 0n } });

  cpu.setDebug?.({ singleStep: true, softwareBreakpoints: true, hardware: [] });
  guest.vm.start();
  const step = await guest.stopped;
  t.equal(step.reason, 'debug');
  t.same('trap' in step ? step.trap : undefined, { kind: 'step' });
  t.equal(cpu.readState().rip, BigInt(CODE + 1));
  t.equal(cpu.readState().gpr[0], 1n);

  cpu.setDebug?.({
    singleStep: false,
    softwareBreakpoints: true,
    hardware: [
      { kind: 'write', address: 0x5000n, length: 4 },
      { kind: 'execute', address: BigInt(CODE + 3), length: 1 },
    ],
  });
  const next = guest.nextStop();
  guest.vm.start();
  const hit = await next;
  t.same('trap' in hit ? hit.trap : undefined, { kind: 'hardware', index: 1 });
  t.equal(cpu.readState().rip, BigInt(CODE + 3));

  cpu.setDebug?.(undefined);
  const out = guest.seen(at(0x90));
  guest.vm.start();
  t.equal((await out).value, 3);
  guest.vm.pause();
  t.throws(
    () =>
      cpu.setDebug?.({
        singleStep: false,
        softwareBreakpoints: false,
        hardware: [{ kind: 'write', address: 0n, length: 3 }],
      }),
    {
      code: 'ERR_BREAKPOINTS',
    },
  );
});
