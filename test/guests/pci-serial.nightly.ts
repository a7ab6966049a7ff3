import t from 'tap';
import { Chardev } from '../../core/char/chardev.ts';
import { PciBus } from '../../core/pci/pci-bus.ts';
import { pciSerial, pciSerial2x, pciSerial4x } from '../../devices/pci-serial.ts';
import { bootLinux } from './linux-machine.ts';

t.setTimeout(600_000);
const PATIENCE_MS = 500_000;
const PORTS = 7;

/** Answers each line with its own name in front. */
class Echo extends Chardev {
  readonly filename = 'echo';
  #line = '';

  constructor(label: string) {
    super(label);
    this.opened();
  }

  override dispose(): void {}

  protected override transmit(bytes: Uint8Array): number {
    this.#line += Buffer.from(bytes).toString('latin1');
    const lines = this.#line.split('\n');
    this.#line = lines.pop() ?? '';
    for (const line of lines) setImmediate(() => this.push(Buffer.from(`${this.label} got ${line}\n`, 'latin1')));
    return bytes.length;
  }
}

// Debian's 8250_pci is the oracle: it knows the three cards by their device ids, and drives them by interrupt.
t.test('Linux speaks through the UARTs of three PCI cards', async t => {
  const ports = new Map(Array.from({ length: PORTS }, (_, index) => [`port${index}`, new Echo(`port${index}`)]));
  const linux = await bootLinux(t, {
    append: '8250.nr_uarts=16',
    backend: (_kind, id) => ports.get(id),
    plug(machine) {
      const pci = machine.findBus('pci.0');
      if (!(pci instanceof PciBus)) throw new TypeError('the machine has no PCI bus');
      pci.plug(pciSerial, { addr: '10' }, { chardev: 'port0' });
      pci.plug(pciSerial2x, { addr: '11' }, { chardev1: 'port1', chardev2: 'port2' });
      const four = { chardev1: 'port3', chardev2: 'port4', chardev3: 'port5', chardev4: 'port6' };
      pci.plug(pciSerial4x, { addr: '12' }, four);
    },
    init: `
      echo THE-BEGINNING
      for tty in /sys/class/tty/ttyS*; do
        name=$(basename $tty)
        device=$(basename $(readlink $tty/device))
        case $device in 0000:*) ;; *) continue;; esac
        [ "$(cat $tty/type)" = 4 ] || continue
        mknod /dev/$name c $(tr : ' ' < $tty/dev) 2>/dev/null
        stty -F /dev/$name raw -echo 115200
        exec 3<>/dev/$name
        echo a line of some length, longer than the queue >&3
        read -t 20 answer <&3
        echo "ON $device: $answer"
        exec 3<&-
      done
      cat /proc/tty/driver/serial
      echo THE-END`,
  });
  if (linux === undefined) return;
  const [listing] = await linux.terminal.until(/THE-BEGINNING[\s\S]*THE-END/, PATIENCE_MS);
  const cards = ['0000:00:10.0', '0000:00:11.0', '0000:00:11.0', ...Array(4).fill('0000:00:12.0')];
  for (const [index, card] of cards.entries())
    t.match(listing, `ON ${card}: port${index} got a line of some length, longer than the queue`);
});
