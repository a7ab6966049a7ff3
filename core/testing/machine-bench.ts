import { qtest } from '../accel/qtest/accelerator.ts';
import type { BackendLookup } from '../device/property.ts';
import { Machine } from '../machine/machine.ts';
import { DEFAULT_CONFIG, type MachineConfig } from '../machine/machine-config.ts';
import type { MachineType } from '../machine/machine-type.ts';

/** As large as a small PC firmware; nothing in it runs. */
const ROM_SIZE = 0x1_0000;

export interface MachineBenchOptions {
  /** Anything of the machine's configuration; by default its own RAM size, and nothing asked for. */
  readonly config?: Partial<MachineConfig>;
  readonly backends?: BackendLookup;
}

/** A whole machine without a CPU, after its power-on reset: for tests of machine types. ROMs are blank. Dispose of it. */
export function machineOnBench(type: MachineType, { config = {}, backends }: MachineBenchOptions = {}): Machine {
  const machine = new Machine({
    type,
    config: { ...DEFAULT_CONFIG, ramSize: type.defaultRam, maxRamSize: type.defaultRam, ...config },
    accelerator: qtest,
    romImage: () => new Uint8Array(ROM_SIZE),
    random: () => 0.5,
    ...(backends && { backends }),
  }).build();
  machine.resetDevices();
  return machine;
}
