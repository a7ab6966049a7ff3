import t from 'tap';
import { code, dword } from '../../machine-code.ts';
import { at, lab, noKvm } from './kvm-lab.ts';

/** Has the guest execute CPUID and send EAX, EBX, ECX and EDX to port 90h. */
const ask = (leaf: number): number[] => code`
  66 b8 ${dword(leaf)} 66 31 c9 0f a2  ; mov eax, leaf; xor ecx, ecx; cpuid
  66 e7 90 66 89 d8 66 e7 90           ; out 90h, eax; mov eax, ebx; out 90h, eax
  66 89 c8 66 e7 90 66 89 d0 66 e7 90  ; the same with ecx and edx
`;
const HALT = code`f4 eb fd`;
const BASIC = [0, 1] as const;

async function answers(leaves: readonly number[], options: Parameters<typeof lab>[1]): Promise<Map<number, number[]>> {
  const guest = lab([...leaves.flatMap(ask), ...HALT], options);
  try {
    const all = guest.seen(at(0x90), 4 * leaves.length);
    guest.vm.start();
    await all;
    const values = guest.bus.accesses.filter(at(0x90)).map(access => access.value);
    return new Map(leaves.map((leaf, index) => [leaf, values.slice(4 * index, 4 * index + 4)]));
  } finally {
    guest.vm.dispose();
  }
}

for (const [model, signature] of [
  ['qemu64', 0x60fb1],
  ['kvm64', 0xf61],
  ['Nehalem', 0x106a3],
] as const) {
  t.test(`a guest on ${model} finds its signature, only its features, and KVM`, { skip: noKvm }, async t => {
    const found = await answers([...BASIC, 0x4000_0000], { cpuModel: model });
    const [eax = 0, , ecx = 0, edx = 0] = found.get(1) ?? [];
    t.equal(eax, signature);
    t.equal(ecx >>> 31, 1, 'a hypervisor');
    t.equal((edx >>> 9) & 1, 1, 'a local APIC');
    t.equal((ecx >>> 5) & 1, 0, 'no VMX');
    t.equal((ecx >>> 3) & 1, 0, 'no MONITOR');
    t.same(found.get(0x4000_0000)?.slice(1), [0x4b4d_564b, 0x564b_4d56, 0x4d], 'KVMKVMKVM');
  });
}
