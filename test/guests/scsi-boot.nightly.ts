import t from 'tap';
import { bootsFrom, type Medium } from './medium-boot.ts';

t.setTimeout(600_000);

const MEDIA: readonly Medium[] = [
  {
    name: 'a SCSI disk behind virtio-scsi',
    modules: ['virtio_pci', 'virtio_scsi', 'sd_mod'],
    device: 'sda',
    args: image => [
      ...['-device', 'virtio-scsi-pci,id=s', '-drive', `format=raw,file=${image},if=none,id=d`],
      ...['-device', 'scsi-hd,bus=s.0,scsi-id=3,lun=1,drive=d,bootindex=0'],
    ],
  },
  {
    name: 'a SCSI disk behind an LSI controller',
    modules: ['sym53c8xx', 'sd_mod'],
    device: 'sda',
    args: image => [
      ...['-device', 'lsi53c895a,id=s', '-drive', `format=raw,file=${image},if=none,id=d`],
      ...['-device', 'scsi-hd,bus=s.0,scsi-id=3,drive=d,bootindex=0'],
    ],
  },
  {
    name: 'a SCSI disk behind the paravirtual adapter of VMware',
    modules: ['vmw_pvscsi', 'sd_mod'],
    device: 'sda',
    args: image => [
      ...['-device', 'pvscsi,id=s', '-drive', `format=raw,file=${image},if=none,id=d`],
      ...['-device', 'scsi-hd,bus=s.0,scsi-id=3,drive=d,bootindex=0'],
    ],
  },
];

for (const medium of MEDIA) {
  t.test(`Linux boots from ${medium.name}`, { timeout: 180_000 }, t => bootsFrom(t, medium));
}
