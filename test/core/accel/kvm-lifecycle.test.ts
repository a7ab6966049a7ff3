import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { performance } from 'node:perf_hooks';
import t from 'tap';
import { kvm } from '../../../core/accel/kvm/accelerator.ts';
import { at, CODE, lab, noKvm, noTimers, RecordingBus } from './kvm-lab.ts';

const SPIN = [0xeb, 0xfe];

/** What a VM could leave behind in this process. */
const census = (): { fds: number; threads: number; kvmMaps: number } => ({
  fds: readdirSync('/proc/self/fd').length,
  threads: readdirSync('/proc/self/task').length,
  kvmMaps: readFileSync('/proc/self/maps', 'latin1')
    .split('\n')
    .filter(line => line.includes('kvm')).length,
});

for (const cpus of [1, 2]) {
  t.test(`fifty VMs with ${cpus} CPUs leave no descriptor, thread or mapping behind`, { skip: noKvm }, async t => {
    const cycle = async (): Promise<void> => {
      const guest = lab([0xe6, 0x90, ...SPIN], { cpus });
      const seen = guest.seen(at(0x90));
      guest.vm.start();
      await seen;
      guest.vm.dispose();
      guest.vm.dispose();
    };
    await cycle();
    await new Promise(done => setTimeout(done, 50));
    const before = census();
    for (let round = 0; round < 50; round++) await cycle();
    await new Promise(done => setTimeout(done, 50));
    t.same(census(), before);
  });
}

t.test('the event loop answers while the guest spins, and while it exits all the time', { skip: noKvm }, async t => {
  const server = createServer(socket => socket.on('data', data => socket.write(data)));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const socket: Socket = connect(typeof address === 'object' ? (address?.port ?? 0) : 0, '127.0.0.1');
  await once(socket, 'connect');
  socket.setNoDelay(true);
  t.teardown(() => {
    socket.destroy();
    server.close();
  });
  for (const code of [SPIN, [0xe6, 0x90, 0xeb, 0xfc]]) {
    const guest = lab(code);
    t.teardown(() => guest.vm.dispose());
    guest.vm.start();
    await new Promise(done => setTimeout(done, 20));
    const latencies: number[] = [];
    for (let round = 0; round < 30; round++) {
      const start = performance.now();
      socket.write('ping');
      await once(socket, 'data');
      latencies.push(performance.now() - start);
    }
    latencies.sort((a, b) => a - b);
    const median = latencies[15] ?? 0;
    t.comment(`median ${median.toFixed(3)} ms for a round trip`);
    t.ok(median < 100, 'timers, sockets and promises go on');
    guest.vm.dispose();
  }
});

t.test('a halted guest costs no CPU', { skip: noKvm }, async t => {
  const guest = lab([0xfa, 0xe6, 0x90, 0xf4, 0xeb, 0xfd]);
  t.teardown(() => guest.vm.dispose());
  guest.vm.start();
  await guest.seen(at(0x90));
  await new Promise(done => setTimeout(done, 50));
  const before = process.cpuUsage();
  await new Promise(done => setTimeout(done, 500));
  const { user, system } = process.cpuUsage(before);
  t.ok(user + system < 100_000, `${user + system} us of CPU time in half a second`);
});

t.test('device timers fire on time while the guest spins', { skip: noKvm }, async t => {
  let due = Number.POSITIVE_INFINITY;
  let changed = (): void => {};
  const fired: number[] = [];
  const clock = {
    untilDeadline: () => Math.max(0, (due - performance.now()) * 1e6),
    expire: () => {
      fired.push(performance.now() - due);
      due = fired.length < 20 ? performance.now() + 0.7 : Number.POSITIVE_INFINITY;
    },
    onDeadline: (listener: () => void) => {
      changed = listener;
    },
  };
  const guest = lab(SPIN, { clock });
  t.teardown(() => guest.vm.dispose());
  guest.vm.start();
  await new Promise(done => setTimeout(done, 10));
  due = performance.now() + 1;
  changed();
  await new Promise(done => setTimeout(done, 300));
  t.equal(fired.length, 20);
  const late = [...fired].sort((a, b) => a - b)[10] ?? 0;
  t.comment(`median lateness ${late.toFixed(3)} ms`);
});

t.test('a triple fault stops the VM with a report', { skip: noKvm }, async t => {
  // 32-bit protected mode with an empty IDT, then an undefined instruction.
  const guest = lab([
    ...[0x0f, 0x01, 0x16, 0x00, 0x20], // lgdt [2000h]
    ...[0x0f, 0x01, 0x1e, 0x08, 0x20], // lidt [2008h]
    ...[0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0], // mov eax, cr0; or al, 1; mov cr0, eax
    ...[0xea, 0x17, 0x10, 0x08, 0x00], // jmp 8:1017h
    ...[0xb8, 0x34, 0x12, 0x00, 0x00, 0x0f, 0x0b], // mov eax, 1234h; ud2
  ]);
  guest.ram.bytes.set([15, 0, 0x10, 0x20, 0, 0], 0x2000);
  guest.ram.bytes.set([0xff, 0xff, 0, 0, 0, 0x9b, 0xcf, 0], 0x2018);
  t.teardown(() => guest.vm.dispose());
  guest.vm.start();
  const stop = await guest.stopped;
  t.equal(stop.reason, 'shutdown');
  t.match(
    'report' in stop ? stop.report : '',
    /EAX=00001234 EBX=00000000[\s\S]*CS =0008 00000000 ffffffff 00c09b00 DPL=0 CS32 \[-RA\][\s\S]*EFER=0000000000000000\nCode=.*<0f> 0b/,
  );
});

t.test('state saved from one VM goes on in another', { skip: noKvm }, async t => {
  // inc ax; out 90h, ax; for ever
  const code = [0x40, 0xe7, 0x90, 0xeb, 0xfb];
  const first = lab(code);
  const second = lab(code);
  t.teardown(() => {
    first.vm.dispose();
    second.vm.dispose();
  });
  first.vm.start();
  await first.seen(at(0x90), 100);
  first.vm.pause();
  const state = first.vm.saveState?.() ?? new Uint8Array(0);
  const last = first.bus.accesses.at(-1)?.value ?? 0;
  second.vm.restoreState?.(state);
  t.same(second.vm.vcpus[0]?.readState(), first.vm.vcpus[0]?.readState());
  const next = second.seen(at(0x90));
  second.vm.start();
  t.equal((await next).value, last + 1);

  second.vm.pause();
  t.throws(() => second.vm.restoreState?.(state.subarray(0, state.length - 1)), { code: 'ERR_STATE_FORMAT' });
  t.throws(() => second.vm.restoreState?.(Uint8Array.from([...state, 0])), { code: 'ERR_STATE_FORMAT' });
  const wrong = Uint8Array.from(state);
  wrong[4] = 9;
  t.throws(() => second.vm.restoreState?.(wrong), { code: 'ERR_STATE_FORMAT', message: /version/ });
});

t.test('registers written are registers read', { skip: noKvm }, async t => {
  const guest = lab(SPIN);
  t.teardown(() => guest.vm.dispose());
  const [cpu] = guest.vm.vcpus;
  if (cpu === undefined) throw new Error('no CPU');
  const state = cpu.readState();
  state.gpr.set(Array.from({ length: 8 }, (_, index) => 0x1111_1111n * BigInt(index)));
  state.rip = BigInt(CODE);
  state.cs = { ...state.cs, selector: 0, base: 0n };
  state.fxsave[0] = 0x3f;
  state.debug[0] = 0x1234n;
  cpu.writeState(state);
  t.same(cpu.readState(), state);
});

t.test('what cannot work is refused by name', { skip: noKvm }, t => {
  const options = { bus: new RecordingBus(), clock: noTimers, cpus: 1, irqchip: true, lowRam: 0, stopped() {} };
  t.throws(() => kvm.createVm({ ...options, cpuModel: 'quemu64' }), { code: 'ERR_CPU_MODEL', hint: /qemu64/ });
  t.throws(() => kvm.createVm({ ...options, irqchip: false }), { code: 'ERR_VM_INTERRUPTS' });
  t.throws(() => kvm.createVm({ ...options, irqchip: false, cpus: 2 }), { code: 'ERR_VM_CPUS' });
  const guest = lab(SPIN);
  t.throws(() => guest.vm.mapRam(0x1000, guest.ram, 0, 0x1000, false), { code: 'ERR_RAM_OVERLAP' });
  t.throws(() => guest.vm.mapRam(0x20_0010, guest.ram, 0, 0x1000, false), { code: 'ERR_RAM_ALIGNMENT' });
  t.throws(() => guest.vm.unmapRam(0x20_0000, 0x1000), { code: 'ERR_RAM_MAP' });
  guest.vm.dispose();
  t.throws(() => guest.vm.vcpus[0]?.readState(), { code: 'ERR_VM_DISPOSED' });
  t.end();
});
