import t from 'tap';
import { qtest } from '../../core/accel/qtest/accelerator.ts';
import { Machine } from '../../core/machine/machine.ts';
import { DEFAULT_CONFIG } from '../../core/machine/machine-config.ts';
import { machineType } from '../../core/machine/machine-type.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { HPET_BASE, type Hpet, hpet } from '../../devices/hpet.ts';

const GEN_CONF = 0x010;
const GINTR_STA = 0x020;
const MAIN_CNT = 0x0f0;
const conf = (timer: number): number => 0x100 + 0x20 * timer;
const comp = (timer: number): number => 0x108 + 0x20 * timer;
const LEVEL = 1 << 1;
const ENABLE = 1 << 2;
const PERIODIC = 1 << 3;
const VAL_SET = 1 << 6;
const MODE_32 = 1 << 8;
const route = (irq: number): number => irq << 9;
const TICKS = 10;

function lab(properties: { msi?: boolean; timers?: number } = {}) {
  let device: Hpet | undefined;
  const type = machineType({
    type: 'hpet-lab',
    summary: 'RAM and an HPET',
    build(machine) {
      machine.memoryRoot.add(MemoryRegion.ram(machine.allocateRam('ram', 0x1_0000)), 0);
      device = machine.system.plug(hpet, { 'hpet-intcap': 4, ...properties });
    },
  });
  const machine = new Machine({ type, config: DEFAULT_CONFIG, accelerator: qtest }).build();
  t.teardown(() => machine.dispose());
  machine.resetDevices();
  if (device === undefined) throw new Error('the machine has no HPET');
  const edges: string[] = [];
  device.interrupts.forEach((line, irq) => {
    line.connect(level => edges.push(`${irq}${level ? '+' : '-'}`));
  });
  const { memory } = machine;
  return {
    machine,
    device,
    edges,
    read: (offset: number) => memory.read(HPET_BASE + offset, 4),
    write: (offset: number, value: number) => memory.write(HPET_BASE + offset, 4, value),
    ticks: (count: number) => machine.clocks.virtual.advance(count * TICKS),
  };
}

t.test('it says what it can do, and only 32 bits at a time', async t => {
  const { machine, read } = lab();
  t.equal(read(0), 0x8086_a201);
  t.equal(read(4), 10_000_000);
  t.equal(read(conf(0)), 0x30);
  t.equal(read(conf(0) + 4), 4);
  t.equal(read(conf(3)), 0, 'there is no fourth timer');
  t.equal(machine.memory.read(HPET_BASE, 2), 0);
  t.equal(lab({ timers: 8 }).read(0), 0x8086_a701);
});

t.test('the counter runs while it is enabled', async t => {
  const { read, write, ticks } = lab();
  ticks(100);
  t.equal(read(MAIN_CNT), 0);
  write(MAIN_CNT, 0xffff_fff0);
  write(GEN_CONF, 1);
  ticks(0x20);
  t.equal(read(MAIN_CNT), 0x10);
  t.equal(read(MAIN_CNT + 4), 1, 'carried');
  write(GEN_CONF, 0);
  ticks(5);
  t.equal(read(MAIN_CNT), 0x10);
});

t.test('one shot: an edge, or a level that stays until it is acknowledged', async t => {
  const { edges, read, write, ticks } = lab();
  write(GEN_CONF, 1);
  write(conf(0), ENABLE | route(2));
  write(comp(0), 1000);
  write(comp(0) + 4, 0);
  ticks(999);
  t.same(edges, []);
  ticks(1);
  t.same(edges.splice(0), ['2+', '2-']);
  write(conf(1), ENABLE | LEVEL | route(20));
  write(comp(1), 2000);
  write(comp(1) + 4, 0);
  ticks(1000);
  t.same(edges.splice(0), ['20+']);
  t.equal(read(GINTR_STA), 2);
  write(GINTR_STA, 2);
  t.equal(read(GINTR_STA), 0);
  t.same(edges.splice(0), ['20-']);
});

t.test('periodic, with the comparator following', async t => {
  const { edges, read, write, ticks } = lab();
  write(conf(0), ENABLE | PERIODIC | VAL_SET | MODE_32 | route(2));
  write(comp(0), 500);
  write(comp(0), 300);
  write(GEN_CONF, 1);
  ticks(500);
  t.equal(edges.splice(0).length, 2);
  t.equal(read(comp(0)), 800);
  ticks(900);
  t.equal(edges.splice(0).length, 6);
  write(comp(0), 1);
  ticks(10_000);
  t.ok(edges.length < 400, 'a period of 10 ns keeps nobody busy');
});

t.test('a 32-bit one shot also marks the wrap of the counter', async t => {
  const { edges, write, ticks } = lab();
  write(MAIN_CNT, 0xffff_ff00);
  write(conf(0), ENABLE | MODE_32 | route(2));
  write(comp(0), 0x100);
  write(GEN_CONF, 1);
  ticks(0x100);
  t.equal(edges.splice(0).length, 2, 'the wrap');
  ticks(0x101);
  t.equal(edges.splice(0).length, 2, 'the comparator');
});

t.test('legacy replacement takes IRQ 0 and 8 from the older timers', async t => {
  const { device, edges, write, ticks } = lab();
  const silenced: boolean[] = [];
  device.legacyReplacement.connect(level => silenced.push(level));
  device.legacy[0]?.raise();
  device.legacy[1]?.raise();
  t.same(edges.splice(0), ['0+', '8+']);
  write(GEN_CONF, 3);
  t.same(edges.splice(0), ['0-', '8-']);
  t.same(silenced, [true]);
  device.legacy[0]?.lower();
  device.legacy[0]?.raise();
  t.same(edges, []);
  write(conf(0), ENABLE);
  write(comp(0), 100);
  write(comp(0) + 4, 0);
  write(conf(1), ENABLE);
  write(comp(1), 200);
  write(comp(1) + 4, 0);
  ticks(300);
  t.same(edges.splice(0), ['0+', '0-', '8+', '8-']);
  write(GEN_CONF, 0);
  t.same(edges.splice(0), ['8+'], "the clock's own interrupt is back");
});

t.test('messages go where the guest says', async t => {
  const { machine, edges, write, ticks } = lab({ msi: true });
  write(GEN_CONF, 1);
  write(0x110, 0x1234_5678);
  write(0x114, 0x2000);
  write(conf(0), ENABLE | (1 << 14));
  write(comp(0), 10);
  write(comp(0) + 4, 0);
  ticks(20);
  t.equal(machine.memory.read(0x2000, 4), 0x1234_5678);
  t.same(edges, []);
});

t.test('a snapshot keeps the counter and the timers', async t => {
  const { device, edges, read, write, ticks } = lab();
  write(conf(0), ENABLE | route(2));
  write(comp(0), 1000);
  write(comp(0) + 4, 0);
  write(GEN_CONF, 1);
  ticks(400);
  const saved = device.save();
  device.reset();
  t.equal(read(MAIN_CNT), 0);
  device.restore(saved);
  t.equal(read(MAIN_CNT), 400);
  ticks(600);
  t.equal(edges.length, 2);
});
