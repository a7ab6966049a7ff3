/** The example devices in one machine, under Debian's Linux with a driver for each: ours built out of tree, and its own lm75. */
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { SouthbridgeError } from '../../core/errors.ts';
import { buildKernelModules } from '../../core/firmware/guest-cache/kernel-build.ts';
import { labBench } from '../../docs/examples/lab-bench/lab-bench.ts';
import { RunningProgram } from '../core/control/program.ts';
import { bootLinux } from '../guests/linux-machine.ts';
import { commandsOf, ROOT } from './samples.ts';

t.setTimeout(400_000);

const INIT = `
dmesg -n 1
for module in /drivers/*.ko; do insmod $module || echo "cannot load $module"; done

cd /sys/bus/pci/drivers/vector_unit/0000:00:10.0
echo 0 100 > compute; echo "100 + 3 = $(cat compute)"
echo 1 1024 > compute; echo "1024 * 3 = $(cat compute)"
echo 2 1000 > compute; echo "1 + ... + 1000 = $(cat compute)"
echo 7 1 > compute 2>/dev/null || echo "operation 7 is refused"
echo 2 10 > compute; echo "1 + ... + 10 = $(cat compute)"
echo "vector unit interrupts: $(cat interrupts)"
grep vector-unit /proc/interrupts

cd /sys/bus/virtio/drivers/virtio_crc/virtio0
echo -n 123456789 > crc; echo "crc $(cat crc), $(cat messages) message"

cd /sys/bus/isa/drivers/isa_stopwatch/isa_stopwatch.0
echo 20000 > alarm; echo "rang after $(cat alarm) us"

smbus=$(basename $(dirname $(grep -l 'SMBus PIIX4 adapter' /sys/bus/i2c/devices/i2c-*/name | head -n 1)))
echo lm75 0x48 > /sys/bus/i2c/devices/$smbus/new_device
cd /sys/bus/i2c/drivers/lm75/*-0048/hwmon/hwmon*
echo "$(cat name): $(cat temp1_input), limit $(cat temp1_max)"
echo 41500 > temp1_max; echo "limit $(cat temp1_max)"
`;

for (const [example, device] of [
  ['vector-unit', 'vector-unit'],
  ['thermometer', 'lm75'],
  ['virtio-crc', 'virtio-crc-device'],
  ['isa-stopwatch', 'isa-stopwatch'],
  ['lab-bench', 'vector-unit'],
] as const)
  t.test(`the command in ${example}'s README`, async t => {
    const [command = ''] = commandsOf(`examples/${example}/README.md`);
    const options = command
      .replace(/^southbridge /, '')
      .replace('docs/', `${ROOT}/docs/`)
      .split(' ');
    const program = await RunningProgram.start(
      ...options.filter(option => option !== '-nographic'),
      '-display',
      'none',
    );
    await program.execute('qmp_capabilities');
    const tree = await program.execute('human-monitor-command', { 'command-line': 'info qtree' });
    t.match(tree['return'], new RegExp(`dev: ${device}, id`));
    await program.stop();
  });

t.test('each example device with its driver in Linux', async t => {
  const drivers: Record<string, Uint8Array> = {};
  for (const example of ['vector-unit', 'virtio-crc', 'isa-stopwatch']) {
    const folder = fileURLToPath(new URL(`../../../docs/examples/${example}/driver`, import.meta.url));
    try {
      for (const [name, module] of await buildKernelModules(folder)) drivers[`drivers/${name}`] = module;
    } catch (error) {
      if (!(error instanceof SouthbridgeError) || error.code === 'ERR_PROGRAM_FAILED') throw error;
      t.pass('no kernel modules here', { skip: `${error.code}: ${error.message}` });
      return;
    }
  }
  const linux = await bootLinux(t, {
    type: labBench,
    init: INIT,
    modules: ['virtio_pci', 'i2c-piix4', 'lm75'],
    files: drivers,
  });
  if (linux === undefined) return;
  t.equal(await linux.down, 'guest-shutdown');
  const { output } = linux.terminal;
  t.match(output, /100 \+ 3 = 103\r/);
  t.match(output, /1024 \* 3 = 3072\r/);
  t.match(output, /1 \+ \.\.\. \+ 1000 = 500500\r/);
  t.match(output, /operation 7 is refused\r/);
  t.match(output, /1 \+ \.\.\. \+ 10 = 55\r/, 'after the reset that follows an error');
  t.match(output, /vector unit interrupts: 4 1\r/);
  t.match(
    output,
    /4 +PCI-MSI \d+-edge +vector-unit done\r\n[^\n]*1 +PCI-MSI \d+-edge +vector-unit error/,
    'two MSI-X vectors',
  );
  t.match(output, /crc cbf43926, 1 message\r/);
  const rang = Number(/rang after (\d+) us/.exec(output)?.[1]);
  t.ok(rang >= 20_000 && rang < 5_000_000, `the stopwatch showed ${rang} us`);
  t.match(output, /lm75: 36500, limit 80000\r\nlimit 41500\r/);
});
