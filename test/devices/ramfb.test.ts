import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { RunningProgram, runToEnd } from '../core/control/program.ts';
import { FwCfgGuest } from './fw-cfg-guest.ts';

const FILE = 'etc/ramfb';
const PIXELS = 0x20_0000;
const RAM = 8 * 2 ** 20;
const FORMATS = { RGB888: 'RG24', ARGB8888: 'AR24', XRGB8888: 'XR24', other: 'RG16' };

function config(fourcc: string, width: number, height: number, stride = 0, address = PIXELS): Buffer {
  const bytes = Buffer.alloc(28);
  bytes.writeBigUInt64BE(BigInt(address), 0);
  bytes.writeUInt32BE(Buffer.from(fourcc, 'latin1').readUInt32LE(0), 8);
  [width, height, stride].forEach((value, index) => bytes.writeUInt32BE(value, 16 + 4 * index));
  return bytes;
}

t.test('the screen is where the guest says, in its format', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-ramfb-'));
  const program = await RunningProgram.start('-m', '8', '-nodefaults', '-vga', 'none', '-device', 'ramfb,id=screen');
  t.teardown(async () => {
    await program.stop();
    rmSync(folder, { recursive: true });
  });
  await program.execute('qmp_capabilities');
  const guest = new FwCfgGuest(program);
  const size = (await guest.read(0x19, 4)).readUInt32BE(0);
  t.ok(size > 0);
  t.not(await guest.find('vgaroms/vgabios-ramfb.bin'), undefined, 'its BIOS is there');
  const shot = async (): Promise<Buffer> => {
    const filename = join(folder, 'shot.ppm');
    t.same(await program.execute('screendump', { filename, device: 'screen' }), { return: {} });
    return readFileSync(filename);
  };
  const pixel = async (width: number, x: number, y: number): Promise<string> => {
    const picture = await shot();
    const header = picture.indexOf('255\n') + 4;
    const at = header + 3 * (y * width + x);
    return picture.toString('hex', at, at + 3);
  };
  const put = (at: number, bytes: string): Promise<string> =>
    program.command(`write 0x${(PIXELS + at).toString(16)} 0x${(bytes.length / 2).toString(16)} 0x${bytes}`);

  t.match((await shot()).toString('latin1', 0, 15), 'P6\n640 480\n255\n', 'nothing yet');
  t.ok(await guest.write(FILE, config(FORMATS.XRGB8888, 64, 32)));
  await put(4 * (64 * 3 + 5), '332211ff');
  t.match((await shot()).toString('latin1', 0, 12), 'P6\n64 32\n255');
  t.equal(await pixel(64, 5, 3), '112233');

  for (const [name, bytes] of [
    ['too narrow', config(FORMATS.XRGB8888, 15, 32)],
    ['too low', config(FORMATS.XRGB8888, 64, 15)],
    ['too wide', config(FORMATS.XRGB8888, 16_001, 16)],
    ['too high', config(FORMATS.XRGB8888, 16, 12_001)],
    ['an unknown format', config(FORMATS.other, 64, 64)],
    ['beyond memory', config(FORMATS.XRGB8888, 64, 64, 0, RAM - 4096)],
    ['nowhere', config(FORMATS.XRGB8888, 64, 64, 0, 2 ** 60)],
    ['lines that go on for ever', config(FORMATS.XRGB8888, 64, 64, 0xffff_ffff)],
  ] as const) {
    await guest.write(FILE, bytes);
    t.equal(await pixel(64, 5, 3), '112233', `${name} changes nothing`);
  }

  t.ok(await guest.write(FILE, config(FORMATS.RGB888, 16, 16, 100)));
  await put(100 * 2 + 3, '665544');
  t.equal(await pixel(16, 1, 2), '445566');
  await program.execute('system_reset');
  t.equal(await pixel(16, 1, 2), '445566', 'a reset leaves the screen');
  t.match(await program.execute('device_del', { id: 'screen' }), { error: {} });
});

t.test('it needs fw_cfg, and there is one', async t => {
  const twice = await runToEnd('-machine', 'pc', '-device', 'ramfb', '-device', 'ramfb');
  t.match(twice.errors, '-device ramfb: duplicate fw_cfg file name: vgaroms/vgabios-ramfb.bin');
  const none = await runToEnd('-machine', 'none', '-device', 'ramfb');
  t.match(none.errors, '-device ramfb: ramfb device requires fw_cfg with DMA');
});
