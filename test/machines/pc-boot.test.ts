import t from 'tap';
import { qtest } from '../../core/accel/qtest/accelerator.ts';
import { Machine } from '../../core/machine/machine.ts';
import { type BootConfig, DEFAULT_CONFIG } from '../../core/machine/machine-config.ts';
import { pc } from '../../machines/pc.ts';

/** The boot order as PC firmware reads it from the CMOS: the third device and a flag, the second and the first. */
function orders(boot: BootConfig, options: Record<string, string> = {}): number[] {
  const machine = new Machine({
    type: pc,
    config: { ...DEFAULT_CONFIG, boot, options },
    accelerator: qtest,
    romImage: () => new Uint8Array(0x1_0000),
  }).build();
  t.teardown(() => machine.dispose());
  const cmos = (index: number): number => {
    machine.ports.write(0x70, 1, index);
    return machine.ports.read(0x71, 1);
  };
  return [1, 2, 3].map(() => {
    machine.resetDevices();
    return cmos(0x38) + cmos(0x3d) * 256;
  });
}

t.test('the boot order of -boot, from one reset to the next', async t => {
  t.same(orders({}), [0x1230, 0x1230, 0x1230]);
  t.same(orders({}, { 'fd-bootchk': 'off' }), [0x1231, 0x1231, 0x1231]);
  t.same(orders({ order: 'c' })[0], 0x0200);
  t.same(orders({ order: 'nda' })[0], 0x3410);
  t.same(orders({ order: '' })[0], 0);
  t.same(orders({ once: 'a' }), [0x0100, 0x1230, 0x1230], 'once is for the first start only');
  t.same(orders({ once: 'a', order: 'c' }), [0x0100, 0x0200, 0x0200]);
  t.throws(() => orders({ order: 'x' }), { message: 'Invalid boot device for PC' });
});
