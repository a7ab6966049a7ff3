import { copyFileSync, mkdtempSync, readFileSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { wasm } from '../../core/accel/wasm/accelerator.ts';
import { blockGraph } from '../../core/block/block.ts';
import { Drives } from '../../core/block/drives.ts';
import { ms } from '../../core/clock/units.ts';
import { Machine } from '../../core/machine/machine.ts';
import { DEFAULT_CONFIG } from '../../core/machine/machine-config.ts';
import { PciBus } from '../../core/pci/pci-bus.ts';
import { isaDebugExit } from '../../devices/isa-debug-exit.ts';
import { usbEhci } from '../../devices/usb/ehci/ehci.ts';
import { usbKbd } from '../../devices/usb/hid/keyboard.ts';
import { pciOhci } from '../../devices/usb/ohci/ohci.ts';
import { usbStorage } from '../../devices/usb/storage/usb-storage.ts';
import { piix3UsbUhci } from '../../devices/usb/uhci/uhci.ts';
import { qemuXhci } from '../../devices/usb/xhci/xhci.ts';
import { pc } from '../../machines/pc.ts';
import { buildGuest } from './build.ts';
import { GuestConsole } from './guest-console.ts';
import { guestOrSkip } from './guest-or-skip.ts';

t.setTimeout(600_000);
const PATIENCE_MS = 150_000;

/** A disk with our boot sector at its beginning. */
async function disk(t: Test): Promise<Drives> {
  const drives = new Drives(blockGraph());
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-usb-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const image = join(folder, 'stick.img');
  copyFileSync(await buildGuest('real16'), image);
  truncateSync(image, 4 * 2 ** 20);
  const options: [string, string][] = [
    ['id', 'stick'],
    ['file', image],
    ['format', 'raw'],
    ['readonly', 'on'],
    ['if', 'none'],
  ];
  await drives.add(options, { interface: 'none', snapshot: false, isDefault: false });
  return drives;
}

for (const controller of [piix3UsbUhci, pciOhci, usbEhci, qemuXhci]) {
  t.test(`SeaBIOS: keyboard and disk on ${controller.type}`, { timeout: 200_000 }, async t => {
    const firmware = await guestOrSkip(t, 'seabios');
    if (firmware === undefined) return;
    const drives = await disk(t);
    const terminal = new GuestConsole();
    await terminal.open();
    const machine = new Machine({
      type: pc,
      config: {
        ...DEFAULT_CONFIG,
        ramSize: 32 * 2 ** 20,
        serials: ['serial0'],
        boot: { menu: true, splashTimeMs: 2000 },
        options: { i8042: 'off' },
      },
      accelerator: wasm,
      icount: { shift: 4, sleep: false },
      backends: { find: (kind, id) => (kind === 'drive' ? drives.graph.backend(id) : terminal) },
      romImage: name => readFileSync(join(firmware.directory, name)),
    }).build();
    t.teardown(() => machine.dispose());
    const pci = machine.findBus('pci.0');
    const usb = pci instanceof PciBus ? pci.plug(controller, {}, {}, 'usb').buses[0] : undefined;
    usb?.plug(usbKbd, {}, {});
    usb?.plug(usbStorage, {}, { drive: 'stick' });
    machine.findBus('isa.0')?.plug(isaDebugExit, {}, { iobase: 0xf4 });
    // SeaBIOS asks for a key only once it has found its keyboards, and a key pressed before that is lost.
    let key = 'esc';
    let down = false;
    const person = machine.clocks.virtual.timer('person', () => {
      down = !down;
      machine.services.input.send([{ kind: 'key', key, down }]);
      person.arm(ms(50));
    });
    machine.resetDevices();
    machine.start();
    await terminal.until(/for boot menu/, PATIENCE_MS);
    person.arm(ms(50));
    await terminal.until(/Select boot device:/, PATIENCE_MS);
    const [, choice = '1'] = await terminal.until(/(\d)\. USB MSC Drive QEMU QEMU HARDDISK/, PATIENCE_MS);
    key = choice;
    await terminal.until(/real mode: 10 timer interrupts/, PATIENCE_MS);
    t.pass('the keyboard chose the disk, and its boot sector ran');
  });
}
