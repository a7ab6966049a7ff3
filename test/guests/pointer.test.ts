import t from 'tap';
import { until } from '../until.ts';
import { guestOrSkip } from './guest-or-skip.ts';
import { bootLinux } from './linux-machine.ts';

const PATIENCE_MS = 240_000;

// Debian's psmouse is the oracle: it looks for VMware's port behind a PS/2 mouse by itself.
t.test('Linux has a pointer with positions', { timeout: 300_000 }, async t => {
  if ((await guestOrSkip(t, 'linux-i386')) === undefined) return;
  const linux = await bootLinux(t, {
    modules: ['psmouse', 'evdev'],
    init: [
      'grep -A4 VMMouse /proc/bus/input/devices',
      'for e in /sys/class/input/event*; do',
      '  grep -q "VMware VMMouse" $e/device/name && grep -q 3 $e/device/capabilities/abs && name=$(basename $e)',
      'done',
      'mknod /dev/pointer c 13 $(cut -d: -f2 /sys/class/input/$name/dev)',
      'echo READY $name',
      'dd if=/dev/pointer bs=16 count=8 2>/dev/null | hexdump -v -e \'8/2 "%04x " "\\n"\'',
      'echo SEEN',
    ].join('\n'),
  });
  if (linux === undefined) return;
  await linux.terminal.until(/READY event\d/, PATIENCE_MS);
  const { input } = linux.machine.services;
  await until(() => input.absolute);
  // Linux keeps nothing for a reader that comes later, and tells of changes only.
  const again = setInterval(() => {
    input.send([
      { kind: 'absolute', axis: 'x', value: 0x1000 },
      { kind: 'absolute', axis: 'y', value: 0x2000 },
      { kind: 'button', button: 'right', down: true },
    ]);
    input.send([
      { kind: 'absolute', axis: 'x', value: 0 },
      { kind: 'absolute', axis: 'y', value: 0 },
      { kind: 'button', button: 'right', down: false },
    ]);
  }, 100);
  t.teardown(() => clearInterval(again));
  await linux.terminal.until(/SEEN/, PATIENCE_MS);
  const said = linux.terminal.output;
  t.match(said, / 0003 0000 2000 0000/, 'ABS_X');
  t.match(said, / 0003 0001 4000 0000/, 'ABS_Y');
  t.match(said, / 0001 0111 0001 0000/, 'BTN_RIGHT');
});
