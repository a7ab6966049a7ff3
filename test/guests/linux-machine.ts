import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import type { InstructionClock } from '../../core/accel/accelerator.ts';
import { wasm } from '../../core/accel/wasm/accelerator.ts';
import { type InitramfsOptions, initramfs } from '../../core/firmware/guest-cache/initramfs.ts';
import { Machine } from '../../core/machine/machine.ts';
import { DEFAULT_CONFIG, type MachineConfig } from '../../core/machine/machine-config.ts';
import type { MachineType } from '../../core/machine/machine-type.ts';
import { pc } from '../../machines/pc.ts';
import { GuestConsole } from './guest-console.ts';
import { guestOrSkip } from './guest-or-skip.ts';

export interface LinuxOptions {
  /** `pc` by default. */
  readonly type?: MachineType;
  readonly config?: Partial<MachineConfig>;
  readonly modules?: readonly string[];
  readonly append?: string;
  readonly files?: InitramfsOptions['files'];
  /** What the guest does; it powers off at the end. */
  readonly init: string;
  /** Time that counts instructions, so that a run does not depend on how busy the host is. */
  readonly icount?: InstructionClock;
  /** Finds backends besides the console. */
  readonly backend?: (kind: string, id: string) => unknown;
  /** Plugs in more, once the machine is built. */
  readonly plug?: (machine: Machine) => void;
}

export interface LinuxMachine {
  readonly machine: Machine;
  readonly terminal: GuestConsole;
  /** Resolves with the reason that the machine went down for. */
  readonly down: Promise<unknown>;
  /** Another machine of the same make, not started. */
  twin(): Promise<LinuxMachine>;
}

/**
 * Debian's i386 Linux on a PC run by the wasm accelerator: from the reset vector through SeaBIOS and the Linux boot ROM to a
 * BusyBox shell on the first serial port. Undefined, with the test told why, where the guest cannot be had.
 */
export async function bootLinux(t: Test, options: LinuxOptions): Promise<LinuxMachine | undefined> {
  const kernel = await guestOrSkip(t, 'linux-i386');
  const firmware = await guestOrSkip(t, 'seabios');
  if (kernel === undefined || firmware === undefined) return undefined;
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-'));
  const initrd = join(folder, 'initrd');
  writeFileSync(
    initrd,
    await initramfs({ init: options.init, modules: options.modules ?? [], files: options.files ?? {} }),
  );
  const config: MachineConfig = {
    ...DEFAULT_CONFIG,
    serials: ['serial0'],
    kernel: kernel.vmlinuz,
    initrd,
    append: `console=ttyS0 quiet ${options.append ?? ''}`,
    ...options.config,
  };
  t.teardown(() => rmSync(folder, { recursive: true }));
  const make = async (): Promise<LinuxMachine> => {
    const terminal = new GuestConsole();
    await terminal.open();
    const machine = new Machine({
      type: options.type ?? pc,
      config,
      accelerator: wasm,
      ...(options.icount !== undefined && { icount: options.icount }),
      backends: { find: (kind, id) => options.backend?.(kind, id) ?? terminal },
      romImage: name => readFileSync(join(firmware.directory, name)),
    }).build();
    t.teardown(() => machine.dispose());
    options.plug?.(machine);
    const down = new Promise(resolve => {
      machine.listen((event, data) => event === 'SHUTDOWN' && resolve(data['reason']));
    });
    machine.resetDevices();
    return { machine, terminal, down, twin: make };
  };
  const linux = await make();
  linux.machine.start();
  return linux;
}
