import { SouthbridgeError } from '../../errors.ts';
import type { Accelerator, Vm, VmOptions } from '../accelerator.ts';
import * as abi from './abi.ts';
import { WasmVm } from './vm.ts';

/** A software CPU: runs anywhere, at a fraction of the hardware's speed, and can be repeated bit for bit. */
export const wasm: Accelerator = {
  name: 'wasm',
  summary: 'v86.wasm: a software CPU with a JIT, 32 bits; needs nothing from the host',
  caps: {
    irqchip: 'one-cpu',
    maxCpus: 255,
    maxRam: abi.MAX_RAM,
    longMode: false,
    readonlyMemory: false,
    ioeventfd: false,
    irqfd: false,
    coalescedIo: false,
    dirtyLog: false,
    unlimitedBreakpoints: true,
    icount: true,
    pit: false,
  },

  probe(): void {
    abi.load();
  },

  createVm(options: VmOptions): Vm {
    if (options.lowRam > abi.MAX_RAM) {
      throw new SouthbridgeError(
        'ERR_RAM_SIZE',
        `the wasm accelerator takes less than 2 GiB of RAM, not ${Math.ceil(options.lowRam / 2 ** 20)} MiB`,
        'ask for less with -m',
      );
    }
    if (options.irqchip && options.cpus !== 1) {
      throw new SouthbridgeError(
        'ERR_VM_IRQCHIP',
        `the wasm accelerator's own interrupt controllers are for one CPU, not ${options.cpus}`,
      );
    }
    return new WasmVm(options);
  },
};
