import fc from 'fast-check';
import t from 'tap';
import { qtest } from '../../core/accel/qtest/accelerator.ts';
import { ms } from '../../core/clock/units.ts';
import { Machine } from '../../core/machine/machine.ts';
import { DEFAULT_CONFIG } from '../../core/machine/machine-config.ts';
import { machineType } from '../../core/machine/machine-type.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { PciBus } from '../../core/pci/pci-bus.ts';
import { driverView, type Registers } from '../../core/register/register.ts';
import { edu, eduRegisters } from '../../devices/edu.ts';

const RAM = 0x10_0000;
const BAR = 0xfea0_0000;
const BUFFER = 0x4_0000n;

type Card = ReturnType<typeof edu.make>;

interface Lab {
  readonly machine: Machine;
  readonly card: Card;
  readonly regs: Registers<typeof eduRegisters>;
  /** Messages that the card has sent. */
  readonly messages: number[];
  advance(ns: number): void;
}

function lab(props: Readonly<Record<string, string>> = {}): Lab {
  let card: Card | undefined;
  const messages: number[] = [];
  const type = machineType({
    type: 'edu-lab',
    summary: 'RAM, a PCI bus and the card',
    build(machine) {
      const { services, home, memoryRoot: memory, ioRoot: io, memory: dmaSpace } = machine;
      memory.add(MemoryRegion.ram(machine.allocateRam('ram', RAM)), 0);
      const sink = {
        read: () => 0,
        write(_offset: number, _size: number, data: number) {
          messages.push(data);
        },
      };
      memory.add(MemoryRegion.io('messages', 0x1000, sink), 0xfd00_0000);
      const router = { route: (_devfn: number, pin: number) => pin, setIrq: () => {} };
      card = new PciBus('pci.0', { services, home, memory, io, dmaSpace, router }).plug(edu, { addr: '04.0' }, props);
    },
  });
  const machine = new Machine({ type, config: DEFAULT_CONFIG, accelerator: qtest }).build();
  t.teardown(() => machine.dispose());
  if (card === undefined) throw new Error('the lab has no card');
  card.configWrite(0x10, 4, BAR);
  card.configWrite(0x04, 2, 6);
  const port = {
    read: (offset: number, size: number) => machine.memory.read(BAR + offset, size),
    write: (offset: number, size: number, value: number) => machine.memory.write(BAR + offset, size, value),
  };
  const regs = driverView(eduRegisters, port);
  return { machine, card, regs, messages, advance: ns => machine.clocks.virtual.advance(ns) };
}

/** Points the card at vector 0x31 by message. */
function enableMsi({ card }: Lab): void {
  const cap = card.config.findCapability(5);
  card.configWrite(cap + 4, 4, 0xfd00_0000);
  card.configWrite(cap + 12, 2, 0x31);
  card.configWrite(cap + 2, 2, 1);
}

t.test('it is who QEMU says it is', async t => {
  const { card, machine } = lab();
  t.equal(card.configRead(0, 4), 0x11e8_1234);
  t.equal(card.configRead(8, 4), 0x00ff_0010);
  t.equal(card.configRead(0x2c, 4), 0x1100_1af4);
  t.equal(card.configRead(0x3d, 1), 1);
  card.configWrite(0x10, 4, 0xffff_ffff);
  t.equal(card.configRead(0x10, 4), 0xfff0_0000, '1 MiB of 32-bit memory');
  card.configWrite(0x10, 4, BAR);
  t.equal(machine.memory.read(BAR, 4), 0x0100_00ed);
  t.equal(machine.memory.read(BAR, 1), 0, 'registers take words only');
  t.equal(machine.memory.read(BAR + 0x60, 4), 0xffff_ffff, 'a write-only register');
  t.equal(machine.memory.read(BAR + 0xf_fffc, 4), 0xffff_ffff, 'nothing there');
});

t.test('liveness', async t => {
  const { regs } = lab();
  regs.LIVENESS.value = 0x1234_5678;
  t.equal(regs.LIVENESS.value, 0xedcb_a987);
});

t.test('a factorial takes its time, and raises INTx only if asked to', async t => {
  const { regs, card, advance } = lab();
  regs.FACTORIAL.value = 5;
  t.equal(regs.STATUS.COMPUTING, true);
  regs.FACTORIAL.value = 6;
  t.equal(regs.FACTORIAL.value, 5, 'busy: not taken');
  advance(ms(1));
  t.match(regs.STATUS, { COMPUTING: false });
  t.equal(regs.FACTORIAL.value, 120);
  t.equal(card.intxLevel, false);
  regs.STATUS.IRQ_ON_FACTORIAL = true;
  regs.FACTORIAL.value = 13;
  advance(ms(1));
  t.equal(regs.FACTORIAL.value, 1932053504, 'modulo 2^32');
  t.equal(card.intxLevel, true);
  t.equal(regs.IRQ_STATUS.FACTORIAL, true);
  regs.IRQ_ACK.value = 1;
  t.equal(card.intxLevel, false);
  regs.FACTORIAL.value = 0xffff_ffff;
  advance(ms(1));
  t.equal(regs.FACTORIAL.value, 0, 'a huge number costs no more than a small one');
});

t.test('interrupts on request, by INTx and by message', async t => {
  const all = lab();
  const { regs, card, messages } = all;
  regs.IRQ_RAISE.value = 0x30;
  t.equal(card.intxLevel, true);
  regs.IRQ_ACK.value = 0x10;
  t.equal(card.intxLevel, true, 'one cause is left');
  regs.IRQ_ACK.value = 0x20;
  t.equal(card.intxLevel, false);
  enableMsi(all);
  regs.IRQ_RAISE.value = 1;
  regs.IRQ_RAISE.value = 2;
  t.same(messages, [0x31, 0x31], 'each request is a message, acknowledged or not');
  t.equal(card.intxLevel, false);
});

t.test('DMA there and back', async t => {
  const { regs, card, machine, advance } = lab();
  const bytes = Uint8Array.from({ length: 4096 }, (_, index) => index * 7);
  machine.memory.writeBytes(0x1000, bytes, 0, 4096);
  const move = (from: bigint, to: bigint, count: bigint, DIR: 'fromRam' | 'toRam', IRQ: boolean): void => {
    regs.DMA_SRC.value = from;
    regs.DMA_DST.value = to;
    regs.DMA_COUNT.value = count;
    const direction = DIR === 'toRam' ? 2n : 0n;
    regs.DMA_CMD.value = 1n | direction | (IRQ ? 4n : 0n);
  };
  move(0x1000n, BUFFER, 4096n, 'fromRam', true);
  regs.DMA_SRC.value = 0x9999n;
  t.equal(regs.DMA_SRC.value, 0x1000n, 'locked while it runs');
  advance(ms(99));
  t.equal(regs.DMA_CMD.RUN, true);
  advance(ms(1));
  t.equal(regs.DMA_CMD.RUN, false);
  t.match([regs.IRQ_STATUS.DMA, card.intxLevel], [true, true]);
  regs.IRQ_ACK.value = 0x100;
  move(BUFFER + 16n, 0x8000n, 32n, 'toRam', false);
  advance(ms(100));
  const back = new Uint8Array(33);
  machine.memory.readBytes(0x8000, back, 0, 33);
  t.same(back, [...bytes.subarray(16, 48), 0], 'these bytes and no more');
  t.equal(card.intxLevel, false, 'silent as asked');
});

t.test('DMA that cannot be', async t => {
  const { regs, card, machine, advance } = lab({ dma_mask: '0xffff' });
  const run = (from: bigint, to: bigint, count: bigint, command: bigint): void => {
    regs.DMA_SRC.value = from;
    regs.DMA_DST.value = to;
    regs.DMA_COUNT.value = count;
    regs.DMA_CMD.value = command;
    advance(ms(100));
  };
  for (const [to, count] of [
    [BUFFER, 4097n],
    [BUFFER - 1n, 8n],
    [BUFFER, 0n],
    [0xffff_ffff_ffff_ffffn, 8n],
    [BUFFER, 0xffff_ffff_ffff_ffffn],
  ] as const) {
    run(0x1000n, to, count, 5n);
    t.match([regs.DMA_CMD.RUN, card.intxLevel], [false, false], `${count} bytes to ${to}`);
  }
  machine.memory.write(0x1000, 4, 0xcafe_f00d);
  run(0xff_1000n, BUFFER, 4n, 1n);
  run(BUFFER, 0x2000n, 4n, 3n);
  t.equal(machine.memory.read(0x2000, 4), 0xcafe_f00d, 'address lines above the mask are not there');
  card.configWrite(0x04, 2, 2);
  run(BUFFER, 0x3000n, 4n, 3n);
  t.equal(machine.memory.read(0x3000, 4), 0, 'no bus master, no DMA');
  card.configWrite(0x04, 2, 6);
  run(BUFFER, BigInt(BAR & 0xffff), 4n, 3n);
  t.pass('its own registers are out of its reach');
});

t.test('a reset, and a snapshot in the middle of a factorial and a transfer', async t => {
  const a = lab();
  a.regs.STATUS.IRQ_ON_FACTORIAL = true;
  a.regs.FACTORIAL.value = 4;
  a.machine.memory.write(0x1000, 4, 0x1122_3344);
  a.regs.DMA_SRC.value = 0x1000n;
  a.regs.DMA_DST.value = BUFFER;
  a.regs.DMA_COUNT.value = 4n;
  a.regs.DMA_CMD.value = 1n;
  a.advance(ms(0.5));
  const saved = a.card.save();
  const b = lab();
  b.machine.memory.write(0x1000, 4, 0x1122_3344);
  b.advance(ms(0.5));
  b.card.restore(saved);
  b.advance(ms(100));
  t.equal(b.regs.FACTORIAL.value, 24);
  t.equal(b.regs.DMA_CMD.RUN, false);
  t.equal(b.card.intxLevel, true);
  a.card.reset();
  a.advance(ms(200));
  t.equal(a.card.intxLevel, false, 'what was under way is forgotten');
});

t.test('no access throws, whatever it is', async t => {
  const { machine, advance } = lab();
  const access = fc.tuple(
    fc.oneof(fc.nat(0xa0), fc.nat(0xf_ffff)),
    fc.constantFrom(1, 2, 4),
    fc.nat(0xffff_ffff),
    fc.nat(200),
  );
  const property = fc.property(fc.array(access, { maxLength: 50 }), accesses => {
    for (const [offset, size, value, wait] of accesses) {
      machine.memory.write(BAR + offset, size, value);
      machine.memory.read(BAR + offset, size);
      advance(ms(wait));
    }
  });
  t.doesNotThrow(() => fc.assert(property, { numRuns: 300 }));
});
