import t from 'tap';
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
