import * as abi from './abi.ts';

interface Finished {
  readonly index: number;
  readonly start: number;
  readonly stateFlags: number;
}

/**
 * The code that the module's JIT generates. It is compiled at once, so that what a run does depends on nothing but the
 * guest; the module learns of it at its next check of the timers, because its JIT is locked until then.
 */
export class CompiledCode {
  readonly #instance: abi.Instance;
  readonly #imports: Record<string, Record<string, WebAssembly.ImportValue>>;
  readonly #finished: Finished[] = [];

  constructor(instance: abi.Instance) {
    this.#instance = instance;
    this.#imports = { [abi.JIT_NAMESPACE]: instance.forCompiledCode };
  }

  compile(index: number, start: number, stateFlags: number, bytes: Uint8Array): void {
    const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes), this.#imports);
    this.#instance.table.set(abi.TABLE_OFFSET + index, instance.exports[abi.JIT_ENTRY]);
    this.#finished.push({ index, start, stateFlags });
  }

  drop(index: number): void {
    this.#instance.table.set(abi.TABLE_OFFSET + index, null);
  }

  /** Tells the module; not to be called while it is generating code. */
  announce(): void {
    for (;;) {
      const next = this.#finished.shift();
      if (next === undefined) return;
      this.#instance.core.codegen_finalize_finished(next.index, next.start, next.stateFlags);
    }
  }
}
