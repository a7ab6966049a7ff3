// The package ships types that its `exports` hide from TypeScript; this is the part that we use.
declare module 'binary-parser' {
  interface FieldOptions {
    readonly formatter?: (value: bigint) => unknown;
  }
  interface BufferOptions {
    readonly length: number | string;
  }
  export class Parser {
    endianness(order: 'little' | 'big'): this;
    uint8(name: string, options?: FieldOptions): this;
    uint16(name: string, options?: FieldOptions): this;
    uint32(name: string, options?: FieldOptions): this;
    uint64(name: string, options?: FieldOptions): this;
    buffer(name: string, options: BufferOptions): this;
    skip(length: number): this;
    /** What the fields that were added say: the caller states their type. */
    parse<T>(bytes: Uint8Array): T;
  }
}
