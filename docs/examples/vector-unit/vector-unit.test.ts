import { us } from 'southbridge';
import { bench } from 'southbridge/testing';
import t from 'tap';
import { JOB_INTERRUPT, JOB_SIZE, OPERATION, VECTOR, vectorUnit, vectorUnitRegisters } from './vector-unit.ts';

const RING = 0x1_0000;
const A = 0x2_0000;
const B = 0x3_0000;
const RESULT = 0x4_0000;
const MESSAGE = 0xfee0_0000;

function lab() {
  const lab = bench();
  t.teardown(() => lab.dispose());
  const card = lab.pci(vectorUnit);
  const regs = card.bar(0, vectorUnitRegisters);
  const view = new DataView(lab.ram.bytes.buffer, lab.ram.bytes.byteOffset);
  // MSI-X: capability 11h; each vector sends its own number.
  const table = card.port(2);
  for (const vector of [VECTOR.DONE, VECTOR.ERROR]) {
    table.write(vector * 16, 4, MESSAGE);
    table.write(vector * 16 + 4, 4, 0);
    table.write(vector * 16 + 8, 4, vector);
    table.write(vector * 16 + 12, 4, 0);
  }
  card.writeConfig(card.readConfig(0x34, 1) + 2, 2, 0x8000);
  regs.RING_BASE.value = BigInt(RING);
  regs.RING_SIZE.value = 4;
  regs.CONTROL.ENABLE = true;
  let tail = 0;
  return {
    lab,
    regs,
    vector: (address: number, values: readonly number[]): void =>
      values.forEach((value, at) => view.setUint32(address + 4 * at, value, true)),
    result: (count: number): number[] =>
      Array.from({ length: count }, (_, at) => view.getUint32(RESULT + 4 * at, true)),
    submit(operation: number, elements: number, addresses = { a: A, b: B, result: RESULT }): void {
      const job = RING + tail * JOB_SIZE;
      for (const [at, address] of [addresses.a, addresses.b, addresses.result].entries()) {
        view.setUint32(job + 8 * at, address, true);
        view.setUint32(job + 8 * at + 4, 0, true);
      }
      view.setUint32(job + 24, elements, true);
      view.setUint32(job + 28, operation | JOB_INTERRUPT, true);
      tail = (tail + 1) % 4;
      regs.TAIL.value = tail;
    },
  };
}

t.test('adds, multiplies and sums, in order, with an interrupt for each', async t => {
  const { lab: l, regs, vector, result, submit } = lab();
  vector(A, [1, 2, 0xffff_ffff]);
  vector(B, [10, 20, 2]);
  submit(OPERATION.ADD, 3);
  t.equal(regs.STATUS.BUSY, true);
  l.clock.advance(us(2));
  t.same(result(3), [11, 22, 1], 'modulo 2^32');
  submit(OPERATION.MULTIPLY, 3);
  l.clock.advance(us(2));
  t.same(result(3), [10, 40, 0xffff_fffe]);
  submit(OPERATION.SUM, 3);
  l.clock.advance(us(2));
  t.same(result(1), [2]);
  t.equal(regs.DONE.value, 3);
  t.equal(regs.HEAD.value, 3);
  t.same(l.messages, Array(3).fill({ address: MESSAGE, data: VECTOR.DONE }));
});

t.test('a wrong job halts the unit until it is reset', async t => {
  for (const [operation, elements, addresses, code] of [
    [9, 4, undefined, 'job'],
    [OPERATION.ADD, 0, undefined, 'job'],
    [OPERATION.ADD, 0xffff_ffff, undefined, 'job'],
    [OPERATION.ADD, 4, { a: 0xf000_0000, b: B, result: RESULT }, 'memory'],
    [OPERATION.SUM, 4, { a: A, b: B, result: 0xf000_0000 }, 'memory'],
  ] as const) {
    const { lab: l, regs, submit } = lab();
    submit(operation, elements, addresses);
    l.clock.advance(us(200));
    t.equal(regs.STATUS.HALTED, true);
    t.equal(regs.ERROR.CODE, code);
    t.equal(regs.DONE.value, 0);
    t.same(l.messages, [{ address: MESSAGE, data: VECTOR.ERROR }]);
    regs.CONTROL.RESET = true;
    t.equal(regs.STATUS.HALTED, false);
    t.equal(regs.ERROR.CODE, 'none');
  }
});

t.test('a ring whose size is not a power of two is refused', async t => {
  const { lab: l, regs, submit } = lab();
  regs.RING_SIZE.value = 3;
  submit(OPERATION.ADD, 1);
  l.clock.advance(us(10));
  t.equal(regs.ERROR.CODE, 'ring');
});
