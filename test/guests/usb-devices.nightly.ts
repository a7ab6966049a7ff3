import t from 'tap';
import { Chardev } from '../../core/char/chardev.ts';
import { NetClient } from '../../core/net/net-client.ts';
import { UsbBus } from '../../core/usb/bus.ts';
import { usbWacomTablet } from '../../devices/usb/hid/wacom.ts';
import { usbNet } from '../../devices/usb/net/usb-net.ts';
import { usbSerial } from '../../devices/usb/serial/usb-serial.ts';
import { qemuXhci } from '../../devices/usb/xhci/xhci.ts';
import { until } from '../until.ts';
import { bootLinux } from './linux-machine.ts';

t.setTimeout(600_000);
const PATIENCE_MS = 500_000;
const ETHERTYPE = 0x0806;

/** Echoes what the guest says, in capitals. */
class Echo extends Chardev {
  readonly filename = 'echo';

  constructor() {
    super('echo');
    this.opened();
  }

  override dispose(): void {}

  protected override transmit(bytes: Uint8Array): number {
    const text = Buffer.from(bytes).toString('latin1').toUpperCase();
    setImmediate(() => this.push(Buffer.from(text, 'latin1')));
    return bytes.length;
  }
}

/** Answers the guest's ARP requests: whoever is asked for is 02:00:00:00:00:01. */
function wire(): { readonly client: NetClient; readonly asked: () => number } {
  let asked = 0;
  const client: NetClient = new NetClient('wire', 'wire', {
    canReceive: () => true,
    receive(frame, length) {
      const request = Buffer.from(frame.subarray(0, length));
      if (request.readUInt16BE(12) !== ETHERTYPE || request.readUInt16BE(20) !== 1) return true;
      asked++;
      const answer = Buffer.alloc(60);
      request.copy(answer, 0, 6, 12);
      answer.set([2, 0, 0, 0, 0, 1], 6);
      request.copy(answer, 12, 12, 20);
      answer.writeUInt16BE(2, 20);
      answer.set([2, 0, 0, 0, 0, 1], 22);
      request.copy(answer, 28, 38, 42);
      request.copy(answer, 32, 22, 32);
      setImmediate(() => client.send(answer));
      return true;
    },
  });
  return { client, asked: () => asked };
}

t.test('Linux uses serial port, network card and graphics tablet through its drivers', async t => {
  const echo = new Echo();
  const { client, asked } = wire();
  const backends: Readonly<Record<string, unknown>> = { echo, wire: { client } };
  const linux = await bootLinux(t, {
    modules: ['xhci_pci', 'usbserial', 'ftdi_sio', 'cdc_ether', 'rndis_host', 'wacom', 'evdev'],
    backend: (_kind, id) => backends[id],
    plug(machine) {
      const controller = machine.findBus('pci.0')?.plug(qemuXhci);
      const usb = controller?.buses.find(bus => bus instanceof UsbBus);
      usb?.plug(usbSerial, { port: '1' }, { chardev: 'echo' });
      usb?.plug(usbNet, { port: '2' }, { netdev: 'wire' });
      usb?.plug(usbWacomTablet, { port: '3' });
    },
    init: `
      mdev -s 2>/dev/null
      for i in $(seq 60); do [ -e /sys/class/tty/ttyUSB0 ] && [ -e /sys/class/net/eth0 -o -e /sys/class/net/usb0 ] && break; sleep 1; done
      mknod /dev/ttyUSB0 c 188 0
      stty -F /dev/ttyUSB0 raw -echo 9600
      exec 3<>/dev/ttyUSB0
      echo through the wire >&3
      read -t 20 answer <&3
      echo "SERIAL $answer"
      for kind in ether rndis; do
        card=$(ls /sys/class/net | grep -v lo | head -n 1)
        echo "DRIVER $kind $(basename $(readlink /sys/class/net/$card/device/driver))"
        ifconfig $card 10.0.0.2 netmask 255.255.255.0 up
        arping -c 3 -w 20 -I $card 10.0.0.1
        ifconfig $card down
        for configuration in /sys/bus/usb/devices/*/bConfigurationValue; do
          grep -q a4a2 $(dirname $configuration)/idProduct && echo 2 > $configuration
        done
        sleep 2
      done
      grep -A5 -i -e wacom -e penpartner /proc/bus/input/devices
      for e in /sys/class/input/event*; do
        grep -q -i -e wacom -e penpartner $e/device/name && name=$(basename $e)
      done
      mknod /dev/tablet c 13 $(cut -d: -f2 /sys/class/input/$name/dev)
      echo "LISTENING $name"
      dd if=/dev/tablet bs=16 count=4 2>/dev/null | hexdump -v -e '8/2 "%04x " "\\n"'
      echo THE-END`,
  });
  if (linux === undefined) return;
  await linux.terminal.until(/LISTENING event\d|LISTENING *\r/, PATIENCE_MS);
  const { input } = linux.machine.services;
  await until(() => input.absolute);
  const again = setInterval(() => {
    for (const value of [0x4000, 0x2000])
      input.send([
        { kind: 'absolute', axis: 'x', value },
        { kind: 'absolute', axis: 'y', value },
        { kind: 'button', button: 'left', down: value === 0x4000 },
      ]);
  }, 100);
  t.teardown(() => clearInterval(again));
  await linux.terminal.until(/THE-END/, PATIENCE_MS);
  const said = linux.terminal.output;
  t.match(said, 'SERIAL THROUGH THE WIRE');
  t.match(said, 'DRIVER ether cdc_ether');
  t.match(said, 'DRIVER rndis rndis_host');
  t.equal(said.match(/eply from 10\.0\.0\.1 \[0?2:0?0:0?0:0?0:0?0:0?1\]/g)?.length, 6, 'three answers each');
  t.ok(asked() >= 6);
  t.match(said, /Wacom PenPartner/i);
  t.match(said, / 0003 0000 /, 'ABS_X');
});
