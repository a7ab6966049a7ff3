import t from 'tap';
import { wasm } from '../../core/accel/wasm/accelerator.ts';
import { guestOrSkip } from './guest-or-skip.ts';
import { linuxGuest } from './linux-guest.ts';

t.setTimeout(600_000);

// Debian's kernel on the wasm accelerator: KVM here may be one that cannot run it, and the devices are the same.
t.test('Linux finds the lab PC as it is', { timeout: 180_000 }, async t => {
  for (const item of ['linux-i386', 'busybox-i386'] as const) if ((await guestOrSkip(t, item)) === undefined) return;
  wasm.probe();
  const guest = await linuxGuest({
    script: `
      uname -sr
      for device in /sys/bus/pci/devices/*; do echo "pci \${device##*/} $(cat $device/vendor $device/device $device/class | tr '\\n' ' ')"; done
      cat /proc/interrupts | sed -n 's/  */ /gp'
      cat /proc/tty/driver/serial
      cat /sys/class/rtc/rtc0/date
      read line < /dev/ttyS0; echo "typed: $line"`,
  });
  t.teardown(() => guest.dispose());
  await guest.console.until(/\d{4}-\d\d-\d\d\r?\n/, 120_000);
  guest.console.type('hello guest\n');
  const output = await guest.finished();
  t.match(output, /Linux 6\.1\./);
  t.match(output, /pci 0000:00:00\.0 0x8086 0x1237 0x060000/);
  t.match(output, /pci 0000:00:01\.0 0x8086 0x7000 0x060100/);
  t.match(output, /pci 0000:00:01\.3 0x8086 0x7113 0x068000/);
  t.match(output, /pci 0000:00:04\.0 0x1234 0x11e8 0x00ff00/);
  t.match(output, / 0: \d{2,} XT-PIC timer/, 'the timer ticks');
  t.match(output, /uart:16550A port:000003F8 irq:4 tx:\d\d/);
  t.match(output, /typed: hello guest/);
});
