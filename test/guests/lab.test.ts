import { readFile } from 'node:fs/promises';
import t from 'tap';
import type { Accelerator } from '../../core/accel/accelerator.ts';
import { kvm } from '../../core/accel/kvm/accelerator.ts';
import { wasm } from '../../core/accel/wasm/accelerator.ts';
import { loadBootSector } from '../../core/loader/boot-sector.ts';
import { loadKernel } from '../../core/loader/kernel.ts';
import { buildGuest } from './build.ts';
import { labBoot } from './lab-boot.ts';

t.setTimeout(600_000);

function missing(accelerator: Accelerator): string | false {
  try {
    accelerator.probe();
    return false;
  } catch (error) {
    return String(error);
  }
}

for (const accelerator of [kvm, wasm]) {
  const { name } = accelerator;
  t.test(`bare-metal guests on ${name}`, { skip: missing(accelerator), timeout: 120_000 }, async t => {
    const sector = await readFile(await buildGuest('real16'));
    const real = await labBoot(accelerator, environment => loadBootSector(sector, environment));
    t.match(real, { output: /real mode: hello\s+real mode: 10 timer interrupts/, exitCode: 33 }, 'real mode');
    const bench = await readFile(await buildGuest('bench32'));
    const flat = await labBoot(accelerator, environment =>
      loadKernel(bench, { ...environment, commandLine: 'pio=50 mmio=50' }),
    );
    t.match(flat, { output: /ring 0, 32 bits[\s\S]*pio 50[\s\S]*mmio 50/, exitCode: 0 }, '32 bits');
    // A 64-bit host may be one whose KVM cannot run `iretd`.
    const smp = await readFile(await buildGuest(accelerator.caps.longMode ? 'smp64' : 'smp32'));
    const four = await labBoot(accelerator, environment => loadKernel(smp, environment), 4);
    t.match(four.output, /smp: 4 CPUs, the first with APIC id 0[\s\S]*30 inter-processor interrupts taken/, '4 CPUs');
    if (!accelerator.caps.longMode) return;
    const user = await readFile(await buildGuest('bench64-ring3'));
    const ring3 = await labBoot(accelerator, environment =>
      loadKernel(user, { ...environment, commandLine: 'pio=50 mmio=50' }),
    );
    t.match(ring3, { output: /ring 3, 64 bits[\s\S]*pio 50[\s\S]*mmio 50/, exitCode: 0 }, '64 bits, ring 3');
  });
}
