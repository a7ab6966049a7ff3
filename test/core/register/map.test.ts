import t from 'tap';
import {
  bit,
  bits,
  choice,
  describeMap,
  type Register,
  r8,
  r16,
  r32,
  r64,
  registerMap,
} from '../../../core/register/register.ts';
import { card, uart } from './maps.ts';

const LCR = r8(3, { DLAB: bit(7), PAGE: bits(0, 2) });

const contradictions: Record<string, [Record<string, Register>, RegExp]> = {
  'fields overlap': [{ A: r8(0, { F: bits(0, 4), G: bit(3) }) }, /fields F and G both have bit 3/],
  'a field beyond the width': [{ A: r8(0, { F: bits(4, 8) }) }, /field F has bits 4 to 11 of a 8-bit register/],
  'a field over the middle of 64 bits': [{ A: r64(0, { F: bits(30, 4) }) }, /field F crosses bit 32/],
  'a field with a name that views have': [{ A: r8(0, { value: bit(0) }) }, /cannot be called 'value'/],
  'a choice that does not fit': [{ A: r8(0, { F: choice(0, 2, { a: 4 }) }) }, /choice F.a does not fit 2 bits/],
  'a choice twice': [{ A: r8(0, { F: choice(0, 2, { a: 1, b: 1 }) }) }, /choices a and b of F are both 1/],
  'registers overlap': [{ A: r32(0), B: r8(2) }, /register B: overlaps A at offset 0x2/],
  'arrays overlap': [
    { A: r32(0, {}, { count: 4, stride: 8 }), B: r32(12, {}, { count: 2 }) },
    /register B: overlaps A at offset 0x10/,
  ],
  'two conditions that are one': [
    { LCR, A: r8(0, {}, { when: 'LCR.DLAB' }), B: r8(0, {}, { when: 'LCR.DLAB=1' }) },
    /register B: overlaps A/,
  ],
  'no case is left': [
    { LCR, A: r8(0, {}, { when: 'LCR.DLAB' }), B: r8(0, {}, { when: '!LCR.DLAB' }), C: r8(0) },
    /register C: overlaps A/,
  ],
  'the unconditional comes first': [{ LCR, A: r8(0), B: r8(0, {}, { when: 'LCR.DLAB' }) }, /register B: overlaps A/],
  'writes that never arrive': [{ A: r8(0, {}, { access: 'wo' }), B: r8(0) }, /register B: overlaps A/],
  'a condition on nothing': [{ LCR, A: r8(0, {}, { when: 'LCR.DLBA' }) }, /'LCR.DLBA' names no field/],
  'a condition that is none': [{ LCR, A: r8(0, {}, { when: 'LCR.DLAB > 1' }) }, /is no condition/],
  'a condition on bits without a value': [{ LCR, A: r8(0, {}, { when: 'LCR.PAGE' }) }, /names no value/],
  'a condition that never holds': [{ LCR, A: r8(0, {}, { when: 'LCR.PAGE=4' }) }, /cannot have/],
  'a stride within the register': [{ A: r32(0, {}, { count: 2, stride: 2 }) }, /stride of 2 bytes/],
  'a stride that misaligns': [{ A: r32(0, {}, { count: 2, stride: 6 }) }, /stride of 6 bytes misaligns/],
  'a reset value that does not fit': [{ A: r8(0, {}, { reset: 256 }) }, /0x100 does not fit 8 bits/],
  'a wide reset value that does not fit': [{ A: r64(0, {}, { reset: 1n << 64n }) }, /does not fit 64 bits/],
  'a reset value that is no integer': [{ A: r8(0, {}, { reset: 0.5 }) }, /0.5 does not fit/],
  'an array of nothing': [{ A: r8(0, {}, { count: 0 }) }, /an array of 0/],
  'an offset below 0': [{ A: r8(-1) }, /-1 is no offset/],
  'a map beyond bounds': [{ A: r8(2 ** 20) }, /ends beyond/],
};

for (const [what, [registers, message]] of Object.entries(contradictions)) {
  t.test(`refused: ${what}`, async t => {
    t.throws(() => registerMap('x', registers), { code: 'ERR_REGISTER_MAP', message });
  });
}

t.test('a condition that is nearly right gets a hint', async t => {
  const nearly = () => registerMap('x', { LCR, A: r8(0, {}, { when: 'LRC.DLAB' }) });
  t.throws(nearly, { code: 'ERR_REGISTER_MAP', hint: "did you mean 'LCR.DLAB'?" });
});

t.test('places that conditions share', async t => {
  t.ok(
    registerMap('x', {
      LCR,
      A: r8(0, {}, { when: 'LCR=0xbf' }),
      B: r8(0, {}, { when: 'LCR.DLAB' }),
      C: r8(0, {}, { when: '!LCR.PAGE=2' }),
      D: r8(0),
    }),
  );
  t.ok(
    registerMap('x', {
      LCR,
      A: r16(0, {}, { when: '!LCR.DLAB' }),
      B: r8(0, {}, { when: 'LCR.DLAB' }),
      C: r8(1, {}, { when: 'LCR.DLAB' }),
    }),
  );
  t.ok(registerMap('x', { A: r8(0, {}, { access: 'ro' }), B: r8(0, { GO: bit(0, 'pulse') }) }));
});

t.test('a map describes itself', async t => {
  const described = describeMap(card);
  t.same(
    described.map(({ name, offset, width, count, stride }) => [name, offset, width, count, stride]),
    [
      ['CTRL', 0x00, 32, undefined, 4],
      ['CAUSE', 0x04, 32, undefined, 4],
      ['ID', 0x08, 32, undefined, 4],
      ['SHORT', 0x0c, 16, undefined, 2],
      ['WIDE', 0x10, 64, undefined, 8],
      ['BASE', 0x18, 64, undefined, 8],
      ['TABLE', 0x20, 32, 4, 4],
      ['PAIR_LO', 0x40, 32, 4, 8],
      ['PAIR_HI', 0x44, 32, 4, 8],
      ['BYTES', 0x60, 8, 8, 1],
      ['RING', 0x70, 64, 2, 8],
    ],
  );
  const [dll] = describeMap(uart);
  t.match(dll, {
    name: 'DLL',
    when: 'LCR.DLAB',
    reset: 12n,
    access: 'rw',
    sticky: false,
    doc: 'divisor latch, low byte',
    fields: [],
  });
  const mcr = describeMap(uart).find(({ name }) => name === 'MCR');
  t.match(mcr?.fields.at(-1), { name: 'AFE', low: 5, width: 1, implemented: false });
  const iir = describeMap(uart).find(({ name }) => name === 'IIR');
  t.match(iir?.fields[1], { name: 'ID', low: 1, width: 3, access: 'ro', implemented: true, choices: { timeout: 6 } });
});
