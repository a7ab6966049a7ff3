import { readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import {
  channelXml,
  cpuXml,
  dimmXml,
  diskXml,
  domainXml,
  MAC,
  mouseXml,
  networkXml,
  pullXml,
  rngXml,
} from './domain.ts';
import { PrivateLibvirtd, whatIsMissing } from './private-libvirtd.ts';

const missing = whatIsMissing();
t.setTimeout(600_000);

t.test('libvirt manages a machine', { skip: missing ?? false }, async t => {
  const libvirt = await PrivateLibvirtd.start();
  t.teardown(() => libvirt.stop());
  const disk = libvirt.path('disk.qcow2');
  const made = await libvirt.run('qemu-img', 'create', '-q', '-f', 'qcow2', disk, '16M');
  if (made.code !== 0) return t.comment(`no qemu-img here: ${made.output}`);
  const rawDisk = libvirt.write('raw.img', new Uint8Array(2 ** 20));
  const second = libvirt.write('second.img', new Uint8Array(2 ** 20));
  const stick = libvirt.write('stick.img', new Uint8Array(2 ** 20));
  const xml = libvirt.write('lab.xml', domainXml({ emulator: libvirt.emulator, disk, rawDisk, stick }));

  /** One command, which has to succeed; and what it has to say. */
  const step = async (t: Test, command: readonly string[], says?: RegExp): Promise<string> => {
    const { code, output } = await libvirt.virsh(...command);
    const name = command.join(' ').replaceAll(libvirt.folder, '');
    if (code !== 0) t.fail(`${name}: ${output}`, { log: libvirt.log('lab').slice(-2000) });
    else if (says === undefined) t.pass(name);
    else t.match(output, says, name);
    return output;
  };
  const attach = async (t: Test, name: string, device: string): Promise<void> => {
    await step(t, ['attach-device', 'lab', libvirt.write(`${name}.xml`, device)]);
  };

  t.comment((await libvirt.virsh('version')).output.split('\n').at(-1) ?? '');
  await step(t, ['capabilities'], /<arch name='x86_64'>/);
  const compared = await libvirt.virsh(
    ...['hypervisor-cpu-compare', libvirt.write('cpu.xml', cpuXml), '--virttype', 'qemu', '--error'],
  );
  t.match(compared.output, /required features: pcid, x2apic, tsc-deadline, hle, invpcid, rtm$/);
  await step(t, ['define', xml]);
  await step(t, ['start', 'lab']);

  await t.test('what it is', async t => {
    await step(t, ['dominfo', 'lab'], /CPU\(s\): +1\n[\s\S]*Max memory: +65536 KiB/);
    await step(t, ['domstats', 'lab'], /state\.state=1[\s\S]*balloon\.current=65536[\s\S]*vda[\s\S]*capacity=16777216/);
    await step(t, ['vcpuinfo', 'lab'], /VCPU: +0\n[\s\S]*State: +running\n/);
    await step(t, ['vcpupin', 'lab', '0', '0']);
    await step(t, ['domblkinfo', 'lab', 'vda'], /Capacity: +16777216/);
    await step(t, ['domblkstat', 'lab', 'hda'], /hda rd_req \d+/);
    await step(t, ['domblkstat', 'lab', 'sda'], /sda rd_req \d+/);
    await step(t, ['dommemstat', 'lab'], /actual 65536\nlast_update 0/);
    await step(t, ['ttyconsole', 'lab'], /^\/dev\/pts\/\d+$/);
    await step(t, ['vncdisplay', 'lab'], /^127\.0\.0\.1:\d+$/);
    await step(t, ['screenshot', 'lab', libvirt.path('screen.png')]);
    t.equal(readFileSync(libvirt.path('screen.png')).toString('latin1', 1, 4), 'PNG');
    await step(t, ['qemu-monitor-command', 'lab', '{"execute":"query-status"}'], /"status":"running"/);
    await step(t, ['qemu-monitor-command', '--hmp', 'lab', 'info status'], /VM status: running/);
  });

  await t.test('what it does', async t => {
    await step(t, ['suspend', 'lab']);
    await step(t, ['domstate', '--reason', 'lab'], /^paused \(user\)/);
    await step(t, ['resume', 'lab']);
    await step(t, ['domstate', '--reason', 'lab'], /^running \(unpaused\)/);
    await step(t, ['send-key', 'lab', 'KEY_A', 'KEY_B']);
    await step(t, ['inject-nmi', 'lab']);
    await step(t, ['setmem', 'lab', '48M']);
    await step(t, ['dump', 'lab', libvirt.path('core'), '--memory-only']);
    t.equal(readFileSync(libvirt.path('core')).toString('latin1', 1, 4), 'ELF');
    await step(t, ['domif-setlink', 'lab', MAC, 'down']);
    await step(t, ['domif-getlink', 'lab', MAC], /down/);
    await step(t, ['blkdeviotune', 'lab', 'vda', '--total-iops-sec', '100']);
    await step(t, ['blkdeviotune', 'lab', 'vda'], /total_iops_sec *: *100\b/);
    await step(t, ['reset', 'lab']);
  });

  await t.test('what is plugged in', async t => {
    await attach(t, 'disk', diskXml(second));
    await step(t, ['blockresize', 'lab', 'vdb', '2M']);
    await attach(t, 'network', networkXml);
    await attach(t, 'rng', rngXml);
    await attach(t, 'channel', channelXml);
    await attach(t, 'mouse', mouseXml);
    await attach(t, 'dimm', dimmXml);
    await step(
      t,
      ['dumpxml', 'lab'],
      /<memory model='dimm'>[\s\S]*<address type='dimm' slot='0' base='0x100000000'\/>/,
    );
    await step(t, ['setvcpus', 'lab', '2', '--live']);
    await step(t, ['vcpucount', 'lab', '--current', '--live'], /^2$/);
    await step(t, ['iothreadadd', 'lab', '1']);
    await step(t, ['iothreadinfo', 'lab'], /1/);
    await step(t, ['iothreadset', 'lab', '1', '--poll-max-ns', '1000', '--poll-grow', '2', '--poll-shrink', '3']);
    await step(t, ['domstats', 'lab', '--iothread'], /poll-max-ns=1000\n.*poll-grow=2\n.*poll-shrink=3/);
    const unplugged = await libvirt.virsh('setvcpus', 'lab', '1', '--live');
    t.match(unplugged.output, /device unplug request for not supported device type: qemu64-x86_64-cpu$/);
    await step(t, ['change-media', 'lab', 'hdc', libvirt.write('disc.iso', new Uint8Array(2 ** 16)), '--insert']);
    await step(t, ['change-media', 'lab', 'hdc', '--eject']);
  });

  await t.test('its disks', async t => {
    const overlay = libvirt.path('overlay.qcow2');
    await step(t, [
      'snapshot-create-as',
      'lab',
      'outside',
      '--disk-only',
      '--diskspec',
      'hda,snapshot=no',
      '--diskspec',
      'vdb,snapshot=no',
      '--diskspec',
      `vda,file=${overlay}`,
    ]);
    await step(t, ['domblklist', 'lab'], /overlay\.qcow2/);
    await step(t, ['blockcommit', 'lab', 'vda', '--active', '--pivot', '--wait']);
    await step(t, ['domblklist', 'lab'], /disk\.qcow2/);
    await step(t, ['blockcopy', 'lab', 'vda', libvirt.path('copy.qcow2'), '--wait', '--finish', '--transient-job']);
    await step(t, ['snapshot-delete', 'lab', 'outside', '--metadata']);
    const [socket, scratch] = [libvirt.path('nbd'), libvirt.path('scratch')];
    await step(t, ['backup-begin', 'lab', libvirt.write('pull.xml', pullXml(socket, scratch))]);
    const read = await libvirt.run('qemu-img', 'info', `nbd+unix:///vda?socket=${socket}`);
    t.match(read.output, /virtual size: 16 MiB/);
    await step(t, ['domjobabort', 'lab']);
  });

  await t.test('its state', async t => {
    const saved = libvirt.path('saved');
    await step(t, ['save', 'lab', saved]);
    await step(t, ['restore', saved]);
    await step(t, ['domstate', 'lab'], /^running$/);
    await step(
      t,
      ['dumpxml', 'lab'],
      /<vcpu[^>]*>2<[\s\S]*name='lab.0' state='disconnected'[\s\S]*<memory model='dimm'>/,
    );
  });

  await t.test('its end', async t => {
    await step(t, ['shutdown', 'lab']);
    await step(t, ['destroy', 'lab']);
    await step(t, ['domstate', 'lab'], /^shut off$/);
    await step(t, ['undefine', 'lab']);
  });
});
