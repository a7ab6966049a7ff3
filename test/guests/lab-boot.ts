import type { Accelerator } from '../../core/accel/accelerator.ts';
import { bootDirectly } from '../../core/loader/boot.ts';
import type { BootEnvironment, BootImage } from '../../core/loader/image.ts';
import { ramRange } from '../../core/loader/linux.ts';
import { Machine } from '../../core/machine/machine.ts';
import { DEFAULT_CONFIG } from '../../core/machine/machine-config.ts';
import { labPc } from '../../docs/examples/lab-pc.ts';
import { GuestConsole } from './guest-console.ts';

const RAM = 16 * 2 ** 20;
export const LAB_MEMORY = [ramRange(0, 0xa_0000), ramRange(0x10_0000, RAM - 0x10_0000)];

export interface LabRun {
  readonly output: string;
  /** What the process would have exited with. */
  readonly exitCode: number;
}

/** Runs a bare-metal guest on the lab PC until it powers off or leaves through isa-debug-exit. */
export async function labBoot(
  accelerator: Accelerator,
  load: (environment: BootEnvironment) => BootImage,
  cpus = 1,
): Promise<LabRun> {
  const console = new GuestConsole();
  await console.open();
  const topology = { ...DEFAULT_CONFIG.cpus, cpus, sockets: cpus, maxCpus: cpus };
  const config = { ...DEFAULT_CONFIG, ramSize: RAM, cpus: topology, options: { console: 'console' } };
  const machine = new Machine({ type: labPc, config, accelerator, backends: { find: () => console } }).build();
  try {
    bootDirectly(machine, load({ memory: LAB_MEMORY }));
    machine.resetDevices();
    const finished = new Promise<number>((resolve, reject) => {
      machine.power.onFinished(resolve);
      machine.listen(event => {
        if (event !== 'STOP') return;
        // A machine that has been shut down says so right after it has stopped.
        setImmediate(() => reject(new Error(`the guest stopped: ${machine.power.report}\n${console.output}`)));
      });
    });
    machine.start();
    return { exitCode: await finished, output: console.output };
  } finally {
    machine.dispose();
  }
}
