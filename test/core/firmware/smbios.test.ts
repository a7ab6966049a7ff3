import { createHash } from 'node:crypto';
import t from 'tap';
import { type SmbiosFacts, smbiosFiles } from '../../../core/firmware/smbios.ts';
import { SmbiosOptions } from '../../../core/firmware/smbios-options.ts';

const noFiles = (): undefined => undefined;
const pc = (changes: Partial<SmbiosFacts> = {}): SmbiosFacts => ({
  options: new SmbiosOptions(noFiles),
  defaults: { manufacturer: 'QEMU', product: 'Standard PC (i440FX + PIIX, 1996)', version: 'pc-i440fx-7.2' },
  uuid: '12345678-1234-5678-9abc-def012345678',
  entryPoint: '32',
  sockets: 1,
  coresPerSocket: 1,
  threadsPerSocket: 1,
  cpuid: { version: 0x6_0fb1, features: 0x078b_fbfd },
  ramSize: 128 * 2 ** 20,
  ramRanges: [{ base: 0, length: 128 * 2 ** 20 }],
  ...changes,
});

/** Splits a table into its structures: type, handle, formatted area and strings. */
function structures(tables: Uint8Array): { type: number; handle: number; area: Buffer; strings: string[] }[] {
  const bytes = Buffer.from(tables);
  const found = [];
  for (let at = 0; at < bytes.length; ) {
    const length = bytes.readUInt8(at + 1);
    const end = bytes.indexOf('\0\0', at + length, 'latin1');
    const strings = bytes
      .toString('utf8', at + length, end)
      .split('\0')
      .filter(value => value !== '');
    found.push({
      type: bytes.readUInt8(at),
      handle: bytes.readUInt16LE(at + 2),
      area: bytes.subarray(at, at + length),
      strings,
    });
    at = end + 2;
  }
  return found;
}

t.test('the default tables are those of QEMU 7.2', async t => {
  const { tables, anchor } = smbiosFiles(pc());
  t.equal(
    Buffer.from(anchor).toString('hex'),
    '5f534d5f001f0208510000000000000' + '05f444d495f004101000000000800' + '28',
  );
  t.equal(tables.length, 0x141);
  t.equal(createHash('sha256').update(tables).digest('hex').slice(0, 16), '76eb855d69aa5bd2');
  t.same(
    structures(tables).map(structure => structure.type),
    [1, 3, 4, 16, 17, 19, 32, 127],
  );
});

t.test('options fill in fields and add structures', async t => {
  const options = new SmbiosOptions(path => (path === 'oem.txt' ? Buffer.from('from a file') : undefined));
  options.add([
    ['type', '0'],
    ['vendor', 'us'],
    ['release', '1.9'],
    ['uefi', 'on'],
  ]);
  options.add([
    ['type', '1'],
    ['serial', 'S1'],
    ['uuid', '00112233-4455-6677-8899-aabbccddeeff'],
  ]);
  options.add([
    ['type', '4'],
    ['sock_pfx', 'SOCK'],
    ['max-speed', '3000'],
    ['processor-id', '0x123456789'],
  ]);
  options.add([
    ['type', '8'],
    ['internal_reference', 'JTAG'],
    ['connector_type', '0x1f'],
  ]);
  options.add([
    ['type', '11'],
    ['value', 'one'],
    ['path', 'oem.txt'],
    ['value', 'two'],
  ]);
  options.add([
    ['type', '17'],
    ['bank', 'A'],
    ['speed', '2400'],
  ]);
  options.add([
    ['type', '41'],
    ['designation', 'LAN'],
    ['kind', 'ethernet'],
    ['pcidev', 'net0'],
  ]);
  const all = structures(
    smbiosFiles(
      pc({
        options,
        sockets: 2,
        entryPoint: '64',
        coresPerSocket: 300,
        threadsPerSocket: 600,
        findPci: id => (id === 'net0' ? { bus: 0, devfn: 0x18 } : undefined),
      }),
    ).tables,
  );
  const one = (type: number): { area: Buffer; strings: string[] } => {
    const structure = all.find(candidate => candidate.type === type);
    if (structure === undefined) throw new Error(`no structure of type ${type}`);
    return structure;
  };
  t.equal(
    one(0).area.toString('hex'),
    '00180000' + '01' + '00' + '00e8' + '00' + '00' + '0800000000000000' + '001c' + '0109ffff',
  );
  t.equal(one(1).area.toString('hex', 8, 24), '33221100554477668899aabbccddeeff');
  t.same(
    all.filter(structure => structure.type === 4).map(structure => structure.strings[0]),
    ['SOCK 0', 'SOCK 1'],
  );
  t.equal(one(4).area.length, 0x30);
  t.equal(one(4).area.readUInt16LE(0x2a), 300);
  t.equal(one(4).area.readUInt8(0x23), 0xff);
  t.equal(one(4).area.readBigUInt64LE(8), 0x1_2345_6789n);
  t.same(one(8).area.toString('hex', 4), '0100001f00');
  t.same(one(11).strings, ['one', 'from a file', 'two']);
  t.equal(one(17).area.readUInt16LE(0x15), 2400);
  t.equal(one(41).area.toString('hex', 4), '0185010000' + '0018');
});

t.test('big machines use the extended fields', async t => {
  const TIB = 2 ** 40;
  const ramRanges = [
    { base: 0, length: 3 * 2 ** 30 },
    { base: 4 * 2 ** 30, length: 5 * TIB },
  ];
  const all = structures(smbiosFiles(pc({ ramSize: 5 * TIB, ramRanges, entryPoint: '64' })).tables);
  const array = all.find(structure => structure.type === 16)?.area;
  t.equal(array?.readUInt32LE(7), 0x8000_0000);
  t.equal(array?.readBigUInt64LE(15), BigInt(5 * TIB));
  t.equal(all.filter(structure => structure.type === 17).length, 320);
  const mapped = all.filter(structure => structure.type === 19);
  t.equal(mapped[1]?.area.readUInt32LE(4), 0xffff_ffff);
  t.equal(mapped[1]?.area.readBigUInt64LE(15), BigInt(4 * 2 ** 30));
});

t.test('a file stands for the whole structure', async t => {
  const blob = Buffer.from([3, 5, 0x42, 0, 7, 0, 0]);
  const options = new SmbiosOptions(path => (path === 'chassis' ? blob : undefined));
  options.add([['file', 'chassis']]);
  const all = structures(smbiosFiles(pc({ options })).tables);
  t.equal(all[0]?.handle, 0x42);
  t.equal(all.filter(structure => structure.type === 3).length, 1);
  t.throws(
    () =>
      options.add([
        ['type', '3'],
        ['asset', 'x'],
      ]),
    { message: "can't add fields, binary file already loaded!" },
  );
  t.throws(() => options.add([['file', 'missing']]), { message: 'Cannot read SMBIOS file missing' });
});

t.test('bad options are refused in the words users know', async t => {
  const refuse = (parameters: [string, string][], message: string): void => {
    t.throws(() => new SmbiosOptions(noFiles).add(parameters), { code: 'ERR_SMBIOS', message });
  };
  refuse([['vendor', 'x']], 'Must specify type= or file=');
  refuse([['type', '5']], "Don't know how to build fields for SMBIOS type 5");
  refuse([['type', '200']], 'out of range!');
  refuse(
    [
      ['type', '1'],
      ['color', 'red'],
    ],
    "Invalid parameter 'color'",
  );
  refuse(
    [
      ['type', '1'],
      ['uuid', 'x'],
    ],
    'Invalid UUID',
  );
  refuse(
    [
      ['type', '0'],
      ['release', 'x'],
    ],
    'Invalid release',
  );
  refuse(
    [
      ['type', '4'],
      ['max-speed', '70000'],
    ],
    'SMBIOS CPU speed is too large (> 65535)',
  );
  refuse(
    [
      ['type', '17'],
      ['speed', 'fast'],
    ],
    "Parameter 'speed' expects a number",
  );
  refuse(
    [
      ['type', '11'],
      ['path', 'none'],
    ],
    "Could not open 'none': No such file or directory",
  );
});
