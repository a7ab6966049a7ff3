import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { RunningProgram } from './program.ts';

t.setTimeout(120_000);

/** What libvirt does: after a restore its ids of hot-plugged devices may be others, and their order, too. */
t.test('state goes to the devices at the same places, whatever they are called', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-renamed-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'state');
  const common = ['-machine', 'pc', '-m', '16M,slots=2,maxmem=64M', '-nodefaults'];
  const backends = ['m0', 'm1'].flatMap(id => ['-object', `memory-backend-ram,id=${id},size=${id === 'm0' ? 2 : 4}M`]);
  const source = await RunningProgram.start(
    ...common,
    ...backends,
    ...[
      '-device',
      'pc-dimm,id=d0,memdev=m0,slot=0,addr=0x100000000',
      '-device',
      'pc-dimm,memdev=m1,slot=1,addr=0x100200000',
    ],
    ...['-device', 'virtio-serial-pci,id=vs,addr=5', '-device', 'virtserialport,bus=vs.0,nr=2,id=p'],
    ...['-device', 'piix3-usb-uhci,id=usb,addr=6', '-device', 'usb-mouse,bus=usb.0,port=2,id=input2'],
  );
  t.teardown(() => source.stop());
  await source.execute('qmp_capabilities');
  await source.command('writel 0x100000000 0x11111111');
  await source.command('writel 0x100200000 0x22222222');
  await source.execute('migrate', { uri: `exec:cat > ${file}` });
  for (;;) {
    const { return: info } = await source.execute('query-migrate');
    const status = Reflect.get(Object(info), 'status');
    if (status === 'completed') break;
    if (status === 'failed') throw new Error(JSON.stringify(info));
  }
  const target = await RunningProgram.start(
    ...common,
    ...backends,
    ...['-device', 'piix3-usb-uhci,id=usb,addr=6', '-device', 'usb-mouse,bus=usb.0,port=2,id=input0'],
    ...['-device', 'virtio-serial-pci,id=serial9,addr=5', '-device', 'virtserialport,bus=serial9.0,nr=2,id=channel9'],
    ...[
      '-device',
      'pc-dimm,memdev=m1,slot=1,addr=0x100200000',
      '-device',
      'pc-dimm,id=x,memdev=m0,slot=0,addr=0x100000000',
    ],
    ...['-incoming', `exec:cat ${file}`],
  );
  t.teardown(() => target.stop());
  await target.execute('qmp_capabilities');
  for (;;) {
    const { return: info } = await target.execute('query-migrate');
    if (Reflect.get(Object(info), 'status') === 'completed') break;
  }
  t.equal(await target.command('readl 0x100000000'), 'OK 0x0000000011111111');
  t.equal(await target.command('readl 0x100200000'), 'OK 0x0000000022222222');
});
