import { accessSync, constants } from 'node:fs';
import { SouthbridgeError } from '../../errors.ts';
import { isSystemError } from '../../host/native.ts';
import type { Accelerator, Vm, VmOptions } from '../accelerator.ts';
import { loadAddon } from './addon.ts';
import { KvmVm } from './vm.ts';

const DEVICE = '/dev/kvm';

/** Hardware speed through Linux's KVM. */
export const kvm: Accelerator = {
  name: 'kvm',
  summary: 'Linux KVM: hardware speed, 32 and 64 bits, in-kernel interrupt controllers by choice',
  caps: {
    irqchip: 'optional',
    pit: true,
    maxCpus: 255,
    maxRam: 2 ** 40,
    longMode: true,
    readonlyMemory: true,
    ioeventfd: true,
    irqfd: true,
    coalescedIo: true,
    dirtyLog: true,
  },

  probe(): void {
    loadAddon();
    try {
      accessSync(DEVICE, constants.R_OK | constants.W_OK);
    } catch (cause) {
      const code = isSystemError(cause) ? cause.code : '';
      if (code === 'ENOENT') {
        throw new SouthbridgeError(
          'ERR_KVM_MISSING',
          `Could not access KVM kernel module: there is no ${DEVICE}`,
          'load kvm_intel or kvm_amd, enable virtualization in the firmware, or choose another accelerator with -accel',
          { cause },
        );
      }
      throw new SouthbridgeError(
        'ERR_KVM_PERMISSION',
        `Could not access KVM kernel module: no permission for ${DEVICE}`,
        "add yourself to its group ('kvm' on most systems) and log in again",
        { cause },
      );
    }
  },

  createVm(options: VmOptions): Vm {
    this.probe();
    return new KvmVm(options);
  },
};
