import t from 'tap';
import { Chardev } from '../../core/char/chardev.ts';
import { bench } from '../../core/testing/bench.ts';
import { VirtioDriver } from '../../core/testing/virtio-driver.ts';
import type { DriverQueue } from '../../core/testing/virtio-driver-queue.ts';
import { virtserialport } from '../../devices/virtio-console.ts';
import { EVENT, virtioSerialPci } from '../../devices/virtio-serial.ts';

/** VIRTIO_CONSOLE_F_MULTIPORT, and what a driver of version 1 takes. */
const FEATURES = (1n << 1n) | (1n << 32n);
/** Queues (virtio 1.2, section 5.3.2). */
const CONTROL_IN = 2;
const CONTROL_OUT = 3;
const PORT_OUT = 5;
const CONTROL_SIZE = 8;
const BUFFERS = 8;

/** Somebody who comes and goes, and takes no more than there is room for. */
class Peer extends Chardev {
  room = Number.POSITIVE_INFINITY;
  got = '';

  constructor() {
    super('peer');
  }

  override get filename(): string {
    return 'test';
  }

  override dispose(): void {}

  come(): void {
    this.opened();
  }

  leave(): void {
    this.closed();
  }

  protected override transmit(bytes: Uint8Array): number {
    const taken = Math.min(bytes.length, this.room);
    this.room -= taken;
    this.got += Buffer.from(bytes.subarray(0, taken)).toString('latin1');
    return taken;
  }
}

function port() {
  const peer = new Peer();
  const lab = bench({ backends: { find: () => peer } });
  t.teardown(() => lab.dispose());
  const probe = lab.pci(virtioSerialPci, { max_ports: 4 });
  probe.device.buses[0]?.devices[0]?.buses[0]?.plug(virtserialport, {}, { chardev: 'peer', name: 'agent' }, 'channel0');
  lab.machine.start();
  const changes: unknown[] = [];
  lab.machine.listen((event, data) => event === 'VSERPORT_CHANGE' && changes.push(data['open']));
  const driver = new VirtioDriver(lab, probe);
  driver.negotiate(FEATURES);
  const [control, say, output] = [driver.queue(CONTROL_IN), driver.queue(CONTROL_OUT), driver.queue(PORT_OUT)];
  driver.start();
  const buffers = new Map<number, number>();
  const give = (): void => {
    const address = driver.allocate(CONTROL_SIZE);
    buffers.set(control.add([{ address, length: CONTROL_SIZE, writable: true }]), address);
  };
  for (let count = 0; count < BUFFERS; count++) give();
  const send = (queue: DriverQueue, bytes: Uint8Array): void => {
    const address = driver.allocate(bytes.length);
    driver.ram.bytes.set(bytes, address);
    queue.add([{ address, length: bytes.length }]);
    queue.kick();
  };
  return {
    lab,
    peer,
    /** What the monitor has been told since the last call. */
    changes: () => changes.splice(0),
    /** What the guest has been told since the last call: events with their values. */
    heard: () => {
      const events: [number, number][] = [];
      for (let used = control.used(); used !== undefined; used = control.used()) {
        const at = buffers.get(used.id) ?? 0;
        events.push([driver.ram.view.getUint16(at + 4, true), driver.ram.view.getUint16(at + 6, true)]);
        give();
      }
      return events;
    },
    tell: (event: number, value: number) => send(say, Uint8Array.of(1, 0, 0, 0, event, 0, value, 0)),
    write: (text: string) => send(output, Buffer.from(text)),
    written: () => output.used() !== undefined,
    /** The state of all that is virtio, to be brought back. */
    save: () => {
      const saved = [...lab.machine.devices()]
        .filter(device => device.typeName.startsWith('virt'))
        .map(device => [device, device.save()] as const);
      return () => {
        lab.machine.stop();
        for (const [device] of saved) device.reset();
        for (const [device, state] of saved) device.restore(state);
      };
    },
  };
}

t.test('each side hears of the other', async t => {
  const { peer, tell, heard, changes, write, written } = port();
  tell(EVENT.PORT_READY, 1);
  t.strictSame(heard(), [[EVENT.PORT_NAME, 1]]);
  peer.come();
  t.strictSame(heard(), [[EVENT.PORT_OPEN, 1]]);
  tell(EVENT.PORT_OPEN, 1);
  t.strictSame(changes(), [true]);
  write('hello');
  t.equal(written(), true);
  t.equal(peer.got, 'hello');
  peer.leave();
  t.strictSame(heard(), [[EVENT.PORT_OPEN, 0]]);
  write('lost');
  t.equal(written(), true, 'nobody is there: the guest is not held up');
  t.equal(peer.got, 'hello');
});

t.test('a machine that arrives elsewhere tells its monitor, and its guest what is different here', async t => {
  const { lab, peer, tell, heard, changes, save } = port();
  peer.come();
  tell(EVENT.PORT_OPEN, 1);
  heard();
  changes();
  const restore = save();
  restore();
  t.strictSame(changes(), [false], 'only of the reset');
  lab.machine.start();
  t.strictSame(changes(), [true], 'the guest has it open');
  t.strictSame(heard(), [], 'somebody is here as there');
  peer.leave();
  heard();
  restore();
  changes();
  lab.machine.start();
  t.strictSame(changes(), [true]);
  lab.machine.stop();
  lab.machine.start();
  t.strictSame(changes(), [], 'once');
  // That nobody is here stands where the driver has read of it before.
  t.strictSame(heard(), []);
  peer.come();
  t.strictSame(heard(), [[EVENT.PORT_OPEN, 1]], 'the guest has heard that nobody is here, and hears who comes');
});

t.test('what was on its way when the state was saved arrives', async t => {
  const { lab, peer, tell, write, written, save } = port();
  peer.come();
  tell(EVENT.PORT_OPEN, 1);
  peer.room = 3;
  write('abcdef');
  t.equal(written(), false);
  t.equal(peer.got, 'abc');
  const restore = save();
  restore();
  peer.room = 100;
  t.equal(peer.got, 'abc');
  lab.machine.start();
  t.equal(peer.got, 'abcdef');
  t.equal(written(), true);
  peer.room = 0;
  write('more');
  const other = save();
  other();
  peer.leave();
  lab.machine.start();
  t.equal(written(), true, 'a guest whose peer has gone gets its buffer back');
});
