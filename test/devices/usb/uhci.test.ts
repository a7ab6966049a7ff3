import fc from 'fast-check';
import t from 'tap';
import { ms } from '../../../core/clock/units.ts';
import type { InputEvent } from '../../../core/display/input.ts';
import type { SavedRecord } from '../../../core/state/fields.ts';
import { type Bench, bench, type PciProbe } from '../../../core/testing/bench.ts';
import { UsbBus } from '../../../core/usb/bus.ts';
import { PID } from '../../../core/usb/packet.ts';
import { usbTablet } from '../../../devices/usb/hid/pointer.ts';
import { usbHub } from '../../../devices/usb/hub.ts';
import { TD, uhciRegisters } from '../../../devices/usb/uhci/registers.ts';
import { piix3UsbUhci } from '../../../devices/usb/uhci/uhci.ts';

/** A driver's memory: frame list, one queue head, transfer descriptors, a buffer. */
const FRAMES = 0x1000;
const QUEUE = 0x3000;
const TDS = 0x4000;
const BUFFER = 0x5000;
const TERMINATE = 1;
const QH_LINK = 2;

type Controller = ReturnType<(typeof piix3UsbUhci)['make']>;

class Driver {
  readonly lab: Bench = bench();
  readonly card: PciProbe<Controller> = this.lab.pci(piix3UsbUhci);
  readonly regs = this.card.bar(4, uhciRegisters);
  readonly memory = new DataView(this.lab.ram.bytes.buffer, this.lab.ram.bytes.byteOffset);

  get bus(): UsbBus {
    const [bus] = this.card.device.buses;
    if (!(bus instanceof UsbBus)) throw new TypeError('a UHCI controller has a USB bus');
    return bus;
  }

  start(): void {
    for (let frame = 0; frame < 1024; frame++) this.memory.setUint32(FRAMES + 4 * frame, QUEUE | QH_LINK, true);
    this.memory.setUint32(QUEUE, TERMINATE, true);
    this.memory.setUint32(QUEUE + 4, TERMINATE, true);
    this.regs.FRBASEADD.value = FRAMES;
    this.regs.USBINTR.value = 0xf;
    this.regs.USBCMD.RS = true;
  }

  resetPort(index: number): void {
    const port = this.regs.PORTSC.at(index);
    port.RESET = true;
    port.RESET = false;
    port.ENABLED = true;
  }

  /** Puts a chain of transfer descriptors on the queue, depth first. Returns their addresses. */
  submit(
    list: readonly { pid: number; address: number; endpoint?: number; length: number; buffer?: number }[],
  ): number[] {
    const at = (index: number): number => TDS + 32 * index;
    list.forEach(({ pid, address, endpoint = 0, length, buffer = BUFFER }, index) => {
      const last = index === list.length - 1;
      this.memory.setUint32(at(index), last ? TERMINATE : at(index + 1) | 4, true);
      this.memory.setUint32(at(index) + 4, TD.ACTIVE | (last ? TD.IOC : 0) | 0x7ff, true);
      this.memory.setUint32(
        at(index) + 8,
        (((length - 1) & 0x7ff) << 21) | (endpoint << 15) | (address << 8) | pid,
        true,
      );
      this.memory.setUint32(at(index) + 12, buffer, true);
    });
    this.memory.setUint32(QUEUE + 4, at(0), true);
    return list.map((_, index) => at(index));
  }

  control(address: number, setup: readonly number[], answer: number): number[] {
    setup.forEach((byte, index) => this.memory.setUint8(BUFFER + 0x800 + index, byte));
    const stage = { address, length: 0 };
    return this.submit([
      { ...stage, pid: PID.SETUP, length: 8, buffer: BUFFER + 0x800 },
      ...(answer > 0 ? [{ ...stage, pid: PID.IN, length: answer }] : []),
      { ...stage, pid: answer > 0 ? PID.OUT : PID.IN },
    ]);
  }

  /** What a person does. The bench's machine does not run, so the input goes to the device directly. */
  person(list: readonly InputEvent[]): void {
    const { input } = this.lab.machine.services;
    const devices = list.map(event => {
      const device = input.find(event.kind);
      device?.input(event);
      return device;
    });
    for (const device of new Set(devices)) device?.sync();
  }

  status(td: number): number {
    return this.memory.getUint32(td + 4, true);
  }

  bytes(count: number): number[] {
    return [...this.lab.ram.bytes.subarray(BUFFER, BUFFER + count)];
  }
}

/** A tablet on port 1, reset, with address 5 and configured. */
function tablet(): Driver {
  const driver = new Driver();
  driver.bus.plug(usbTablet, { port: '1' });
  driver.start();
  driver.resetPort(0);
  driver.control(0, [0x00, 5, 5, 0, 0, 0, 0, 0], 0);
  driver.lab.clock.advance(ms(2));
  driver.control(5, [0x00, 9, 1, 0, 0, 0, 0, 0], 0);
  driver.lab.clock.advance(ms(2));
  return driver;
}

t.test('a control transfer reads the device descriptor and interrupts', async t => {
  const driver = new Driver();
  driver.bus.plug(usbTablet, { port: '1' });
  t.equal(driver.regs.PORTSC.at(0).CONNECTED, true);
  driver.start();
  driver.resetPort(0);
  const tds = driver.control(0, [0x80, 6, 0, 1, 0, 0, 18, 0], 18);
  driver.lab.clock.advance(ms(2));
  t.same(driver.bytes(18), [18, 1, 0, 2, 0, 0, 0, 8, 0x27, 0x06, 1, 0, 0, 0, 1, 2, 4, 1]);
  t.same(
    tds.map(td => driver.status(td) & (TD.ACTIVE | 0x7ff)),
    [7, 17, 0x7ff],
    'each descriptor has its actual length and is done',
  );
  t.equal(driver.card.intx.level, true);
  driver.regs.USBSTS.value = 1;
  t.equal(driver.card.intx.level, false);
});

t.test('an interrupt endpoint answers NAK until there is something to tell', async t => {
  const driver = tablet();
  const [td = 0] = driver.submit([{ pid: PID.IN, address: 5, endpoint: 1, length: 8 }]);
  driver.lab.clock.advance(ms(20));
  t.ok((driver.status(td) & TD.ACTIVE) !== 0 && (driver.status(td) & TD.NAK) !== 0);
  driver.person([
    { kind: 'absolute', axis: 'x', value: 0x1234 },
    { kind: 'absolute', axis: 'y', value: 0x0567 },
    { kind: 'button', button: 'right', down: true },
  ]);
  driver.lab.clock.advance(ms(2));
  t.equal(driver.status(td) & (TD.ACTIVE | TD.NAK | 0x7ff), 5, 'six bytes');
  t.same(driver.bytes(6), [2, 0x34, 0x12, 0x67, 0x05, 0]);
});

t.test('what does not answer times out, and a stall is told', async t => {
  const driver = tablet();
  const [nobody = 0] = driver.submit([{ pid: PID.IN, address: 9, length: 8 }]);
  driver.lab.clock.advance(ms(2));
  t.equal(driver.status(nobody) & (TD.ACTIVE | TD.TIMEOUT), TD.TIMEOUT);
  t.equal(driver.regs.USBSTS.USBERRINT, true);
  const tds = driver.control(5, [0x80, 6, 0, 0x77, 0, 0, 8, 0], 8);
  driver.lab.clock.advance(ms(2));
  t.equal(driver.status(tds[0] ?? 0) & (TD.ACTIVE | TD.STALLED), TD.STALLED);
});

t.test('a pulled device is gone from its port, and a new one is seen', async t => {
  const driver = tablet();
  const port = driver.regs.PORTSC.at(0);
  port.CONNECT_CHANGE = true;
  driver.bus.removeAll();
  t.match(port, { CONNECTED: false, ENABLED: false, CONNECT_CHANGE: true, ENABLE_CHANGE: true });
  driver.bus.plug(usbTablet, { port: '1' });
  t.equal(port.CONNECTED, true);
  t.throws(() => driver.bus.plug(usbTablet, { port: '1' }), {
    message: /usb port 1 \(bus usb-bus\.0\) not found \(in use\?\)/,
  });
});

t.test('the last port takes a hub by itself; hubs stand in a row of five', async t => {
  const driver = new Driver();
  for (let count = 0; count < 2; count++) driver.bus.plug(usbTablet);
  t.same(
    driver.bus.usedPorts.map(({ path, device }) => `${path} ${device?.typeName}`),
    ['1 usb-tablet', '2 usb-hub', '2.1 usb-tablet'],
  );
  let path = '2';
  for (let depth = 1; depth < 5; depth++) {
    path += '.2';
    driver.bus.plug(usbHub, { port: path });
  }
  t.throws(() => driver.bus.plug(usbHub, { port: `${path}.2` }), { message: 'usb hub chain too deep' });
});

t.test('a controller that is stopped, or has nothing to do, costs next to nothing', async t => {
  const driver = new Driver();
  t.equal(driver.lab.clock.nextDeadlineNs, Number.POSITIVE_INFINITY, 'no timer before it is started');
  driver.start();
  let accesses = 0;
  driver.card.device.dma.fault = () => {
    accesses++;
    return false;
  };
  driver.lab.clock.advance(ms(200));
  accesses = 0;
  driver.lab.clock.advance(ms(6400));
  t.ok(accesses < 100 * 16 * 4, `${accesses} accesses in 6.4 s without a device`);
  driver.regs.USBCMD.RS = false;
  driver.lab.clock.advance(ms(100));
  t.equal(driver.lab.clock.nextDeadlineNs, Number.POSITIVE_INFINITY, 'no timer after it was stopped');
  t.equal(driver.regs.USBSTS.HALTED, true);
});

t.test('FRNUM counts frames whatever the pace', async t => {
  const driver = new Driver();
  driver.start();
  driver.lab.clock.advance(ms(500));
  const before = driver.regs.FRNUM.value;
  driver.lab.clock.advance(ms(7));
  t.equal((driver.regs.FRNUM.value - before) & 0x7ff, 7);
});

t.test('state goes over to another machine, with a transfer that waits', async t => {
  const [here, there] = [tablet(), new Driver()];
  there.bus.plug(usbTablet, { port: '1' });
  const [td = 0] = here.submit([{ pid: PID.IN, address: 5, endpoint: 1, length: 8 }]);
  here.lab.clock.advance(ms(3));
  const devices = (driver: Driver) => [driver.card.device, ...driver.bus.devices];
  const saved: SavedRecord[] = devices(here).map(device => device.save());
  there.lab.ram.bytes.set(here.lab.ram.bytes);
  there.lab.clock.restore(here.lab.clock.now());
  devices(there).forEach((device, index) => device.restore(saved[index] ?? null));
  t.same(
    devices(there).map(device => device.save()),
    saved,
    'saved again it is the same',
  );
  there.person([{ kind: 'button', button: 'left', down: true }]);
  there.lab.clock.advance(ms(30));
  t.equal(there.status(td) & (TD.ACTIVE | 0x7ff), 5);
});

// Guests may put anything into the schedule, and loops are even usual.
t.test('hostile schedules: bounded work in each frame, whatever is in memory', async t => {
  const word = fc.oneof(
    fc.nat(0xffff_ffff),
    fc.nat(63).map(slot => 0x1000 + 16 * slot),
    fc.nat(63).map(slot => (0x1000 + 16 * slot) | QH_LINK),
    fc.nat(63).map(slot => (0x1000 + 16 * slot) | 4),
    fc.constantFrom(
      TD.ACTIVE | 0x7ff,
      TD.ACTIVE | TD.IOC,
      (8 << 21) | PID.IN,
      (7 << 21) | PID.SETUP,
      (3 << 21) | PID.OUT,
    ),
  );
  fc.assert(
    fc.property(fc.array(word, { minLength: 256, maxLength: 256 }), words => {
      const driver = new Driver();
      driver.bus.plug(usbTablet, { port: '1' });
      driver.start();
      driver.resetPort(0);
      words.forEach((value, index) => driver.memory.setUint32(0x1000 + 4 * index, value, true));
      let accesses = 0;
      driver.card.device.dma.fault = () => {
        accesses++;
        return false;
      };
      for (let frame = 0; frame < 20; frame++) {
        const before = accesses;
        driver.lab.clock.advance(ms(1));
        if (accesses - before > 256 * 16) throw new Error(`${accesses - before} accesses in one frame`);
      }
      driver.lab.dispose();
    }),
    { numRuns: 150 },
  );
  t.pass();
});
