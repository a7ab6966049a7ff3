import { type PciPlace, RegisterScript } from '../register-script.ts';
import { fixedTime } from './isa.ts';

const PLACE: PciPlace = { device: 4 };
const MMCONFIG = 0xb000_0000;
const REGISTERS = 0xe000_0000;
const [RING, BUFFERS] = [0x10_0000, 0x20_0000];

const machine = (type: string, card: string): string[] => [
  ...['-machine', type, '-m', '128M', '-nodefaults', '-netdev', 'hubport,hubid=0,id=n'],
  ...['-device', `${card},netdev=n,mac=52:54:00:12:34:56,addr=4`, ...fixedTime],
];

/** Configuration space of a function of PCI Express up to `end`; behind its last capability QEMU's takes any value. */
function expressCard(card: string, end: number): RegisterScript {
  const s = new RegisterScript(`${card}: configuration space of PCI Express`, machine('q35', card));
  s.about('the window for configuration space').pciWrite({ device: 0 }, 0x60, MMCONFIG | 1);
  const at = (register: number): number => MMCONFIG + (PLACE.device << 15) + register;
  const look = (when: string): void => {
    for (let register = 0; register < end; register += 4)
      s.about(`${when}, ${register.toString(16)}`).read32(at(register));
  };
  look('at reset');
  for (const value of [0xffff_ffff, 0]) {
    for (let register = 0x40; register < end; register += 4) s.write32(at(register), value);
    look(`with ${value.toString(16)}`);
  }
  return s;
}

export const e1000eExpress = (): RegisterScript => expressCard('e1000e', 0x14c);

/** A ring full of the largest descriptors that both take, at one doorbell. */
export function e1000Doorbell(): RegisterScript {
  const s = new RegisterScript('e1000: 32 megabytes at one doorbell are sent at once', machine('pc', 'e1000'));
  s.pciWrite(PLACE, 0x10, REGISTERS).pciWrite16(PLACE, 0x04, 0x0006);
  const descriptors = 512;
  const ring = Buffer.alloc(16 * descriptors);
  // A context whose segments have 4000 bytes behind a header of 54, then data to be cut by it (8254x manual, section 3.3.6).
  ring.writeUInt32LE(0x2700_ffc9, 8);
  ring.writeUInt32LE((4000 << 16) | (54 << 8), 12);
  for (let at = 16; at < ring.length; at += 16) {
    ring.writeUInt32LE(BUFFERS, at);
    ring.writeUInt32LE((0x2d10_0000 | 0xffff) >>> 0, at + 8);
  }
  s.writeBytes(RING, ring);
  for (const [register, value] of [
    [0x3800, RING],
    [0x3808, ring.length],
    [0x0400, 2],
    [0x3818, descriptors - 1],
  ] as const)
    s.write32(REGISTERS + register, value);
  s.about('the head').read32(REGISTERS + 0x3810);
  s.about('how many went out').read32(REGISTERS + 0x40d4);
  s.about('causes').read32(REGISTERS + 0xc0);
  return s.about('each is done').readBytes(RING, ring.length);
}
