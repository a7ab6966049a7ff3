import { readFile } from 'node:fs/promises';
import type { Accelerator } from '../../core/accel/accelerator.ts';
import { wasm } from '../../core/accel/wasm/accelerator.ts';
import { GuestCache } from '../../core/firmware/guest-cache/guest-cache.ts';
import { type InitramfsOptions, initramfs } from '../../core/firmware/guest-cache/initramfs.ts';
import { bootDirectly } from '../../core/loader/boot.ts';
import { loadLinux, ramRange } from '../../core/loader/linux.ts';
import { Machine } from '../../core/machine/machine.ts';
import { DEFAULT_CONFIG, type MachineConfig } from '../../core/machine/machine-config.ts';
import type { MachineType } from '../../core/machine/machine-type.ts';
import type { PciBus } from '../../core/pci/pci-bus.ts';
import { labPc } from '../../docs/examples/lab-pc.ts';
import { GuestConsole } from './guest-console.ts';

const MIB = 2 ** 20;
const DONE = 'SOUTHBRIDGE-GUEST-DONE';

export interface LinuxGuest {
  readonly machine: Machine;
  readonly console: GuestConsole;
  /** What the script printed, once it is through. */
  finished(timeoutMs?: number): Promise<string>;
  dispose(): void;
}

export interface LinuxGuestOptions {
  /** What the guest does, as a shell script; what it prints is what {@link LinuxGuest.finished} gives. */
  readonly script: string;
  /** Kernel modules, loaded in this order before the script runs. */
  readonly modules?: readonly string[];
  readonly files?: InitramfsOptions['files'];
  /** Plugs in what is to be tested, before the machine starts. */
  readonly plug?: (machine: Machine, pci: PciBus) => void;
  readonly accelerator?: Accelerator;
  /** The lab PC by default; its serial console must be the chardev `console`. */
  readonly type?: MachineType;
  readonly config?: Partial<MachineConfig>;
  readonly commandLine?: string;
  /** Finds backends besides the console. */
  readonly backend?: (kind: string, id: string) => unknown;
}

/**
 * Debian's Linux with its own drivers, on the lab PC without firmware: the oracle for device models. Starts at once.
 *
 * @throws SouthbridgeError where the guest cannot be had: see {@link GuestCache}
 */
export async function linuxGuest(options: LinuxGuestOptions): Promise<LinuxGuest> {
  const cache = new GuestCache();
  const kernel = await cache.get('linux-i386');
  const initrd = await initramfs({
    cache,
    modules: options.modules ?? [],
    init: `dmesg -n 1\necho ${DONE}-BEGIN\n${options.script}\necho ${DONE}`,
    ...(options.files !== undefined && { files: options.files }),
  });
  const console = new GuestConsole();
  await console.open();
  const ramSize = options.config?.ramSize ?? 128 * MIB;
  const type = options.type ?? labPc;
  const backends = {
    find: (kind: string, id: string): unknown =>
      kind === 'chardev' && id === 'console' ? console : options.backend?.(kind, id),
  };
  const config: MachineConfig = {
    ...DEFAULT_CONFIG,
    ramSize,
    maxRamSize: ramSize,
    options: type === labPc ? { console: 'console' } : {},
    ...options.config,
  };
  const machine = new Machine({ type, config, accelerator: options.accelerator ?? wasm, backends }).build();
  const pci = machine.findBus('pci.0');
  options.plug?.(machine, pci as PciBus);
  const memory = [ramRange(0, 0x9_fc00), ramRange(MIB, ramSize - MIB)];
  const commandLine = `console=ttyS0 quiet panic=-1 nokaslr tsc=reliable ${options.commandLine ?? ''}`.trim();
  bootDirectly(machine, loadLinux(await readFile(kernel.vmlinux), { memory, commandLine, initrd }));
  machine.resetDevices();
  machine.start();
  return {
    machine,
    console,
    async finished(timeoutMs = 90_000) {
      const pattern = new RegExp(`${DONE}-BEGIN\\r?\\n([\\s\\S]*?)${DONE}\\r?\\n`);
      return (await console.until(pattern, timeoutMs))[1]?.replaceAll('\r', '') ?? '';
    },
    dispose: () => machine.dispose(),
  };
}
