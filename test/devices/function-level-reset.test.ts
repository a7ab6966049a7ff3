import t from 'tap';
import { qtest } from '../../core/accel/qtest/accelerator.ts';
import { Machine } from '../../core/machine/machine.ts';
import { DEFAULT_CONFIG } from '../../core/machine/machine-config.ts';
import { PciBus } from '../../core/pci/pci-bus.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { pcieRootPort } from '../../devices/pci-bridges.ts';
import { virtioRngPci } from '../../devices/virtio-rng.ts';
import { q35 } from '../../machines/q35.ts';

const EXPRESS = 0x10;

t.test('a virtio function behind a root port can be reset alone', async t => {
  const machine = new Machine({
    type: q35,
    config: { ...DEFAULT_CONFIG, ramSize: 2 ** 24 },
    accelerator: qtest,
  }).build();
  t.teardown(() => machine.dispose());
  const root = [...machine.buses()].find(bus => bus instanceof PciBus);
  const port = root?.plug(pcieRootPort, { addr: '1c.0' }, {});
  const card = port?.buses[0]?.plug(virtioRngPci, {}, {});
  if (!(card instanceof PciDevice)) throw new TypeError('there is no function');
  let at = card.configRead(0x34, 1);
  while (at !== 0 && card.configRead(at, 1) !== EXPRESS) at = card.configRead(at + 1, 1);
  t.not(at, 0);
  t.equal(card.configRead(at + 4, 4), 0x1000_8000, 'it says that it can');
  t.same([card.configRead(at + 0x0c, 4), card.configRead(at + 0x24, 4)], [0x411, 0x30_0000]);
  card.configWrite(4, 2, 6);
  card.configWrite(0x3c, 1, 11);
  t.equal(card.configRead(4, 2), 6);
  card.configWrite(at + 8, 2, 0x8000);
  t.equal(card.configRead(4, 2), 0, 'decoding and mastering are off again');
  t.equal(card.configRead(at + 8, 2) & 0x8000, 0, 'and the request reads 0');
});
