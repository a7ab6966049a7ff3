/** Section numbers, and what an import or export is (WebAssembly core specification, sections 5.5.2 and 5.5.5). */
const SECTION = { IMPORT: 2, FUNCTION: 3, EXPORT: 7, CODE: 10, CUSTOM: 0 } as const;
const KIND = { FUNCTION: 0, TABLE: 1, MEMORY: 2, GLOBAL: 3 } as const;
const HEADER = 8;
const NAMES_OF_FUNCTIONS = 1;
const HAS_MAXIMUM = 1;

/** One function's place in the module: its locals, then its instructions up to the last `end`. */
interface Body {
  start: number;
  end: number;
}

/** A WebAssembly module whose functions can be given other code. */
export class ModuleCode {
  readonly #bytes: Buffer;
  #at = HEADER;
  readonly #imports = new Map<string, number>();
  readonly #functions = new Map<string, number>();
  readonly #bodies: Body[] = [];
  readonly #replaced = new Map<number, Buffer>();
  #importCount = 0;
  /** Where the code section's size is, and its end. */
  #code = { sizeAt: 0, start: 0, end: 0 };

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
    while (this.#at < bytes.length) {
      const section = bytes[this.#at++];
      const sizeAt = this.#at;
      const size = this.#unsigned();
      const end = this.#at + size;
      if (section === SECTION.IMPORT) this.#readImports();
      else if (section === SECTION.EXPORT) this.#readExports();
      else if (section === SECTION.CODE) this.#readCode(sizeAt, end);
      else if (section === SECTION.CUSTOM && this.#name() === 'name') this.#readNames(end);
      this.#at = end;
    }
  }

  /** The index by which code calls an imported function; undefined where there is none of that name. */
  importIndex(name: string): number | undefined {
    return this.#imports.get(name);
  }

  /** Puts instructions in front of an exported function's own. False where there is no such function. */
  prepend(name: string, code: readonly number[]): boolean {
    const body = this.#bodyOf(name);
    if (body === undefined) return false;
    const { start, end } = body.place;
    this.#at = start;
    const groups = this.#unsigned();
    for (let group = 0; group < groups; group++) {
      this.#unsigned();
      this.#at++;
    }
    const instructions = this.#at;
    this.#replaced.set(
      body.index,
      Buffer.concat([
        this.#bytes.subarray(start, instructions),
        Buffer.from(code),
        this.#bytes.subarray(instructions, end),
      ]),
    );
    return true;
  }

  /** Gives a function, by its export's name or the end of its symbol, other instructions and no locals. False where there is none. */
  replace(name: string, code: readonly number[]): boolean {
    const body = this.#bodyOf(name);
    if (body === undefined) return false;
    this.#replaced.set(body.index, Buffer.from([0, ...code, END]));
    return true;
  }

  /** The module with its new code. */
  build(): Buffer {
    const { sizeAt, start, end } = this.#code;
    const parts: Buffer[] = [leb(this.#bodies.length)];
    for (const [index, { start: from, end: to }] of this.#bodies.entries()) {
      const body = this.#replaced.get(index) ?? this.#bytes.subarray(from, to);
      parts.push(leb(body.length), body);
    }
    const code = Buffer.concat(parts);
    if (start === 0) return this.#bytes;
    return Buffer.concat([this.#bytes.subarray(0, sizeAt), leb(code.length), code, this.#bytes.subarray(end)]);
  }

  #bodyOf(name: string): { readonly index: number; readonly place: Body } | undefined {
    let found = this.#functions.get(name);
    if (found === undefined) for (const [symbol, at] of this.#functions) if (symbol.endsWith(name)) found = at;
    if (found === undefined) return undefined;
    const index = found - this.#importCount;
    const place = this.#bodies[index];
    return place === undefined ? undefined : { index, place };
  }

  #readImports(): void {
    const count = this.#unsigned();
    for (let index = 0; index < count; index++) {
      this.#name();
      const name = this.#name();
      const kind = this.#bytes[this.#at++];
      if (kind === KIND.FUNCTION) {
        this.#unsigned();
        this.#imports.set(name, this.#importCount++);
        continue;
      }
      this.#at++;
      if (kind === KIND.GLOBAL) this.#at++;
      else this.#skipLimits(kind === KIND.MEMORY);
    }
  }

  #skipLimits(memory: boolean): void {
    // A table says its elements' type first, which has been skipped; a memory begins with the flags.
    const flags = memory ? this.#bytes[this.#at - 1] : this.#bytes[this.#at++];
    this.#unsigned();
    if (((flags ?? 0) & HAS_MAXIMUM) !== 0) this.#unsigned();
  }

  #readExports(): void {
    const count = this.#unsigned();
    for (let index = 0; index < count; index++) {
      const name = this.#name();
      const kind = this.#bytes[this.#at++];
      const target = this.#unsigned();
      if (kind === KIND.FUNCTION) this.#functions.set(name, target);
    }
  }

  #readCode(sizeAt: number, end: number): void {
    this.#code = { sizeAt, start: this.#at, end };
    const count = this.#unsigned();
    for (let index = 0; index < count; index++) {
      const size = this.#unsigned();
      this.#bodies.push({ start: this.#at, end: this.#at + size });
      this.#at += size;
    }
  }

  #readNames(end: number): void {
    while (this.#at < end) {
      const kind = this.#bytes[this.#at++];
      const size = this.#unsigned();
      const next = this.#at + size;
      if (kind === NAMES_OF_FUNCTIONS) {
        const count = this.#unsigned();
        for (let entry = 0; entry < count; entry++) {
          const index = this.#unsigned();
          const name = this.#name();
          if (!this.#functions.has(name)) this.#functions.set(name, index);
        }
      }
      this.#at = next;
    }
  }

  #name(): string {
    const length = this.#unsigned();
    const name = this.#bytes.toString('latin1', this.#at, this.#at + length);
    this.#at += length;
    return name;
  }

  /** LEB128, up to 32 bits. */
  #unsigned(): number {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.#bytes[this.#at++] ?? 0;
      value |= (byte & 0x7f) << shift;
      if ((byte & 0x80) === 0) return value >>> 0;
    }
  }
}

const END = 0x0b;

function leb(value: number): Buffer {
  const bytes: number[] = [];
  do {
    const rest = value >>> 7;
    bytes.push((value & 0x7f) | (rest === 0 ? 0 : 0x80));
    value = rest;
  } while (value !== 0);
  return Buffer.from(bytes);
}
