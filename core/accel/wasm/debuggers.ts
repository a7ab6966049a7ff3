import type { DebugOptions } from '../accelerator.ts';
import type { GuestDebug } from './guest-debug.ts';

/** What a debugger wants of each CPU, and what does it: that is made anew whenever the guest is resumed. */
export class Debuggers {
  readonly #options = new Map<number, DebugOptions>();
  readonly #debugs = new Map<number, GuestDebug>();
  /** The CPU that is to make single steps; all others stand still meanwhile. */
  stepped: number | undefined;

  get present(): boolean {
    return this.#options.size > 0;
  }

  set(cpu: number, options: DebugOptions | undefined): void {
    this.#debugs.get(cpu)?.withdraw();
    this.#debugs.delete(cpu);
    if (options === undefined) this.#options.delete(cpu);
    else this.#options.set(cpu, options);
    this.stepped = [...this.#options].find(([, { singleStep }]) => singleStep)?.[0];
  }

  optionsOf(cpu: number): DebugOptions | undefined {
    return this.#options.get(cpu);
  }

  at(cpu: number): GuestDebug | undefined {
    return this.#debugs.get(cpu);
  }

  of(cpu: number, make: () => GuestDebug): GuestDebug {
    const debug = this.#debugs.get(cpu) ?? make();
    this.#debugs.set(cpu, debug);
    return debug;
  }

  forget(): void {
    this.#debugs.clear();
  }
}
