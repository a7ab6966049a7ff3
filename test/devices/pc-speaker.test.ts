import t from 'tap';
import { qtest } from '../../core/accel/qtest/accelerator.ts';
import { AudioBackend } from '../../core/audio/backend.ts';
import { ms } from '../../core/clock/units.ts';
import { Machine } from '../../core/machine/machine.ts';
import { DEFAULT_CONFIG } from '../../core/machine/machine-config.ts';
import { pc } from '../../machines/pc.ts';

const DIVISOR = 1193; // 1 kHz

t.test('counter 2 is heard while port 61h lets it through', async t => {
  const backend = new AudioBackend('a', 'none');
  const heard: number[] = [];
  backend.listen({
    format: { format: 'u8', channels: 1, frequency: 32_000 },
    playing: () => {},
    samples: bytes => void heard.push(...bytes),
  });
  const machine = new Machine({
    type: pc,
    config: { ...DEFAULT_CONFIG, options: { 'pcspk-audiodev': 'a' } },
    accelerator: qtest,
    backends: { find: () => backend },
    romImage: () => new Uint8Array(0x4_0000),
  }).build();
  t.teardown(() => machine.dispose());
  machine.resetDevices();
  const out = (port: number, value: number): void => machine.ports.write(port, 1, value);
  out(0x43, 0xb6);
  out(0x42, DIVISOR & 0xff);
  out(0x42, DIVISOR >> 8);
  machine.clocks.virtual.advance(ms(20));
  t.equal(heard.length, 0);
  out(0x61, 0x03);
  machine.clocks.virtual.advance(ms(100));
  t.equal(heard.length, 3200);
  const edges = heard.filter((sample, index) => sample > 0x80 && (heard[index - 1] ?? 0) <= 0x80).length;
  t.ok(edges >= 99 && edges <= 101, `${edges} periods in 100 ms`);
  out(0x61, 0x01);
  machine.clocks.virtual.advance(ms(50));
  t.equal(heard.length, 3200, 'silent again');
});
