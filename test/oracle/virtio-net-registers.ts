import { COMMON, LAYOUT } from '../../core/virtio/pci-registers.ts';
import { type PciPlace, RegisterScript } from './register-script.ts';
import { fixedTime } from './scripts/isa.ts';

const PLACE: PciPlace = { device: 4 };
const BASE = 0xe000_0000;
const DEVICE = BASE + LAYOUT.DEVICE;
const CONFIG_SPACE = 24;
/** One more than the control queue of one pair. */
const QUEUES = 4;

/** What a driver sees of the card before it has buffers: features, queues, configuration, and what is refused. */
export function virtioNetRegisters(options: string, netdev = 'hubport,hubid=0,id=n'): RegisterScript {
  const s = new RegisterScript(`virtio-net-pci${options}: features, queues, configuration`, [
    ...['-machine', 'pc', '-m', '128M', '-nodefaults', '-netdev', netdev],
    ...['-device', `virtio-net-pci,netdev=n,mac=52:54:00:12:34:56,addr=4${options}`],
    ...fixedTime,
  ]);
  s.pciWrite(PLACE, 0x20, BASE).pciWrite(PLACE, 0x24, 0).pciWrite(PLACE, 0x04, 6);
  for (const word of [0, 1, 2]) {
    s.about(`feature word ${word}`)
      .write32(BASE + COMMON.DEVICE_FEATURE_SELECT, word)
      .read32(BASE + COMMON.DEVICE_FEATURE);
  }
  const look = (when: string): void => {
    s.about(`${when}: how many queues`).read16(BASE + COMMON.NUM_QUEUES);
    for (let queue = 0; queue < QUEUES; queue++) {
      s.about(`${when}: queue ${queue}`)
        .write16(BASE + COMMON.QUEUE_SELECT, queue)
        .read16(BASE + COMMON.QUEUE_SIZE);
    }
    for (let at = 0; at < CONFIG_SPACE; at += 2) s.about(`${when}: configuration ${at}`).read16(DEVICE + at);
  };
  look('at reset');
  s.write8(BASE + COMMON.DEVICE_STATUS, 3);
  for (const word of [0, 1]) {
    s.write32(BASE + COMMON.DRIVER_FEATURE_SELECT, word).write32(BASE + COMMON.DRIVER_FEATURE, 0xffff_ffff);
  }
  s.write8(BASE + COMMON.DEVICE_STATUS, 11)
    .about('features accepted')
    .read8(BASE + COMMON.DEVICE_STATUS);
  look('negotiated');
  s.about('the address is the control queue’s to set').write8(DEVICE, 0xaa).read8(DEVICE);
  return s;
}
