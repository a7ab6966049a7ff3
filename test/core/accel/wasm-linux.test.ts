import t from 'tap';
import { bootLinux } from '../../guests/linux-machine.ts';

const INIT = `
dmesg -n 1
echo "driver of 01.3: $(basename $(readlink /sys/bus/pci/devices/0000:00:01.3/driver))"
for device in /sys/bus/pci/devices/*; do echo "pci $(basename $device) $(cat $device/vendor) $(cat $device/device)"; done
dmesg | grep -E 'ttyS0 at|rtc_cmos|SMBus|Using IOAPIC|smp: Brought up'
grep -E 'timer|ttyS0|rtc0|acpi|LOC' /proc/interrupts
hwclock -u
echo -n 'your name? '
read -r name
echo "hello, $name"
`;

t.setTimeout(180_000);
t.test('Linux finds its drivers on a PC, takes input, and powers it off', { timeout: 170_000 }, async t => {
  const linux = await bootLinux(t, { init: INIT, modules: ['i2c-piix4'] });
  if (linux === undefined) return;
  const { terminal, down } = linux;
  await terminal.until(/your name\? $/, 100_000);
  terminal.type('southbridge\n');
  await terminal.until(/hello, southbridge/, 20_000);
  t.equal(await down, 'guest-shutdown', 'by ACPI: PM1a_CNT');
  t.match(terminal.output, /ttyS0 at I\/O 0x3f8 \(irq = 4, base_baud = 115200\) is a 16550A/, '8250');
  t.match(terminal.output, /rtc_cmos 00:\d\d: setting system clock to 20/, 'rtc_cmos');
  t.match(terminal.output, /driver of 01\.3: piix4_smbus/, 'PIIX4 SMBus');
  t.match(terminal.output, /pci 0000:00:00\.0 0x8086 0x1237\r\n[\s\S]*pci 0000:00:01\.0 0x8086 0x7000/, 'PCI');
  t.match(terminal.output, /Using IOAPIC for interrupt routing/, 'ACPI tables');
  t.match(terminal.output, /4: +[1-9]\d* +IO-APIC +4-edge +ttyS0/, 'serial interrupts');
  t.match(terminal.output, /LOC: +[1-9]\d\d/, 'local APIC timer');
});
