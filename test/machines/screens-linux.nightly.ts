import t from 'tap';
import type { Surface } from '../../core/display/screen.ts';
import type { Machine } from '../../core/machine/machine.ts';
import { PciBus } from '../../core/pci/pci-bus.ts';
import { bochsDisplay } from '../../devices/vga/bochs-display.ts';
import { virtioGpuPci } from '../../devices/virtio-gpu/virtio-gpu.ts';
import { virtioKeyboardPci } from '../../devices/virtio-input/keyboard.ts';
import { virtioTabletPci } from '../../devices/virtio-input/pointer.ts';
import { bootLinux } from '../guests/linux-machine.ts';

/** Fills the first rows of each frame buffer with a colour of its own, then shows what comes from keyboard and tablet. */
const INIT = `
dmesg -n 1
for fb in /sys/class/graphics/fb*; do
  n=\${fb##*fb}
  mknod /dev/fb$n c 29 $n 2>/dev/null
  head -n 1 $fb/modes > $fb/mode
  echo "fb$n: $(cat $fb/name) $(cat $fb/virtual_size) $(cat $fb/bits_per_pixel)"
  case $(cat $fb/bits_per_pixel) in
  16) pixel='\\020\\204' ;;
  24) pixel='\\020\\200\\360' ;;
  *) pixel='\\020\\200\\360\\377' ;;
  esac
  for i in $(seq 2000); do printf "$pixel"; done > /dev/fb$n
done
mkdir -p /dev/input
for i in /sys/class/input/event*; do
  n=\${i##*event}
  mknod /dev/input/event$n c 13 $((64 + n)) 2>/dev/null
  (while dd bs=16 count=1 2>/dev/null | hexdump -v -e '16/1 "%02x" "\\n"'; do :; done < /dev/input/event$n) &
done
sleep 1
echo 'listening'
read -r name
`;

/** How many of the first pixels have this colour; a text cursor may cover some. */
const painted = ({ pixels }: Surface, colour: number): number =>
  pixels.subarray(0, 2000).filter(pixel => pixel === colour).length;

const screenOf = (machine: Machine, type: string): Surface => {
  const { screens } = machine.services.displays;
  const found = screens.find(({ source }) => machine.findDevice(source.path)?.typeName === type);
  if (found === undefined) throw new Error(`no screen of ${type}`);
  return found.refresh();
};

t.setTimeout(1_000_000);
t.test(
  'Linux draws on VGA, virtio GPU and bochs-display; keys and positions reach it',
  { timeout: 500_000 },
  async t => {
    const linux = await bootLinux(t, {
      init: INIT,
      modules: ['bochs', 'virtio_pci', 'virtio-gpu', 'virtio_input', 'evdev'],
      config: { vga: 'std' },
      append: 'fbcon=map:012 vt.global_cursor_default=0',
      plug: machine => {
        const bus = machine.busFor(virtioGpuPci);
        if (!(bus instanceof PciBus)) throw new Error('no PCI bus');
        bus.plug(virtioGpuPci, {}, { xres: 640, yres: 480 });
        bus.plug(bochsDisplay, {}, { xres: 640, yres: 480 });
        bus.plug(virtioKeyboardPci);
        bus.plug(virtioTabletPci);
      },
    });
    if (linux === undefined) return;
    const { machine, terminal } = linux;
    await terminal.until(/listening/, 400_000);
    const { input } = machine.services;
    t.equal(input.absolute, true, 'the tablet is on');
    for (const type of ['VGA', 'virtio-gpu-pci', 'bochs-display']) {
      const count = painted(screenOf(machine, type), 0xf08010);
      t.ok(count >= 1900, `${type}: ${count} of 2000 pixels`);
    }
    input.send([{ kind: 'key', key: 'a', down: true }]);
    input.send([{ kind: 'key', key: 'a', down: false }]);
    input.send([
      { kind: 'absolute', axis: 'x', value: 0x1234 },
      { kind: 'button', button: 'left', down: true },
    ]);
    await terminal.until(/01001e0001000000/, 100_000);
    await terminal.until(/0300000034120000[\s\S]*0100100101000000/, 100_000);
    terminal.type('bye\n');
    t.equal(await linux.down, 'guest-shutdown');
  },
);

t.test("Linux's cirrus driver draws on a CL-GD5446", { timeout: 500_000 }, async t => {
  const linux = await bootLinux(t, {
    init: INIT,
    modules: ['cirrus', 'evdev'],
    config: { vga: 'cirrus' },
    append: 'vt.global_cursor_default=0',
  });
  if (linux === undefined) return;
  const { machine, terminal } = linux;
  await terminal.until(/listening/, 400_000);
  t.match(terminal.output, /fb0: cirrusdrmfb/, 'cirrus');
  const surface = screenOf(machine, 'cirrus-vga');
  const count = painted(surface, / 16\r?\n/.test(terminal.output) ? 0x848284 : 0xf08010);
  t.ok(count >= 1900, `${count} of 2000 pixels on ${surface.width}x${surface.height}`);
  terminal.type('bye\n');
  t.equal(await linux.down, 'guest-shutdown');
});
