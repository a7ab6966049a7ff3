/**
 * The same register script on our machine and on QEMU's: whatever answers differently is a difference that software could
 * see. Steps the clock only where QEMU has the qtest accelerator (see `findQemu`).
 */
import t from 'tap';
import { differences, findQemu, play, southbridge } from './qtest-player.ts';
import type { RegisterScript } from './register-script.ts';
import * as cxl from './scripts/cxl.ts';
import * as display from './scripts/display.ts';
import * as intelIommu from './scripts/intel-iommu.ts';
import * as iommuRequesters from './scripts/iommu-requesters.ts';
import * as ipack from './scripts/ipack.ts';
import * as isa from './scripts/isa.ts';
import * as network from './scripts/network.ts';
import * as nvme from './scripts/nvme.ts';
import * as pci from './scripts/pci.ts';
import * as platform from './scripts/platform.ts';
import * as pvscsi from './scripts/pvscsi.ts';
import * as scsi from './scripts/scsi.ts';
import * as serial from './scripts/serial.ts';
import * as storage from './scripts/storage.ts';
import * as usb from './scripts/usb.ts';
import * as virtioCrypto from './scripts/virtio-crypto.ts';
import * as virtioMemory from './scripts/virtio-memory.ts';
import * as virtioNet from './scripts/virtio-net.ts';

const netdev = ['-netdev', 'hubport,hubid=0,id=n'];

const scripts: readonly RegisterScript[] = [
  ...Object.values(isa).flatMap(make => (typeof make === 'function' ? [make()] : [])),
  ...[pci.pcChipset(), pci.q35Chipset(), pci.acpiPm(), pci.pam(), pci.bridges(), pci.switchPorts(), pci.expanders()],
  pci.pciCard('e1000,netdev=n,mac=52:54:00:12:34:56', ...netdev),
  pci.pciCard('virtio-net-pci,netdev=n,mac=52:54:00:12:34:56', ...netdev),
  pci.pciCard('vmxnet3,netdev=n,mac=52:54:00:12:34:56', ...netdev),
  pci.pciCard('virtio-rng-pci'),
  pci.pciCard('VGA'),
  pci.pciCard('edu'),
  pci.pciCard('pxb,bus_nr=64'),
  ...['cirrus-vga', 'virtio-vga', 'virtio-gpu-pci', 'bochs-display', 'secondary-vga'].map(card => pci.pciCard(card)),
  ...['virtio-keyboard-pci', 'virtio-mouse-pci', 'virtio-tablet-pci', 'intel-hda', 'ich9-intel-hda'].map(card =>
    pci.pciCard(card),
  ),
  ...['virtio-scsi-pci', 'lsi53c895a', 'lsi53c810', 'am53c974', 'pvscsi'].map(card => pci.pciCard(card)),
  ...Object.values(cxl).map(make => make()),
  ...[...Object.values(intelIommu), ...Object.values(iommuRequesters)].map(make => make()),
  ...Object.values(display).map(make => make()),
  ...Object.values(storage).map(make => make()),
  ...Object.values(pvscsi).map(make => make()),
  ...Object.values(scsi).map(make => make()),
  ...[virtioCrypto.sessions(), virtioCrypto.manySessions(), virtioCrypto.shortRequest(), virtioCrypto.shortKey()],
  ...[virtioCrypto.noAnswer(), virtioCrypto.noStatus()],
  ...Object.values(virtioMemory).map(make => make()),
  ...Object.values(virtioNet).map(make => make()),
  ...Object.values(network).map(make => make()),
  ...['piix3-usb-uhci', 'usb-ehci', 'qemu-xhci', 'nec-usb-xhci', 'pci-ohci'].map(card => pci.pciCard(card)),
  ...Object.values(usb).map(make => make()),
  ...Object.values(platform).map(make => make()),
  ...['pci-serial', 'pci-serial-2x', 'pci-serial-4x', 'tpci200'].map(card => pci.pciCard(card)),
  ...Object.values(serial).map(make => make()),
  ...Object.values(ipack).map(make => make()),
  ...Object.values(nvme).map(make => make()),
];

/** SOUTHBRIDGE_ORACLE_ONLY runs the scripts whose name has it in it. */
const only = process.env['SOUTHBRIDGE_ORACLE_ONLY'];
const qemu = findQemu();
const shown = 60;

for (const script of scripts) {
  if (only !== undefined && !script.name.includes(only)) continue;
  const skip =
    qemu === undefined
      ? 'qemu-system-x86_64 is not installed: nothing to compare with'
      : script.stepsClock && !qemu.stepsClock
        ? 'this QEMU cannot step its clock: it has no qtest accelerator'
        : false;
  t.test(script.name, { skip, timeout: 60_000 }, async t => {
    if (qemu === undefined) return;
    const [ours, theirs] = await Promise.all([play(southbridge, script), play(qemu, script)]);
    const found = differences(script, ours, theirs);
    for (const line of found.slice(0, shown)) t.comment(line);
    t.equal(found.length, 0, `${script.steps.length} steps agree`);
  });
}
