import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { LocatedError, parseCommandLine } from '../../../core/control/options/command-line.ts';
import { parseSize, parseSizeOrRange, parseUnsigned } from '../../../core/control/options/numbers.ts';
import { parseKeyval, splitOptions } from '../../../core/control/options/opts.ts';
import { HELP_PROGRAM } from './program.ts';

const parse = (...args: string[]) => parseCommandLine(HELP_PROGRAM, args);

t.test('key=value lists', async t => {
  t.strictSame(
    splitOptions('file,wait,noserver,path=a,,b=c,x=', 'backend').map(({ key, value }) => [key, value]),
    [
      ['backend', 'file'],
      ['wait', 'on'],
      ['server', 'off'],
      ['path', 'a,b=c'],
      ['x', ''],
    ],
  );
  t.strictSame(
    JSON.parse(JSON.stringify(parseKeyval('qcow2,file.driver=file,file.filename=a,,b,list.0=x,list.1=y', 'driver'))),
    {
      driver: 'qcow2',
      file: { driver: 'file', filename: 'a,b' },
      list: ['x', 'y'],
    },
  );
  t.throws(() => parseKeyval('a.b=1,a=2'), /used inconsistently/);
  t.throws(() => parseKeyval('a'), { message: "Expected '=' after parameter 'a'" });
});

t.test('numbers and sizes', async t => {
  t.equal(parseSize('1.5G'), 1610612736n);
  t.equal(parseSize('128', 'M'), 134217728n);
  t.equal(parseSize('0x1000'), 4096n);
  t.equal(parseSize('1.5'), undefined);
  t.equal(parseSize('-1'), undefined);
  t.equal(parseSizeOrRange('16E'), 'range');
  t.equal(parseUnsigned('-1'), 2n ** 64n - 1n);
  t.equal(parseUnsigned('010'), 8n);
  t.equal(parseUnsigned('1x'), undefined);
});

t.test('options are collected with their place', async t => {
  const line = parse(
    '-m',
    '256',
    '-smp',
    '2',
    '-smp',
    'cores=2',
    '-M',
    'pc,accel=qtest',
    '-machine',
    'hpet=off',
    'disk.img',
  );
  t.equal(line.merged('memory').string('size'), '256');
  t.strictSame({ ...line.object('smp')[0]?.value }, { cpus: '2', cores: '2' });
  t.strictSame({ ...line.object('machine')[0]?.value }, { type: 'pc', accel: 'qtest', hpet: 'off' });
  t.equal(line.opts('drive')[0]?.opts.string('file'), 'disk.img');
});

t.test("errors name the option and are QEMU's", async t => {
  const failure = (...args: string[]): string => {
    try {
      parse(...args);
    } catch (error) {
      if (error instanceof LocatedError) return `${error.location}: ${error.message}`;
    }
    return 'no error';
  };
  t.equal(failure('-foo'), '-foo: invalid option');
  t.equal(failure('-m'), '-m: requires an argument');
  t.equal(failure('-m', 'foo'), "-m foo: Parameter 'size' expects a non-negative number below 2^64");
  t.equal(
    failure('-chardev', 'null,id=a', '-chardev', 'null,id=a'),
    "-chardev null,id=a: Duplicate ID 'a' for chardev",
  );
  t.equal(failure('-boot', 'nonsense=1'), "-boot nonsense=1: Invalid parameter 'nonsense'");
  t.equal(failure('-chardev', 'null,id=1a'), "-chardev null,id=1a: Parameter 'id' expects an identifier");
  t.equal(failure('-device', '{"driver":}'), '-device {"driver":}: JSON parse error, expecting value');
});

t.test('-readconfig, -set and -global', async t => {
  const path = join(mkdtempSync(join(tmpdir(), 'southbridge-')), 'machine.cfg');
  writeFileSync(
    path,
    '# a comment\n[memory]\n  size = "1G"\n[device "d0"]\n  driver = "edu"\n[object "r0"]\n  qom-type = "rng-builtin"\n',
  );
  const line = parse(
    '-readconfig',
    path,
    '-set',
    'device.d0.addr=4',
    '-global',
    'edu.dma_mask=1',
    '-global',
    'driver=a,property=b,value=c',
  );
  t.equal(line.merged('memory').string('size'), '1G');
  t.equal(line.opts('device')[0]?.opts.string('addr'), '4');
  t.equal(line.object('object')[0]?.value['id'], 'r0');
  t.strictSame(
    line.opts('global').map(({ opts }) => opts.string('property')),
    ['dma_mask', 'b'],
  );
  t.throws(() => parse('-set', 'device.none.addr=4'), /there is no device "none" defined/);
});
