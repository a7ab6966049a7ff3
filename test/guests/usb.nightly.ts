import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { blockGraph } from '../../core/block/block.ts';
import { Drives } from '../../core/block/drives.ts';
import { ms } from '../../core/clock/units.ts';
import type { InputEvent, InputHandler } from '../../core/display/input.ts';
import type { Machine } from '../../core/machine/machine.ts';
import { PciBus } from '../../core/pci/pci-bus.ts';
import type { PciDevice } from '../../core/pci/pci-device.ts';
import { UsbBus } from '../../core/usb/bus.ts';
import { ich9UsbEhci1 } from '../../devices/usb/ehci/ehci.ts';
import { usbKbd } from '../../devices/usb/hid/keyboard.ts';
import { usbMouse, usbTablet } from '../../devices/usb/hid/pointer.ts';
import { usbHub } from '../../devices/usb/hub.ts';
import { usbStorage } from '../../devices/usb/storage/usb-storage.ts';
import { ich9UsbUhci1, piix3UsbUhci } from '../../devices/usb/uhci/uhci.ts';
import { qemuXhci } from '../../devices/usb/xhci/xhci.ts';
import { bootLinux, type LinuxMachine } from './linux-machine.ts';

t.setTimeout(1_200_000);
const PATIENCE_MS = 400_000;
/** Between two things that a person does, in the guest's time: shorter than what makes keys repeat. */
const PAUSE = ms(60);

/** struct input_event on a 32-bit kernel: seconds, microseconds, type, code, value. */
interface Event {
  readonly type: number;
  readonly code: number;
  readonly value: number;
}
const EV = { KEY: 1, REL: 2, ABS: 3 } as const;
const EVENT_WORDS = 8;

/** What `hexdump -v -e '8/2 "%04x " "\n"'` printed, without the time stamps and the synchronization. */
function events(text: string): Event[] {
  return text
    .trim()
    .split('\n')
    .map(line =>
      line
        .trim()
        .split(' ')
        .map(word => Number.parseInt(word, 16)),
    )
    .filter(words => words.length === EVENT_WORDS && words[4] !== 0)
    .map(words => ({ type: words[4] ?? 0, code: words[5] ?? 0, value: ((words[7] ?? 0) << 16) | (words[6] ?? 0) }));
}

/** The device that Linux has found at `place`, a part of its physical path: `count` events of it, as a dump. */
const listen = (place: string, count: number): string => `
  for i in $(seq 60); do
    device=$(grep -l "${place}" /sys/class/input/event*/device/phys 2>/dev/null | head -n 1)
    [ -n "$device" ] && break
    sleep 1
  done
  node=$(echo $device | cut -d / -f 5)
  dd if=/dev/input/$node of=/tmp/$node bs=16 count=${count} 2>/dev/null &
  sleep 1
  echo "LISTENING ${place}"
  wait
  echo "EVENTS ${place}"
  hexdump -v -e '8/2 "%04x " "\\n"' /tmp/$node
  echo "HEARD"`;

/** Does what a person does until Linux has heard enough, and returns what it heard. */
async function receive(
  linux: LinuxMachine,
  place: string,
  input: readonly (readonly InputEvent[])[],
  device?: InputHandler,
): Promise<Event[]> {
  await linux.terminal.until(new RegExp(`LISTENING ${place}`), PATIENCE_MS);
  if (device !== undefined) linux.machine.services.input.activate(device);
  const { clocks, services } = linux.machine;
  let turn = 0;
  const person = clocks.virtual.timer('person', () => {
    services.input.send(input[turn++ % input.length] ?? []);
    person.arm(PAUSE);
  });
  person.arm(PAUSE);
  try {
    const [, text = ''] = await linux.terminal.until(
      new RegExp(`EVENTS ${place}\\r?\\n([0-9a-f \\r\\n]+)HEARD`),
      PATIENCE_MS,
    );
    return events(text.replaceAll('\r', ''));
  } finally {
    person.dispose();
  }
}

function busOf(controller: PciDevice): UsbBus {
  const [bus] = controller.buses;
  if (!(bus instanceof UsbBus)) throw new TypeError(`${controller.typeName} has no USB bus`);
  return bus;
}

const key = (name: string, down: boolean): InputEvent => ({ kind: 'key', key: name, down });
const move = (x: number, y: number): InputEvent[] => [
  { kind: 'relative', axis: 'x', value: x },
  { kind: 'relative', axis: 'y', value: y },
];
const point = (x: number, y: number): InputEvent[] => [
  { kind: 'absolute', axis: 'x', value: x },
  { kind: 'absolute', axis: 'y', value: y },
];

/** A controller of each kind; devices of two speeds, on root ports and behind hubs. */
function plug(machine: Machine): void {
  const pci = machine.findBus('pci.0');
  if (!(pci instanceof PciBus)) throw new TypeError('a PC has a PCI bus');
  const uhci = busOf(pci.plug(piix3UsbUhci, { addr: '04.0' }, {}, 'uhci'));
  uhci.plug(usbTablet, { port: '1' });
  uhci.plug(usbHub, { port: '2' });
  const ehci = busOf(pci.plug(ich9UsbEhci1, { addr: '05.7', multifunction: true }, {}, 'ehci'));
  pci.plug(ich9UsbUhci1, { addr: '05.0', multifunction: true }, { masterbus: 'ehci.0', firstport: 0 });
  ehci.plug(usbKbd, { port: '1' });
  ehci.plug(usbMouse, { port: '2' }, { usb_version: 1 });
  ehci.plug(usbStorage, { port: '3' }, { drive: 'high' });
  const xhci = busOf(pci.plug(qemuXhci, { addr: '06.0' }, {}, 'xhci'));
  xhci.plug(usbHub, { port: '2' });
  xhci.plug(usbTablet, { port: '2.3' });
  xhci.plug(usbStorage, { port: '1' }, { drive: 'super', serial: 'STICK' });
}

/** Disks of 2 MiB that begin with their names. */
async function disks(t: Test): Promise<{ readonly drives: Drives; image(name: string): string }> {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-usb-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const drives = new Drives(blockGraph());
  const image = (name: string): string => join(folder, `${name}.img`);
  for (const name of ['high', 'super']) {
    writeFileSync(image(name), `the ${name} disk\n`);
    truncateSync(image(name), 2 * 2 ** 20);
    const options: [string, string][] = [
      ['id', name],
      ['file', image(name)],
      ['format', 'raw'],
      ['if', 'none'],
    ];
    await drives.add(options, { interface: 'none', snapshot: false, isDefault: false });
  }
  return { drives, image };
}

t.test('Debian drives UHCI, EHCI with a companion, and xHCI', { timeout: 1_200_000 }, async t => {
  const { drives, image } = await disks(t);
  const linux = await bootLinux(t, {
    modules: ['ehci_pci', 'uhci_hcd', 'xhci_pci', 'usbhid', 'hid_generic', 'evdev', 'usb_storage', 'sd_mod'],
    backend: (kind, id) => (kind === 'drive' ? drives.graph.backend(id) : undefined),
    plug,
    init: `
      mkdir -p /tmp
      ${listen('00:04.0-1', 12)}
      ${listen('00:05.7-1', 18)}
      ${listen('00:05.0-2', 12)}
      ${listen('00:06.0-2.3', 12)}
      for device in /sys/bus/usb/devices/*; do
        [ -f $device/product ] && echo "$(cat $device/product) $(cat $device/speed) $(cat $device/serial)"
      done
      for i in $(seq 60); do [ -b /dev/sda ] && [ -b /dev/sdb ] && break; sleep 1; done
      for disk in sda sdb; do
        echo "$disk $(cat /sys/block/$disk/size) $(head -n 1 /dev/$disk)"
        dd if=/dev/zero bs=65536 count=16 2>/dev/null | tr '\\0' '#' | dd of=/dev/$disk bs=65536 seek=8 conv=fsync 2>/dev/null
        echo 3 > /proc/sys/vm/drop_caches
        echo "$disk sum $(dd if=/dev/$disk bs=131072 2>/dev/null | md5sum)"
      done
      grep xhci /proc/interrupts
      echo THE-END`,
  });
  if (linux === undefined) return;
  const { input } = linux.machine.services;
  // Of two tablets the guest has switched on, the one that is activated last has the events.
  const [first, second] = input.handlers
    .filter(({ name }) => name === 'QEMU HID Tablet')
    .sort((a, b) => input.numberOf(a) - input.numberOf(b));
  const tablet = await receive(linux, '00:04.0-1', [point(0x1234, 0x2345), point(0x1111, 0x2222)], first);
  t.ok(tablet.some(({ type, code, value }) => type === EV.ABS && code === 0 && value === 0x1234));
  t.ok(tablet.some(({ type, code, value }) => type === EV.ABS && code === 1 && value === 0x2345));
  const keys = await receive(linux, '00:05.7-1', [[key('a', true)], [key('a', false)]]);
  const strokes = keys.filter(({ type, code }) => type === EV.KEY && code === 30).map(({ value }) => value);
  t.ok(strokes.includes(1) && strokes.includes(0), 'A was pressed and released, at high speed');
  const mouse = await receive(linux, '00:05.0-2', [move(5, -7)]);
  const steps = mouse.filter(({ type }) => type === EV.REL);
  t.ok(steps.length > 0 && steps.every(({ code, value }) => value === (code === 0 ? 5 : -7)), 'on the companion');
  const other = await receive(linux, '00:06.0-2.3', [point(0x0777, 0x0888), point(0x0999, 0x0aaa)], second);
  t.ok(
    other.some(({ type, code, value }) => type === EV.ABS && code === 0 && value === 0x0777),
    'behind a hub of xHCI',
  );
  const [listing] = await linux.terminal.until(/EVENTS 00:06[\s\S]*THE-END/, PATIENCE_MS);
  t.match(listing, /QEMU USB Keyboard 480 68284-0000:00:05\.7-1\r?\n/);
  t.match(listing, /QEMU USB Mouse 12 89126-0000:00:05\.7-2\r?\n/);
  t.match(listing, /QEMU USB Tablet 12 28754-0000:00:04\.0-1\r?\n/);
  t.match(listing, /QEMU USB Tablet 12 28754-0000:00:06\.0-2\.3\r?\n/);
  t.match(listing, /PCI-MSI.*xhci_hcd/);
  t.match(listing, /QEMU USB HARDDRIVE 480 1-0000:00:05\.7-3\r?\n/);
  t.match(listing, /QEMU USB HARDDRIVE 5000 STICK\r?\n/);
  for (const name of ['high', 'super']) {
    const bytes = readFileSync(image(name));
    const sum = createHash('md5').update(bytes).digest('hex');
    t.match(listing, new RegExp(`sd. 4096 the ${name} disk`));
    t.ok(listing.includes(`sum ${sum}`), `${name}: the guest reads what the image has`);
    t.ok(
      bytes.subarray(8 * 65536, 24 * 65536).every(byte => byte === 0x23),
      `${name}: what was written is there`,
    );
  }
});
