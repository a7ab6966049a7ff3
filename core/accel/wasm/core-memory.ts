import { ownsAddresses } from '../../host/addresses.ts';

/** Of a 32-bit WebAssembly memory, in bytes. */
const LARGEST = 2 ** 32;

/**
 * Views of the module's memory. The module may grow it whenever it runs, which detaches every view, so nobody keeps one
 * across a call into the module; `generation` counts the replacements.
 */
export class CoreMemory {
  readonly memory: WebAssembly.Memory;
  #bytes: Uint8Array;
  #words: Int32Array;
  #view: DataView;
  #generation = 0;
  #staysInPlace: boolean | undefined;

  constructor(memory: WebAssembly.Memory) {
    this.memory = memory;
    this.#bytes = new Uint8Array(memory.buffer);
    this.#words = new Int32Array(memory.buffer);
    this.#view = new DataView(memory.buffer);
  }

  get generation(): number {
    if (this.#bytes.length === 0) this.#replace();
    return this.#generation;
  }

  /**
   * The memory, where it grows in place: where V8 has set aside all the addresses that it can ever have (it does so to catch
   * accesses out of bounds), it has no reason to copy it elsewhere. Undefined where it has not.
   */
  get anchor(): WebAssembly.Memory | undefined {
    this.#staysInPlace ??= ownsAddresses(this.bytes, LARGEST);
    return this.#staysInPlace ? this.memory : undefined;
  }

  get bytes(): Uint8Array {
    if (this.#bytes.length === 0) this.#replace();
    return this.#bytes;
  }

  get words(): Int32Array {
    if (this.#words.length === 0) this.#replace();
    return this.#words;
  }

  get view(): DataView {
    if (this.#bytes.length === 0) this.#replace();
    return this.#view;
  }

  /** The aligned 32-bit word at byte `offset`, signed. */
  word(offset: number): number {
    return this.words[offset >> 2] ?? 0;
  }

  setWord(offset: number, value: number): void {
    this.words[offset >> 2] = value;
  }

  byte(offset: number): number {
    return this.bytes[offset] ?? 0;
  }

  setByte(offset: number, value: number): void {
    this.bytes[offset] = value;
  }

  half(offset: number): number {
    return this.view.getUint16(offset, true);
  }

  setHalf(offset: number, value: number): void {
    this.view.setUint16(offset, value, true);
  }

  #replace(): void {
    this.#bytes = new Uint8Array(this.memory.buffer);
    this.#words = new Int32Array(this.memory.buffer);
    this.#view = new DataView(this.memory.buffer);
    this.#generation++;
  }
}
