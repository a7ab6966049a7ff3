import { createHash } from 'node:crypto';
import t from 'tap';
import { DEFAULT_OEM, tableBytes } from '../../../core/firmware/acpi-blob.ts';
import { slicOem, userTable } from '../../../core/firmware/acpi-table-option.ts';
import { type HmatFacts, hmat } from '../../../core/firmware/hmat.ts';

const files: Readonly<Record<string, Uint8Array>> = {
  empty: new Uint8Array(0),
  a: Buffer.from('ab'),
  b: Buffer.from('c'),
  whole: userTable({ sig: 'XYZW', data: 'a' }, path => (path === 'a' ? Buffer.from('body') : undefined)).bytes,
};
const read = (path: string): Uint8Array | undefined => files[path];
const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex').slice(0, 16);

t.test('a table is made around data, or taken from a file', async t => {
  const slic = userTable(
    {
      sig: 'SLIC',
      oem_id: 'CRASH ',
      oem_table_id: 'ME',
      oem_rev: '00002210',
      asl_compiler_id: 'qemu',
      asl_compiler_rev: '00000000',
      data: 'empty',
    },
    read,
  );
  t.equal(digest(slic.bytes), 'c1c8997de0b6a7fd', 'the SLIC of QEMU 7.2');
  t.same(slicOem([slic.bytes]), { id: 'CRASH ', tableId: 'ME' });
  t.equal(slicOem([]), undefined);

  const joined = userTable({ sig: 'TEST', data: 'a:b' }, read).bytes;
  t.equal(Buffer.from(joined).toString('latin1', 36), 'abc');
  t.equal(
    joined.reduce((sum, byte) => (sum + byte) & 0xff, 0),
    0,
  );
  const renamed = userTable({ file: 'whole', oem_id: 'X' }, read);
  t.equal(Buffer.from(renamed.bytes).toString('latin1', 0, 4), 'XYZW');
  t.equal(Buffer.from(renamed.bytes).toString('latin1', 10, 16), 'X\0\0\0\0\0');
  t.same(userTable({ data: 'a' }, read).warnings, ['ACPI table: no headers are specified']);
});

t.test('bad tables are refused in the words users know', async t => {
  const refuse = (parameters: Record<string, string>, message: string): void => {
    t.throws(() => userTable(parameters, read), { code: 'ERR_ACPI_TABLE', message });
  };
  refuse({ sig: 'X' }, "'-acpitable' requires one of 'data' or 'file'");
  refuse({ data: 'none' }, "can't open file none: No such file or directory");
  refuse({ file: 'a' }, 'ACPI table claiming to have header is too short, available: 2, expected: 36');
  refuse({ data: 'a', rev: '256' }, "Parameter 'rev' expects uint8_t");
  refuse({ data: 'a', colour: 'red' }, "Invalid parameter 'colour'");
});

t.test("HMAT is QEMU's", async t => {
  const cache = { size: 10 * 1024, level: 1, associativity: 'direct', policy: 'write-back', line: 8 } as const;
  const MIB = 2 ** 20;
  const facts: HmatFacts = {
    nodes: [
      { hasCpu: true, initiator: 0, caches: [cache] },
      { hasCpu: false, initiator: 0, caches: [cache] },
    ],
    costs: [
      {
        hierarchy: 'memory',
        dataType: 'access-bandwidth',
        base: MIB,
        entries: [
          { initiator: 0, target: 0, value: 65534 * MIB },
          { initiator: 0, target: 1, value: 32767 * MIB },
        ],
      },
      {
        hierarchy: 'memory',
        dataType: 'access-latency',
        base: 1,
        entries: [
          { initiator: 0, target: 0, value: 1 },
          { initiator: 0, target: 1, value: 65534 },
        ],
      },
    ],
  };
  t.equal(digest(tableBytes(hmat(facts), DEFAULT_OEM)), '0c12bd7d7569d5ce');
  const far = hmat({ nodes: [{ hasCpu: true, caches: [] }], costs: [] });
  t.equal(Buffer.from(far.body).readUInt32LE(4 + 12), 128, 'no initiator');
});
