import t from 'tap';
import { buildGuest } from './build.ts';
import { guestOrSkip } from './guest-or-skip.ts';
import { bootsFrom, type Medium, southbridge } from './medium-boot.ts';

t.setTimeout(600_000);

const MEDIA: readonly Medium[] = [
  {
    name: 'an IDE disk',
    modules: ['ata_piix', 'sd_mod'],
    device: 'sda',
    args: image => ['-drive', `format=raw,file=${image},if=ide`],
  },
  { name: 'a CD', modules: ['ata_piix', 'sr_mod'], device: 'sr0', cd: true, args: image => ['-cdrom', image] },
  {
    name: 'a virtio disk',
    modules: ['virtio_pci', 'virtio_blk'],
    device: 'vda',
    args: image => ['-drive', `format=raw,file=${image},if=virtio`],
  },
  {
    name: 'an AHCI disk',
    modules: ['ahci', 'sd_mod'],
    device: 'sda',
    args: image => [
      '-device',
      'ahci,id=a',
      '-drive',
      `format=raw,file=${image},if=none,id=d`,
      '-device',
      'ide-hd,bus=a.0,drive=d,bootindex=0',
    ],
  },
];

for (const medium of MEDIA) {
  t.test(`Linux boots from ${medium.name}`, { timeout: 180_000 }, t => bootsFrom(t, medium));
}

t.test('a boot sector of ours, by SeaBIOS', { timeout: 60_000 }, async t => {
  if ((await guestOrSkip(t, 'seabios')) === undefined) return;
  const guest = await buildGuest('real16');
  const { output, status } = await southbridge([
    '-drive',
    `format=raw,file=${guest},if=ide`,
    '-device',
    'isa-debug-exit,iobase=0xf4',
  ]);
  t.match(output, /real mode: 10 timer interrupts/);
  t.equal(status, 33);
});
