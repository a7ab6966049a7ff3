import t from 'tap';
import { ms } from '../../../core/clock/units.ts';
import { type DeviceContext, deviceType } from '../../../core/device/device-type.ts';
import { prop } from '../../../core/device/property.ts';
import { replaceDevice } from '../../../core/device/replace.ts';
import { PciDevice } from '../../../core/pci/pci-device.ts';
import { type DriverPort, driverView, type Registers, r32, registerMap } from '../../../core/register/register.ts';
import { field } from '../../../core/state/fields.ts';
import { type Bench, bench } from '../../../core/testing/bench.ts';
import { StandIns } from '../../../core/testing/stand-ins.ts';
import { ich9Ahci } from '../../../devices/ahci/ahci.ts';
import { ideHd } from '../../../devices/ide/ide-drive.ts';
import { tickCard, tickRegisters } from '../../../docs/examples/tick-card.ts';

t.setTimeout(240_000);

/** Accesses where the first base address register is now, whoever answers there later. */
const placed = (lab: Bench, device: PciDevice): DriverPort => {
  const address = device.bars[0]?.address ?? 0;
  const { memory } = lab.machine;
  return {
    read: (offset, size) => memory.read(address + offset, size),
    write: (offset, size, value) => memory.write(address + offset, size, value),
  };
};

t.test('registers, timers, lines, address and interrupt go over', async t => {
  using lab = bench();
  lab.pci(tickCard);
  const card = lab.pci(tickCard, { limit: 5 });
  const regs = driverView(tickRegisters, placed(lab, card.device));
  regs.PERIOD.value = 1000;
  regs.CONTROL.value = 3;
  lab.clock.advance(ms(1.5));
  t.equal(card.intx.level, true);
  const { device, notes } = replaceDevice(card.device, tickCard);
  t.same(notes, []);
  if (!(device instanceof PciDevice)) return;
  t.equal(device.devfn, card.device.devfn);
  t.equal(device.intxLevel, true);
  t.equal(regs.COUNT.value, 1, 'at the same address');
  lab.clock.advance(ms(0.5));
  t.equal(regs.COUNT.value, 2, 'the timer goes off when it would have');
  regs.STATUS.TICKED = true;
  t.equal(device.intxLevel, false);
  t.equal(device.property('limit')?.get(), 5);
});

const map = registerMap('box', { A: r32(0) });
const properties = { size: prop.u8({ default: 1 }) };
const box = (version: number, fields = { kept: field.u8(3) }, check: () => void = () => {}) => {
  class Box extends PciDevice<typeof properties> {
    readonly regs: Registers<typeof map> = this.bind(map);
    readonly values = this.state(version, fields);
    readonly led = this.output('led');

    constructor(context: DeviceContext<typeof properties>) {
      super(context);
      check();
    }
  }
  return deviceType({
    type: 'box',
    summary: 'Box',
    properties,
    pci: { vendor: 0x1b36, device: 0x70fa, class: 0x088000, pin: 'A' },
    bars: { 0: { size: 4096, map } },
    create: Box,
  });
};

t.test('what does not fit is refused, and all is as before', async t => {
  using lab = bench();
  const card = lab.pci(box(1));
  const regs = driverView(map, placed(lab, card.device));
  const lamp: boolean[] = [];
  card.device.led.connect(level => lamp.push(level));
  card.device.led.raise();
  card.device.values.kept = 9;
  regs.A.value = 77;
  t.throws(() => replaceDevice(card.device, box(2)), {
    code: 'ERR_STATE_VALUE',
    message: /version 2, it is version 1/,
  });
  const throws = box(1, undefined, () => {
    throw new Error('never made');
  });
  const [again] = card.device.bus.devices;
  if (again === undefined) throw new Error('it is gone');
  t.throws(() => replaceDevice(again, throws), { message: 'never made' });
  const [survivor] = card.device.bus.devices;
  t.equal(survivor?.typeName, 'box');
  t.equal(regs.A.value, 77);
  t.match(survivor?.save(), { sections: { state: { values: { kept: 9 } } }, lines: { ':1': true } });
  t.equal(lamp.at(-1), true, 'whoever was wired to it is told');
  if (survivor === undefined) return;
  const { notes } = replaceDevice(survivor, box(1, { kept: field.u8(), more: field.u8(4) } as never));
  t.same(notes, ['sections.state.values.more is new']);
});

t.test('devices with others on them', async t => {
  using lab = bench({ backends: await StandIns.make() });
  const card = lab.pci(ich9Ahci);
  card.device.buses[0]?.plug(ideHd, {}, { drive: 'disk' });
  t.throws(() => replaceDevice(card.device, ich9Ahci), {
    code: 'ERR_REPLACE',
    message: /there are devices on its buses/,
  });
});
