import t from 'tap';
import type { DebugOptions, VmStop } from '../../../core/accel/accelerator.ts';
import { measure } from '../../../core/accel/wasm/instruction-length.ts';
import { type Lab, lab } from './wasm-lab.ts';

const bytes = (hex: string): number[] => [...Buffer.from(hex.replace(/\/\/.*$/gm, '').replaceAll(/\s/g, ''), 'hex')];
const STEP: DebugOptions = { singleStep: true, softwareBreakpoints: false, hardware: [] };

interface DebugLab extends Lab {
  /** Lets the guest run until it stops. */
  go(options?: DebugOptions): Promise<VmStop>;
  readonly eip: number;
}

function debugLab(code: readonly number[]): DebugLab {
  let stopped: (stop: VmStop) => void = () => {};
  const guest = lab(code, { stopped: stop => stopped(stop) });
  const [cpu] = guest.vm.vcpus;
  return {
    ...guest,
    go(options) {
      if (options !== undefined) cpu?.setDebug?.(options);
      return new Promise(resolve => {
        stopped = resolve;
        guest.vm.start();
      });
    },
    get eip() {
      const state = cpu?.readState();
      return Number((state?.cs.base ?? 0n) + (state?.rip ?? 0n));
    },
  };
}

/** Steps through the guest; gives the linear addresses of the instructions, from the reset vector on. */
async function trace(guest: DebugLab, steps: number): Promise<number[]> {
  const path: number[] = [];
  for (let count = 0; count < steps; count++) {
    const stop = await guest.go(count === 0 ? STEP : undefined);
    t.match(stop, { reason: 'debug', trap: { kind: 'step' }, address: guest.eip });
    path.push(guest.eip);
  }
  return path;
}

t.test('lengths of instructions', async t => {
  const code = (hex: string): Uint8Array => Uint8Array.from([...bytes(hex), ...new Array<number>(16).fill(0)]);
  for (const hex of [
    '90',
    '04 05',
    '05 01020304',
    '8b 45 08',
    '8b 84 24 00010000',
    '8b 04 8d 00000100',
    '8b 05 00000100',
    '80 3d 00000100 05',
    '66 b8 3412',
    'f6 05 00000100 01',
    'f7 d0',
    'f7 00 01020304',
    'c8 1000 00',
    '9a 01020304 0800',
    'a1 00000100',
    '67 a1 0001',
    '0f 84 00000000',
    '0f a2',
    '0f 20 c0',
    '0f ba e0 05',
    '0f c7 f0',
    '0f 38 00 05 00000100',
    '0f 3a 0f c1 05',
    'f3 0f 6f 44 24 10',
    '65 a1 14000000',
    'f0 0f b1 0b',
    '0f 18 00',
    '0f 1f 84 00 00000000',
    '69 c0 6d4ec641',
    '6b c0 05',
    'c7 44 24 04 01000000',
    'ff 14 85 00000100',
    'dd 45 f8',
    '0f 0b',
    'c2 0400',
    '0f ae f0',
    '0f 77',
    '0f c8',
    '68 01000000',
    '6a 01',
    'ea 00100000 0800',
  ]) {
    t.equal(measure(code(hex), true).length, bytes(hex).length, hex);
  }
  for (const hex of [
    'ea 00100000',
    'b8 3412',
    '66 b8 01020304',
    'a1 0001',
    '8b 46 02',
    '8b 1e 0001',
    '67 8b 04 24',
    'e9 0001',
    '0f 01 1e 0030',
  ]) {
    t.equal(measure(code(hex), false).length, bytes(hex).length, hex);
  }
});

t.test('single steps in real mode: each instruction once, wherever it leads', async t => {
  const guest = debugLab(
    bytes(`
    b9 0200       // 1000 mov cx, 2
    41            // 1003 inc cx
    e2 fd         // 1004 loop 1003h: each pass decrements what 1003 increments
    eb fe         // 1006
  `),
  );
  const path = await trace(guest, 1 + 6);
  t.same(path, [0x1000, 0x1003, 0x1004, 0x1003, 0x1004, 0x1003, 0x1004]);
  guest.ram.bytes.set(
    bytes(`
    e8 0500       // 1004 call 100ch
    cd 80         // 1007 int 80h
    e2 fe         // 1009 loop $
    f4            // 100b
    50 58         // 100c push, pop
    be 0410       // 100e mov si, 1004h: its own page
    ad            // 1011 lodsw
    c3            // 1012
  `),
    0x1004,
  );
  guest.ram.bytes.set([0x00, 0x20, 0, 0], 4 * 0x80);
  guest.ram.bytes.set(
    bytes(`
    b9 0300       // 2000 mov cx, 3
    bf 0050       // 2003 mov di, 5000h
    f3 aa         // 2006 rep stosb
    b9 0200       // 2008
    cf            // 200b
  `),
    0x2000,
  );
  t.same(
    await trace(guest, 17),
    [
      0x100c, 0x100d, 0x100e, 0x1011, 0x1012, 0x1007, 0x2000, 0x2003, 0x2006, 0x2008, 0x200b, 0x1009, 0x1009, 0x100b,
      0x100c, 0x100c, 0x100c,
    ].slice(0, 17),
  );
  const state = guest.vm.vcpus[0]?.readState();
  t.equal((state?.gpr[0] ?? 0n) & 0xffffn, 0x05e8n, 'LODSW read the code as data');
  t.equal(state?.halted, true, 'and HLT halts, for as many steps as one likes');
  t.same(guest.ram.bytes.subarray(0x5000, 0x5004), Uint8Array.of(0xe8, 0xe8, 0xe8, 0));
  guest.vm.dispose();
});

/** Into protected mode with paging: 4 MiB identity, code at 1100h. */
const PROTECTED = bytes(`
  fa 0f 01 16 0030              // cli; lgdt [3000h]
  66 b8 00400000 0f 22 d8       // mov cr3, 4000h
  66 b8 10000000 0f 22 e0       // CR4.PSE
  0f 20 c0 66 0d 01000080 0f 22 c0 // CR0.PG, PE
  66 ea 00110000 0800           // jmp 8:1100h
`);
const TABLES: readonly (readonly [number, number[]])[] = [
  [0x3000, bytes('1700 1030 0000')],
  [0x3010, bytes('0000000000000000 ffff0000009acf00 ffff00000092cf00')],
  [0x4000, bytes('83000000')],
  [0x3100, bytes('ff07 0032 0000')],
];

t.test('single steps, breakpoints and watchpoints with paging', async t => {
  const guest = debugLab(PROTECTED);
  for (const [at, table] of TABLES) guest.ram.bytes.set(table, at);
  guest.ram.bytes.set(
    bytes(`
    66 b8 1000 8e d8 8e d0 bc 00800000 // 1100 mov ax, 10h; ds, ss; 1108 mov esp, 8000h
    31 c9                         // 110d xor ecx, ecx
    41                            // 110f inc ecx
    89 0d 00500000                // 1110 mov [5000h], ecx
    81 f9 00001000                // 1116 cmp ecx, 100000h
    75 f1                         // 111c jne 110fh
    cc                            // 111e
    a1 00500000                   // 111f mov eax, [5000h]
    0f 01 1d 00310000 cc          // 1124 lidt [3100h]; 112b int3
    e9 ff0f0000                   // 112c jmp 2130h
  `),
    0x1100,
  );
  guest.ram.bytes.set(bytes('0011 0800 008e 0000'), 0x3200 + 24);
  const path = await trace(guest, 1 + 11);
  t.same(path.slice(0, 11), [0x1000, 0x1001, 0x1006, 0x100c, 0x100f, 0x1015, 0x1018, 0x101b, 0x1021, 0x1024, 0x1100]);
  t.equal(guest.eip, 0x1104);

  const watch: DebugOptions = {
    ...STEP,
    singleStep: false,
    hardware: [{ kind: 'write', address: 0x5000n, length: 4 }],
  };
  t.match(await guest.go(watch), { reason: 'debug', address: 0x1116, trap: { kind: 'hardware', index: 0 } });
  t.equal(guest.ram.view.getUint32(0x5000, true), 1);
  t.match(await guest.go(), { address: 0x1116, trap: { kind: 'hardware', index: 0 } });
  t.equal(guest.ram.view.getUint32(0x5000, true), 2);

  // The guest has an interrupt table now; int3 leads to 1100h, at full speed up to the breakpoint before it.
  const idt = guest.vm.vcpus[0];
  const state = idt?.readState();
  if (state === undefined) throw new Error('no CPU');
  state.idtr = { base: 0x3200n, limit: 0x7ff };
  idt?.writeState(state);
  const execute: DebugOptions = {
    singleStep: false,
    softwareBreakpoints: true,
    hardware: [{ kind: 'execute', address: 0x110fn, length: 1 }],
  };
  t.match(await guest.go(execute), { address: 0x110f, trap: { kind: 'hardware', index: 0 } });
  t.match(
    await guest.go(),
    { address: 0x110f, trap: { kind: 'hardware', index: 0 } },
    'it is passed once on the way on',
  );
  t.equal(guest.ram.bytes[0x110f], 0x41, 'guest memory is as it was');
  t.equal(guest.ram.bytes[0x1100], 0x66);
  t.equal(guest.ram.view.getUint32(0x5000, true), 3);
  const software: DebugOptions = { singleStep: false, softwareBreakpoints: true, hardware: [] };
  t.match(await guest.go(software), { address: 0x111e, trap: { kind: 'software-breakpoint' } });
  t.equal(guest.ram.view.getUint32(0x5000, true), 0x10_0000);
  t.match(idt?.readState(), { rip: 0x111en, gpr: { 4: 0x8000n }, cs: { selector: 8 } }, 'as if the trap had not been');

  t.match(await guest.go({ ...STEP, reflect: 'software-breakpoint' }), { trap: { kind: 'step' } });
  t.equal(guest.ram.view.getUint32(0x8000 - 12, true), 0x111f, 'a trap of its own goes to the guest');
  guest.vm.dispose();
});

t.test('breakpoints need no interrupt table, and wait for code that is yet to come', async t => {
  // The vector of int3 is at what many others share: an int 20h must not look like a breakpoint.
  const guest = debugLab(
    bytes(`
      31 c0 8e d8                   // 1000 xor ax, ax; mov ds, ax
      c7 06 0c00 0011               // 1004 mov word [0ch], 1100h    int3's handler
      c7 06 8000 0011               // 100a mov word [80h], 1100h    int 20h's, which is the same
      cd 20                         // 1010 int 20h
      40                            // 1012 inc ax
      c6 06 0020 43                 // 1013 mov byte [2000h], 43h    inc bx
      c6 06 0120 f4                 // 1018 mov byte [2001h], 0f4h   hlt
      e6 80                         // 101d out 80h, al
      e9 de0f                       // 101f jmp 2000h
    `),
  );
  guest.ram.bytes[0x1100] = 0xcf;
  const at = (...addresses: bigint[]): DebugOptions => ({
    singleStep: false,
    softwareBreakpoints: false,
    hardware: addresses.map(address => ({ kind: 'execute', address, length: 1 })),
  });
  t.match(await guest.go(at(0x1012n, 0x2000n)), { address: 0x1012, trap: { kind: 'hardware', index: 0 } });
  t.match(await guest.go(), { address: 0x2000, trap: { kind: 'hardware', index: 1 } }, 'the code came later');
  t.equal(guest.ram.bytes[0x2000], 0x43);
  t.match(guest.vm.vcpus[0]?.readState(), { gpr: { 3: 0n } }, 'and has not run yet');
  guest.vm.dispose();
});

t.test('sti is one step, and lets no interrupt in before the next', async t => {
  const guest = debugLab(bytes('fa fb f4 90'));
  const path = await trace(guest, 4);
  t.same(path, [0x1000, 0x1001, 0x1002, 0x1003]);
  guest.vm.dispose();
});

t.test('a watchpoint is watched for as long as it takes', async t => {
  // Each step takes the module's counter of instructions a whole check further, so that it overflows on the way.
  const guest = debugLab(
    bytes(`
      66 b9 00560000                // mov ecx, 22016
      66 49                         // dec ecx
      75 fc                         // jnz
      c7 06 0050 3412               // mov word [5000h], 1234h
      f4
    `),
  );
  const watch: DebugOptions = {
    singleStep: false,
    softwareBreakpoints: false,
    hardware: [{ kind: 'write', address: 0x5000n, length: 2 }],
  };
  t.match(await guest.go(watch), { reason: 'debug', trap: { kind: 'hardware', index: 0 } });
  t.equal(guest.ram.view.getUint16(0x5000, true), 0x1234);
  guest.vm.dispose();
});
