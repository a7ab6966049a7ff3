import fc from 'fast-check';
import t from 'tap';
import {
  type Access,
  bits,
  type Fields,
  type Register,
  RegisterBank,
  r8,
  r16,
  r32,
  r64,
  registerMap,
} from '../../../core/register/register.ts';

/**
 * The access modes written down a second time, bit by bit and as slowly as can be: random maps must behave as this says,
 * however their registers are accessed.
 */
class SlowBits {
  readonly #modes = new Map<number, Access | 'reserved'>();
  readonly #values = new Map<number, boolean>();

  add(at: number, mode: Access | 'reserved', value: boolean): void {
    this.#modes.set(at, mode);
    this.#values.set(at, value);
  }

  read(offset: number, size: number): number {
    let result = 0;
    for (let bit = 0; bit < 8 * size; bit++) {
      const at = 8 * offset + bit;
      const mode = this.#modes.get(at);
      const shown = mode === undefined ? true : mode !== 'wo' && this.#values.get(at) === true;
      if (shown) result += 2 ** bit;
      if (mode === 'rc') this.#values.set(at, false);
    }
    return result;
  }

  write(offset: number, size: number, value: number): void {
    for (let bit = 0; bit < 8 * size; bit++) {
      const at = 8 * offset + bit;
      const one = Math.floor(value / 2 ** bit) % 2 === 1;
      const mode = this.#modes.get(at);
      if (mode === 'rw' || mode === 'wo') this.#values.set(at, one);
      if (mode === 'w1s' && one) this.#values.set(at, true);
      if ((mode === 'w1c' && one) || (mode === 'w0c' && !one)) this.#values.set(at, false);
    }
  }
}

const modes = ['rw', 'ro', 'wo', 'w1c', 'w1s', 'w0c', 'rc', 'pulse'] as const;
const access = fc.constantFrom(...modes);

interface Draft {
  readonly width: 8 | 16 | 32 | 64;
  readonly gap: number;
  readonly access: Access;
  /** A field for each, of that many bits; those of no access are left reserved. */
  readonly fields: readonly { readonly bits: number; readonly access: Access | undefined }[];
  readonly reset: bigint;
}

const draft: fc.Arbitrary<Draft> = fc.record({
  width: fc.constantFrom(8 as const, 16 as const, 32 as const, 64 as const),
  gap: fc.integer({ min: 0, max: 3 }),
  access,
  fields: fc.array(
    fc.record({ bits: fc.integer({ min: 1, max: 20 }), access: fc.option(access, { nil: undefined }) }),
    { maxLength: 8 },
  ),
  reset: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
});

const accesses = fc.array(
  fc.record({
    offset: fc.integer({ min: 0, max: 40 }),
    size: fc.constantFrom(1, 2, 4),
    write: fc.option(fc.integer({ min: 0, max: 0xffff_ffff }), { nil: undefined }),
  }),
  { minLength: 20, maxLength: 60 },
);

function make({ width, access }: Draft, offset: number, fields: Fields, reset: bigint): Register {
  const options = { access, reset: Number(BigInt.asUintN(32, reset)) };
  if (width === 8) return r8(offset, fields, options);
  if (width === 16) return r16(offset, fields, options);
  return width === 32 ? r32(offset, fields, options) : r64(offset, fields, { access, reset });
}

function build(drafts: readonly Draft[]): { registers: Record<string, Register>; slow: SlowBits } {
  const registers: Record<string, Register> = {};
  const slow = new SlowBits();
  let offset = 0;
  for (const [index, each] of drafts.entries()) {
    const { width, gap, access, fields, reset } = each;
    offset += gap;
    const bitModes = new Array<Access | 'reserved'>(width).fill('reserved');
    const declared: Record<string, Fields[string]> = {};
    let low = 0;
    for (const [number, field] of fields.entries()) {
      const fits = Math.min(field.bits, 32 - (low % 32), width - low);
      if (fits < 1) break;
      if (field.access !== undefined) {
        declared[`F${number}`] = bits(low, fits, field.access);
        bitModes.fill(field.access, low, low + fits);
      }
      low += fits;
    }
    if (Object.keys(declared).length === 0) bitModes.fill(access);
    const value = BigInt.asUintN(width, reset);
    registers[`R${index}`] = make(each, offset, declared, value);
    for (const [bit, mode] of bitModes.entries())
      slow.add(8 * offset + bit, mode, ((value >> BigInt(bit)) & 1n) === 1n);
    offset += width / 8;
  }
  return { registers, slow };
}

t.test('random maps behave as the access modes say, however they are accessed', async t => {
  fc.assert(
    fc.property(fc.array(draft, { minLength: 1, maxLength: 5 }), accesses, fc.boolean(), (drafts, script, hooked) => {
      const { registers, slow } = build(drafts);
      const map = registerMap('random', registers, { hole: 0xff });
      // Hooks that add nothing must change nothing.
      const hook = { write: <V extends number | bigint>(value: V): V => value };
      const hooks = Object.fromEntries(Object.keys(registers).map(name => [name, hook]));
      const bank = new RegisterBank(map, hooked ? hooks : {});
      for (const { offset, size, write } of script) {
        if (write === undefined) {
          const [got, wanted] = [bank.read(offset, size), slow.read(offset, size)];
          if (got !== wanted)
            throw new Error(`read of ${size} at ${offset}: 0x${got.toString(16)}, not 0x${wanted.toString(16)}`);
        } else {
          bank.write(offset, size, write);
          slow.write(offset, size, write % 2 ** (8 * size));
        }
      }
    }),
    { numRuns: 500 },
  );
  t.pass();
});
