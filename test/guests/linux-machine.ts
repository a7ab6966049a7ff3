import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { wasm } from '../../core/accel/wasm/accelerator.ts';
import { Chardev } from '../../core/char/chardev.ts';
import { initramfs } from '../../core/firmware/guest-cache/initramfs.ts';
import { Machine } from '../../core/machine/machine.ts';
import { DEFAULT_CONFIG, type MachineConfig } from '../../core/machine/machine-config.ts';
import { pc } from '../../machines/pc.ts';
import { guestOrSkip } from './guest-or-skip.ts';

/** The far end of a serial line, for a test to read from and to type into. */
export class Terminal extends Chardev {
  text = '';
  #waiting: { readonly pattern: RegExp; readonly found: (match: RegExpExecArray) => void } | undefined;

  override get filename(): string {
    return 'terminal';
  }

  override dispose(): void {}

  protected override transmit(bytes: Uint8Array): number {
    this.text += Buffer.from(bytes).toString('latin1');
    this.#look();
    return bytes.length;
  }

  /** Resolves with the first match in all output so far and to come. */
  expect(pattern: RegExp): Promise<RegExpExecArray> {
    return new Promise(found => {
      this.#waiting = { pattern, found };
      this.#look();
    });
  }

  type(text: string): void {
    this.push(Buffer.from(text));
  }

  #look(): void {
    const match = this.#waiting?.pattern.exec(this.text);
    if (match === null || match === undefined) return;
    this.#waiting?.found(match);
    this.#waiting = undefined;
  }
}

export interface LinuxOptions {
  readonly config?: Partial<MachineConfig>;
  readonly modules?: readonly string[];
  readonly append?: string;
  /** What the guest does; it powers off at the end. */
  readonly init: string;
  /** Plugs in more, once the machine is built. */
  readonly plug?: (machine: Machine) => void;
}

export interface LinuxMachine {
  readonly machine: Machine;
  readonly terminal: Terminal;
  /** Resolves with the reason that the machine went down for. */
  readonly down: Promise<unknown>;
}

/**
 * Debian's i386 Linux on a `pc` run by the wasm accelerator: from the reset vector through SeaBIOS and the Linux boot ROM to a
 * BusyBox shell on the first serial port. Undefined, with the test told why, where the guest cannot be had.
 */
export async function bootLinux(t: Test, options: LinuxOptions): Promise<LinuxMachine | undefined> {
  const kernel = await guestOrSkip(t, 'linux-i386');
  const firmware = await guestOrSkip(t, 'seabios');
  if (kernel === undefined || firmware === undefined) return undefined;
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-'));
  const initrd = join(folder, 'initrd');
  writeFileSync(initrd, await initramfs({ init: options.init, modules: options.modules ?? [] }));
  const terminal = new Terminal('serial0');
  const config: MachineConfig = {
    ...DEFAULT_CONFIG,
    serials: ['serial0'],
    kernel: kernel.vmlinuz,
    initrd,
    append: `console=ttyS0 quiet ${options.append ?? ''}`,
    ...options.config,
  };
  const machine = new Machine({
    type: pc,
    config,
    accelerator: wasm,
    backends: { find: () => terminal },
    romImage: name => readFileSync(join(firmware.directory, name)),
  }).build();
  t.teardown(() => {
    machine.dispose();
    rmSync(folder, { recursive: true });
  });
  options.plug?.(machine);
  const down = new Promise(resolve => {
    machine.listen((event, data) => event === 'SHUTDOWN' && resolve(data['reason']));
  });
  machine.resetDevices();
  machine.start();
  return { machine, terminal, down };
}
