import t from 'tap';
import { requestUnplug } from '../../../core/control/startup/devices.ts';
import { type X86Cpu, x86CpuType } from '../../../core/cpu/x86-cpu.ts';
import type { Machine } from '../../../core/machine/machine.ts';
import { DEFAULT_CONFIG } from '../../../core/machine/machine-config.ts';
import { MachineLoader, saveMachine } from '../../../core/state/snapshot.ts';
import { bootLinux } from '../../guests/linux-machine.ts';

const CPUS = 2;
const INIT = `
dmesg -n 1
echo "CPUs: $(nproc)"
for cpu in 0 1; do taskset -c $cpu sh -c 'i=0; while [ $i -lt 200 ]; do i=$((i+1)); done; echo "ran on $(cut -d" " -f39 /proc/self/stat)"'; done
grep -E 'apicid|core id|physical id' /proc/cpuinfo | grep -v initial | tr -d '\\t' | tr '\\n' ' '
echo -n 'go on? '
read -r answer
cd /sys/devices/system/cpu
echo 0 > cpu1/online; echo "$answer, without one: $(nproc), $(cat online)"
echo 1 > cpu1/online; echo "and with it: $(nproc), $(cat online)"
taskset -c 1 sh -c 'echo "again on $(cut -d" " -f39 /proc/self/stat)"'
grep -E 'LOC|RES|CAL' /proc/interrupts
`;

t.setTimeout(1_200_000);

// Time that counts instructions: what the guest sees does not depend on how busy the host is.
t.test('Linux runs on two CPUs, takes one out and in, and moves on in the middle', { timeout: 1_180_000 }, async t => {
  const topology = { cpus: CPUS, sockets: 1, dies: 1, cores: 2, threads: 1, maxCpus: CPUS };
  const linux = await bootLinux(t, {
    init: INIT,
    config: { cpus: topology, ramSize: DEFAULT_CONFIG.ramSize },
    icount: { shift: 3, sleep: false },
  });
  if (linux === undefined) return;
  const { machine, terminal, twin } = linux;
  await terminal.until(/go on\? $/, 900_000);
  t.match(terminal.output, /CPUs: 2\r\n/);
  t.match(terminal.output, /ran on 0\r\nran on 1\r\n/);
  t.match(terminal.output, [0, 1].map(cpu => `physical id: 0 core id: ${cpu} apicid: ${cpu}`).join(' '), 'two cores');

  machine.stop();
  const saved = Buffer.concat([...saveMachine(machine)]);
  const second = await twin();
  const loader = new MachineLoader(second.machine);
  loader.feed(saved);
  loader.end();
  for (const [index, vcpu] of second.machine.vm.vcpus.entries())
    t.strictSame(vcpu.readState(), machine.vm.vcpus[index]?.readState(), `CPU ${index}`);
  second.machine.start();
  second.terminal.type('gone\n');
  t.equal(await second.down, 'guest-shutdown');
  const { output } = second.terminal;
  t.match(output, /gone, without one: 1, 0\r\nand with it: 2, 0-1\r\nagain on 1\r\n/);
  t.match(output, /LOC:( +[1-9]\d*){2} +Local timer/, 'each has its timer');
  t.match(output, /RES:( +\d+){2} +Rescheduling/);
  t.match(output, /CAL:( +[1-9]\d*){2} +Function call/, 'and is called by others');
});

/** Linux numbers CPUs as they come. */
const LATER = `
dmesg -n 1
cd /sys/devices/system/cpu
online() { until [ "$(cat online)" = "$1" ]; do sleep 0.2; [ -e cpu1/online ] && echo 1 > cpu1/online 2> /dev/null; done; echo "online: $(cat online)"; }
offline() { while [ -e cpu1 ]; do sleep 0.2; done; echo "present: $(cat present), online: $(cat online)"; }
echo "first: $(cat possible) $(cat present) $(cat online)"
echo 'a CPU?'
online 0-1
taskset -c 1 sh -c 'i=0; while [ $i -lt 200 ]; do i=$((i+1)); done; echo "ran on $(cut -d" " -f39 /proc/self/stat)"'
echo -n 'go on? '
read -r answer
taskset -c 1 sh -c 'echo "again on $(cut -d" " -f39 /proc/self/stat)"'
echo 'without it?'
offline
echo 'with it?'
online 0-1
taskset -c 1 sh -c 'echo "a third time on $(cut -d" " -f39 /proc/self/stat)"'
grep -E 'LOC|CAL' /proc/interrupts
dmesg | grep -i -E 'tsc|unstable|stuck' | tail -3
`;

t.test(
  'Linux takes a CPU that comes while it runs, moves on with it, and lets it go',
  { timeout: 1_180_000 },
  async t => {
    const topology = { cpus: 1, sockets: 3, dies: 1, cores: 1, threads: 1, maxCpus: 3 };
    const linux = await bootLinux(t, {
      init: LATER,
      config: { cpus: topology, ramSize: DEFAULT_CONFIG.ramSize },
      icount: { shift: 3, sleep: false },
    });
    if (linux === undefined) return;
    const plug = ({ cpus }: Machine): X86Cpu =>
      cpus.plug(x86CpuType(cpus.option.cpu), 'two', { 'socket-id': 2, 'core-id': 0, 'thread-id': 0 });
    const { machine, terminal, twin } = linux;
    await terminal.until(/a CPU\?\r\n/, 900_000);
    t.match(terminal.output, /first: 0-2 0 0\r\n/);
    const cpu = plug(machine);
    t.strictSame(
      machine.vm.vcpus.map(({ index }) => index),
      [0, 2],
    );
    await terminal.until(/go on\? $/, 900_000);
    t.match(terminal.output, /online: 0-1\r\nran on 1\r\n/);

    machine.stop();
    const saved = Buffer.concat([...saveMachine(machine)]);
    const second = await twin();
    plug(second.machine);
    const loader = new MachineLoader(second.machine);
    loader.feed(saved);
    loader.end();
    for (const [at, vcpu] of second.machine.vm.vcpus.entries())
      t.strictSame(vcpu.readState(), machine.vm.vcpus[at]?.readState(), `CPU ${vcpu.index}`);
    t.equal(cpu.apicId, 2);
    second.machine.start();
    second.terminal.type('gone\n');
    await second.terminal.until(/without it\?\r\n/, 900_000);
    requestUnplug(second.machine, 'two');
    await second.terminal.until(/with it\?\r\n/, 900_000);
    t.equal(second.machine.vm.vcpus.length, 1);
    plug(second.machine);
    t.equal(await second.down, 'guest-shutdown');
    const { output } = second.terminal;
    t.match(
      output,
      /again on 1\r\nwithout it\?\r\npresent: 0, online: 0\r\nwith it\?\r\nonline: 0-1\r\na third time on 1\r\n/,
    );
    t.match(output, /LOC:( +[1-9]\d*){2} +Local timer/, 'each has its timer');
    t.notMatch(output, /stuck|TSC unstable/i);
  },
);
