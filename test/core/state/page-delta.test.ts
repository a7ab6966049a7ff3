import fc from 'fast-check';
import t from 'tap';
import { applyDelta, encodeDelta } from '../../../core/state/page-delta.ts';

const PAGE = 4096;
/** A page with some runs of it changed. */
const changes = fc.array(fc.record({ at: fc.nat(PAGE - 1), bytes: fc.uint8Array({ minLength: 1, maxLength: 40 }) }), {
  maxLength: 60,
});

t.test('a delta makes the old page the new one', async t => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: PAGE, maxLength: PAGE }), changes, (before, list) => {
      const after = Uint8Array.from(before);
      for (const { at, bytes } of list) after.set(bytes.subarray(0, PAGE - at), at);
      const delta = encodeDelta(before, after, PAGE);
      if (delta === undefined) return;
      const page = Uint8Array.from(before);
      applyDelta(page, delta);
      t.ok(Buffer.from(page).equals(Buffer.from(after)), 'equal');
    }),
    { numRuns: 60 },
  );
  const full = new Uint8Array(PAGE).fill(7);
  t.equal(encodeDelta(new Uint8Array(PAGE), full, PAGE), undefined, 'a page that is all new does not get shorter');
  t.equal(encodeDelta(full, full, PAGE)?.length, 0, 'nothing has changed');
});

t.test('whatever a delta says, it stays inside its page', async t => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), bytes => {
      const memory = new Uint8Array(3 * PAGE).fill(1);
      try {
        applyDelta(memory.subarray(PAGE, 2 * PAGE), Buffer.from(bytes));
      } catch (error) {
        if (!(error instanceof Error) || !/is damaged: a changed page/.test(error.message)) throw error;
      }
      return memory.subarray(0, PAGE).every(byte => byte === 1) && memory.subarray(2 * PAGE).every(byte => byte === 1);
    }),
  );
  t.pass();
});
