import { I2cBus } from 'southbridge';
import { bench } from 'southbridge/testing';
import t from 'tap';
import { thermometer } from './thermometer.ts';

function sensor(celsius: string) {
  const lab = bench();
  t.teardown(() => lab.dispose());
  const { machine } = lab;
  const bus = machine.system.own(new I2cBus('i2c', { services: machine.services, home: machine.home }));
  const device = bus.plug(thermometer, {}, { address: 0x48, celsius });
  return {
    device,
    write(...bytes: readonly number[]): void {
      device.start(false);
      for (const byte of bytes) device.receive(byte);
      device.stop();
    },
    read(count: number): number[] {
      device.start(true);
      const bytes = Array.from({ length: count }, () => device.transmit());
      device.stop();
      return bytes;
    },
  };
}

t.test('temperatures are nine bits of half degrees', async t => {
  const { device, write, read } = sensor('36.5');
  write(0);
  t.same(read(2), [36, 0x80]);
  device.celsius = -0.5;
  t.same(read(2), [0xff, 0x80]);
  device.celsius = 125;
  t.same(read(2), [125, 0]);
});

t.test('what is not a temperature is refused', async t => {
  for (const celsius of ['warm', '126', '-56'])
    t.throws(() => sensor(celsius), { code: 'ERR_PROPERTY_VALUE', message: new RegExp(`celsius=${celsius} is not`) });
});

t.test('limits have their power-on values, and can be set', async t => {
  const { write, read } = sensor('20');
  write(3);
  t.same(read(2), [80, 0]);
  write(2);
  t.same(read(2), [75, 0]);
  write(3, 40, 0xff);
  t.same(read(2), [40, 0x80], 'nine bits of it');
});

t.test('in shutdown the last measurement stays', async t => {
  const { device, write, read } = sensor('20');
  write(0);
  t.same(read(2), [20, 0]);
  write(1, 0x01);
  device.celsius = 30;
  write(0);
  t.same(read(2), [20, 0]);
});
