import t from 'tap';
import { edu } from '../../devices/edu.ts';
import { virtioRngDevice } from '../../devices/virtio-rng.ts';
import { microvm } from '../../machines/microvm.ts';
import { bootLinux } from './linux-machine.ts';

t.setTimeout(600_000);

const SCRIPT = `
for device in /sys/bus/virtio/devices/*; do echo "$(readlink -f $device | cut -d/ -f4-) $(basename $(readlink $device/driver))"; done
for device in /sys/bus/pci/devices/*; do echo "pci \${device##*/} $(cat $device/vendor $device/device | tr '\\n' ' ')"; done
dd if=/dev/hwrng bs=16 count=1 2>/dev/null | wc -c
grep -i virtio /proc/interrupts | sed 's/  */ /g'
ls /sys/firmware/acpi/tables
poweroff -f`;

t.test('Linux finds a microvm through its ACPI tables, and turns it off', { timeout: 400_000 }, async t => {
  const linux = await bootLinux(t, {
    type: microvm,
    config: { options: { pcie: 'on', rtc: 'on' }, bios: 'bios-microvm.bin' },
    modules: ['virtio_mmio', 'virtio_rng'],
    // The kernel would ask SeaBIOS, which knows no bus here.
    append: 'pci=nobios',
    init: SCRIPT,
    plug: machine => {
      machine.busFor(virtioRngDevice)?.plug(virtioRngDevice);
      machine.busFor(edu)?.plug(edu);
    },
  });
  if (linux === undefined) return;
  t.equal(await linux.down, 'guest-shutdown', 'by the sleep register');
  const { output } = linux.terminal;
  t.match(output, /LNRO0005:00\/virtio0 virtio_rng/);
  t.match(output, /pci 0000:00:00\.0 0x1b36 0x0008/);
  t.match(output, /pci 0000:00:01\.0 0x1234 0x11e8/, 'edu, behind the generic host');
  t.match(output, /\n16\r?\n/, 'random bytes');
  t.match(output, /\d+ IO-APIC 23-fasteoi virtio0/, 'the last of eight transports');
  t.match(output, /APIC +DSDT +FACP/);
});
