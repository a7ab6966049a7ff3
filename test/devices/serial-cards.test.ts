import t from 'tap';
import { Chardev } from '../../core/char/chardev.ts';
import { bench } from '../../core/testing/bench.ts';
import { ipoctal232 } from '../../devices/ipack/ipoctal232.ts';
import { tpci200 } from '../../devices/ipack/tpci200.ts';
import { pciSerial, pciSerial2x } from '../../devices/pci-serial.ts';

/** The other end of a serial line: what was sent, and whether it takes any. */
class Peer extends Chardev {
  readonly filename = 'peer';
  sent: number[] = [];
  blocked = false;

  constructor(label: string) {
    super(label);
    this.opened();
  }

  override dispose(): void {}

  say(...bytes: readonly number[]): void {
    this.push(Buffer.from(bytes));
  }

  goOn(): void {
    this.blocked = false;
    this.drained();
  }

  protected override transmit(bytes: Uint8Array): number {
    if (this.blocked) return 0;
    this.sent.push(...bytes);
    return bytes.length;
  }
}

function lab() {
  const peers = new Map<string, Peer>();
  const peer = (id: string): Peer => {
    const found = peers.get(id) ?? new Peer(id);
    peers.set(id, found);
    return found;
  };
  const table = bench({ backends: { find: (_kind, id) => peer(id) } });
  t.teardown(() => table.dispose());
  return { table, peer };
}

t.test('UARTs on PCI: bytes both ways, and an interrupt that several share', async t => {
  const { table, peer } = lab();
  const one = table.pci(pciSerial, { chardev: 'one' });
  const port = one.port(0);
  port.write(1, 1, 1);
  peer('one').say(0x41);
  t.equal(one.intx.level, true);
  t.equal(port.read(0, 1), 0x41);
  t.equal(one.intx.level, false);

  const two = table.pci(pciSerial2x, { chardev1: 'two', chardev2: 'three' });
  const ports = two.port(0);
  for (const base of [0, 8]) ports.write(base + 1, 1, 1);
  peer('two').say(1);
  peer('three').say(2, 3);
  t.equal(two.intx.level, true);
  t.equal(ports.read(0, 1), 1);
  t.equal(two.intx.level, true, 'the other still asks');
  t.same([ports.read(8, 1), two.intx.level, ports.read(8, 1)], [2, true, 3]);
  t.equal(two.intx.level, false);
  ports.write(8, 1, 0x55);
  t.same([peer('two').sent, peer('three').sent], [[], [0x55]]);
  // Restored in the middle, the line falls with the last that asks.
  peer('two').say(4);
  peer('three').say(5);
  const saved = two.device.save();
  two.device.reset();
  two.device.restore(saved);
  t.equal(ports.read(0, 1), 4);
  t.equal(two.intx.level, true);
  t.equal(ports.read(8, 1), 5);
  t.equal(two.intx.level, false);
});

/** Registers of channel a, byte addresses in the slot's I/O space. */
const SR = 2;
const CR = 4;
const RHR = 6;
const ISR = 10;
const CONTROL = 2;
const STATUS = 0x0c;

function octal() {
  const { table, peer } = lab();
  const carrier = table.pci(tpci200);
  const module = carrier.device.buses[0]?.plug(ipoctal232, {}, { chardev0: 'a', chardev1: 'b' });
  if (module === undefined) throw new TypeError('the carrier has no slots');
  const registers = carrier.port(2);
  const slot = carrier.port(3);
  return { carrier, module, peer, registers, slot };
}

t.test('IP-Octal: a FIFO of three, interrupts, a break', async t => {
  const { carrier, peer, registers, slot } = octal();
  registers.write(CONTROL, 2, 0xc0);
  slot.write(ISR, 2, 0x06);
  peer('a').say(1, 2, 3, 4, 5);
  t.equal(slot.read(SR, 2), 0, 'the receiver is off');
  slot.write(CR, 2, 1);
  t.equal(slot.read(SR, 2), 0x03, 'RXRDY, FFULL');
  t.same([slot.read(ISR, 2), registers.read(STATUS, 2), carrier.intx.level], [0x02, 0x01, true]);
  t.same(
    [1, 2, 3, 4, 5].map(() => slot.read(RHR, 2)),
    [1, 2, 3, 4, 5],
  );
  t.same([slot.read(SR, 2), slot.read(ISR, 2), registers.read(STATUS, 2), carrier.intx.level], [0, 0, 0, false]);
  t.equal(slot.read(RHR, 2), 5, 'an empty one gives what it gave last');
  peer('a').sendBreak();
  t.same([slot.read(SR, 2), slot.read(ISR, 2), carrier.intx.level], [0x81, 0x06, true]);
  t.equal(slot.read(RHR, 2), 0);
  t.same([slot.read(SR, 2), slot.read(ISR, 2), carrier.intx.level], [0, 0x04, true]);
  slot.write(CR, 2, 0x50);
  t.same([slot.read(ISR, 2), carrier.intx.level], [0, false]);
  peer('a').say(6, 7, 8);
  peer('a').sendBreak();
  t.equal(slot.read(SR, 2), 0x93, 'no room: OVERRUN');
  slot.write(CR, 2, 0x40);
  t.equal(slot.read(SR, 2), 0x03);
  slot.write(CR, 2, 0x20);
  t.equal(slot.read(SR, 2), 0);
});

t.test('IP-Octal: what the host does not take holds the transmitter up', async t => {
  const { carrier, module, peer, registers, slot } = octal();
  registers.write(CONTROL, 2, 0x40);
  slot.write(ISR, 2, 0x01);
  slot.write(CR, 2, 0x04);
  t.same([slot.read(SR, 2), carrier.intx.level], [0x0c, true]);
  slot.write(RHR, 2, 0x41);
  peer('a').blocked = true;
  slot.write(RHR, 2, 0x42);
  t.same([slot.read(SR, 2), carrier.intx.level], [0, false]);
  slot.write(RHR, 2, 0x43);
  const saved = module.save();
  peer('a').goOn();
  t.same([slot.read(SR, 2), carrier.intx.level, peer('a').sent], [0x0c, true, [0x41, 0x42]]);
  module.restore(saved);
  t.equal(slot.read(SR, 2), 0);
  peer('a').goOn();
  t.equal(slot.read(SR, 2), 0x0c);
  peer('a').blocked = true;
  slot.write(RHR, 2, 0x44);
  slot.write(CR, 2, 0x30);
  peer('a').goOn();
  t.same([slot.read(SR, 2), peer('a').sent], [0, [0x41, 0x42, 0x42]], 'a reset transmitter forgets');
});

t.test('a carrier has four slots', async t => {
  const { table } = lab();
  const carrier = table.pci(tpci200);
  const [bus] = carrier.device.buses;
  bus?.plug(ipoctal232, {}, { slot: 2 });
  t.throws(() => bus?.plug(ipoctal232, {}, { slot: 2 }), { code: 'ERR_BUS_ADDRESS' });
  t.equal(bus?.plug(ipoctal232).slot, 3);
  t.throws(() => bus?.plug(ipoctal232), { message: 'Only 4 slots available.' });
  t.equal(bus?.plug(ipoctal232, {}, { slot: 0 }).slot, 0);
});
