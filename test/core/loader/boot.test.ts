import { existsSync, readFileSync } from 'node:fs';
import t from 'tap';
import { kvm } from '../../../core/accel/kvm/accelerator.ts';
import { bootDirectly } from '../../../core/loader/boot.ts';
import type { BootImage } from '../../../core/loader/image.ts';
import { loadElf, loadKernel } from '../../../core/loader/kernel.ts';
import { ramRange } from '../../../core/loader/linux.ts';
import { Machine } from '../../../core/machine/machine.ts';
import { DEFAULT_CONFIG } from '../../../core/machine/machine-config.ts';
import { machineType } from '../../../core/machine/machine-type.ts';
import { MemoryRegion } from '../../../core/memory/memory-region.ts';
import { buildGuest, type GuestName } from '../../guests/build.ts';

const RAM = 16 * 2 ** 20;
const memory = [ramRange(0, 0xa_0000), ramRange(0x10_0000, RAM - 0x10_0000)];

/** Boots `image` on a machine of RAM and just enough ports: what it wrote to COM1 until it powered off. */
async function boot(image: BootImage): Promise<string> {
  let output = '';
  let poweredOff: () => void = () => {};
  const done = new Promise<void>(resolve => {
    poweredOff = resolve;
  });
  const type = machineType({
    type: 'loader-lab',
    summary: 'RAM, the transmit register of a serial port, and a way out',
    build(machine) {
      machine.memoryRoot.add(MemoryRegion.ram(machine.allocateRam('ram', RAM)), 0);
      const uart = MemoryRegion.io('uart', 8, {
        read: offset => (offset === 5 ? 0x60 : 0),
        write: (offset, _size, value) => {
          if (offset === 0) output += String.fromCharCode(value);
        },
      });
      machine.ioRoot.add(uart, 0x3f8);
      const power = MemoryRegion.io('pm1a-cnt', 2, { read: () => 0, write: () => poweredOff() });
      machine.ioRoot.add(power, 0x604);
    },
  });
  const machine = new Machine({ type, config: DEFAULT_CONFIG, accelerator: kvm }).build();
  try {
    bootDirectly(machine, image);
    machine.resetDevices();
    machine.start();
    const stopped = new Promise<void>(resolve => machine.listen(event => event === 'STOP' && resolve()));
    await Promise.race([done, stopped]);
  } finally {
    machine.dispose();
  }
  return output;
}

const skip = existsSync('/dev/kvm') ? false : 'this host has no /dev/kvm';

t.test('each way in leads to main()', { skip, timeout: 60_000 }, async t => {
  const image = async (name: GuestName): Promise<Uint8Array> => readFileSync(await buildGuest(name));
  const environment = { memory, commandLine: 'pio=7 mmio=3' };
  const bench64 = await image('bench64');
  const expected = /ring 0, 64 bits[\s\S]*pio 7 cycles-each \d+[\s\S]*mmio 3 /;
  const pvh = loadKernel(bench64, environment);
  t.equal(pvh.format, 'pvh');
  t.match(await boot(pvh), expected, 'PVH, to 64 bits by the guest itself');
  t.match(
    await boot(loadElf(bench64, environment)),
    /ring 0, 64 bits[\s\S]*pio 20000/,
    'straight into 64-bit mode, without a command line',
  );
  const multiboot = loadKernel(await image('bench32'), environment);
  t.equal(multiboot.format, 'multiboot');
  t.match(await boot(multiboot), /ring 0, 32 bits[\s\S]*pio 7 cycles-each/, 'multiboot, 32 bits');
});

t.test('interrupts of the chips in the accelerator', { skip, timeout: 60_000 }, async t => {
  const output = await boot(loadKernel(readFileSync(await buildGuest('demo64')), { memory }));
  t.match(output, /20 interrupts of the 8254 at 100 Hz[\s\S]*All is well/);
});
