import t from 'tap';
import { MachineLoader, saveMachine } from '../../../core/state/snapshot.ts';
import { q35 } from '../../../machines/q35.ts';
import { bootLinux } from '../../guests/linux-machine.ts';

const INIT = `
dmesg -n 1
echo "driver of 01.3: $(basename $(readlink /sys/bus/pci/devices/0000:00:01.3/driver))"
for device in /sys/bus/pci/devices/*; do echo "pci $(basename $device) $(cat $device/vendor) $(cat $device/device)"; done
dmesg | grep -E 'ttyS0 at|rtc_cmos|SMBus|i8042|Translated|hpet0|Using IOAPIC|smp: Brought up'
grep -E 'timer|ttyS0|rtc0|acpi|LOC' /proc/interrupts
hwclock -u
echo -n 'your name? '
read -r name
echo "hello, $name"
`;

t.setTimeout(350_000);
t.test('Linux finds its drivers on a PC, takes input, and powers it off', { timeout: 170_000 }, async t => {
  const linux = await bootLinux(t, { init: INIT, modules: ['i2c-piix4'] });
  if (linux === undefined) return;
  const { machine, terminal, twin } = linux;
  await terminal.until(/your name\? $/, 100_000);

  // The rest of its life is another machine's.
  machine.stop();
  const saved = Buffer.concat([...saveMachine(machine)]);
  const second = await twin();
  const loader = new MachineLoader(second.machine);
  loader.feed(saved);
  loader.end();
  const { down } = second;
  second.machine.start();
  second.terminal.type('southbridge\n');
  await second.terminal.until(/hello, southbridge/, 20_000);
  t.equal(await down, 'guest-shutdown', 'by ACPI: PM1a_CNT');
  t.match(terminal.output, /ttyS0 at I\/O 0x3f8 \(irq = 4, base_baud = 115200\) is a 16550A/, '8250');
  t.match(terminal.output, /i8042: PNP: PS\/2 Controller[\s\S]*AT Translated Set 2 keyboard/, 'i8042 and atkbd');
  t.match(terminal.output, /hpet0: 3 comparators, 64-bit 100\.000000 MHz/, 'HPET');
  t.match(terminal.output, /rtc_cmos 00:\d\d: setting system clock to 20/, 'rtc_cmos');
  t.match(terminal.output, /driver of 01\.3: piix4_smbus/, 'PIIX4 SMBus');
  t.match(terminal.output, /pci 0000:00:00\.0 0x8086 0x1237\r\n[\s\S]*pci 0000:00:01\.0 0x8086 0x7000/, 'PCI');
  t.match(terminal.output, /Using IOAPIC for interrupt routing/, 'ACPI tables');
  t.match(terminal.output, /4: +[1-9]\d* +IO-APIC +4-edge +ttyS0/, 'serial interrupts');
  t.match(terminal.output, /LOC: +[1-9]\d\d/, 'local APIC timer');
});

t.test('Linux finds its drivers on a Q35', { timeout: 170_000 }, async t => {
  const init = `
    dmesg -n 1
    dmesg | grep -E 'ahci|MMCONFIG|SATA'
    for device in /sys/bus/pci/devices/*; do echo "pci $(basename $device) $(basename $(readlink -f $device/driver))"; done
    grep -E 'ahci|i801' /proc/interrupts`;
  const linux = await bootLinux(t, { type: q35, init, modules: ['ahci', 'i2c-i801'] });
  if (linux === undefined) return;
  const { terminal, down } = linux;
  t.equal(await down, 'guest-shutdown');
  t.match(terminal.output, /MMCONFIG at \[mem 0xb0000000-0xbfffffff\]/, 'the memory-mapped configuration space');
  t.match(terminal.output, /ahci 0000:00:1f\.2: AHCI 0001\.0000 32 slots 6 ports/, 'AHCI');
  t.match(terminal.output, /pci 0000:00:1f\.3 i801_smbus/, 'ICH9 SMBus');
  t.match(terminal.output, /PCI-MSI \d+-edge +ahci/, 'message-signalled interrupts');
  t.match(terminal.output, /16: +\d+ +IO-APIC +16-fasteoi +i801_smbus/, "the IOAPIC's inputs above ISA's");
});
