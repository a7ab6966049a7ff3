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
function expressCard(card: string, end: number, skip: readonly number[] = []): RegisterScript {
  const s = new RegisterScript(`${card}: configuration space of PCI Express`, machine('q35', card));
  s.about('the window for configuration space').pciWrite({ device: 0 }, 0x60, MMCONFIG | 1);
  const at = (register: number): number => MMCONFIG + (PLACE.device << 15) + register;
  const look = (when: string): void => {
    for (let register = 0; register < end; register += 4)
      s.about(`${when}, ${register.toString(16)}`).read32(at(register));
  };
  look('at reset');
  for (const value of [0xffff_ffff, 0]) {
    for (let register = 0x40; register < end; register += 4)
      if (!skip.includes(register)) s.write32(at(register), value);
    look(`with ${value.toString(16)}`);
  }
  return s;
}

export const e1000eExpress = (): RegisterScript => expressCard('e1000e', 0x14c);
/** Not device control: QEMU's takes no bits of it, which PCI Express 3.0, section 7.8.4, wants. */
export const vmxnet3Express = (): RegisterScript => expressCard('vmxnet3', 0x10c, [0x50]);

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

const [SHARED, QUEUES] = [0x10_0000, 0x10_1000];
const [TX, TX_DONE, RX, RX_BODIES, RX_DONE] = [0x13_0000, 0x13_1000, 0x13_2000, 0x13_3000, 0x13_4000] as const;
const DEVICE = REGISTERS + 0x1000;

/** A vmxnet3 with one queue either way. QEMU's receives nothing while the machine is stopped. */
export function vmxnet3Traffic(): RegisterScript {
  const s = new RegisterScript('vmxnet3: commands, sending, interrupts', machine('pc', 'vmxnet3'));
  s.pciWrite(PLACE, 0x10, REGISTERS)
    .pciWrite(PLACE, 0x14, DEVICE)
    .pciWrite(PLACE, 0x18, REGISTERS + 0x2000);
  s.pciWrite16(PLACE, 0x04, 0x0006);
  const command = (value: number): void => {
    s.about(`command ${value.toString(16)}`)
      .write32(DEVICE + 0x20, value)
      .read32(DEVICE + 0x20);
  };
  const look = (when: string): void => {
    for (let register = 0; register < 0x48; register += 8) s.about(`${when}, ${register}`).read32(DEVICE + register);
    for (const register of [0, 8, 0xc0, 0xc8, 0x600, 0x800, 0xa00]) s.read32(REGISTERS + register);
  };
  look('at reset');
  const COMMANDS = [
    ...[0xf00d0002, 0xf00d0003, 0xf00d0004, 0xf00d0005, 0xf00d0006, 0xf00d0007, 0xf00d0008, 0xf00d0009],
    ...[0xcafe0007, 0x1234],
  ];
  for (const value of COMMANDS) command(value);
  s.about('no shared memory').write32(DEVICE + 0x10, SHARED);
  s.write32(DEVICE + 0x18, 0);
  command(0xcafe_0000);

  const shared = Buffer.alloc(720);
  shared.writeUInt32LE(0xbabe_fee1, 0);
  shared.writeUInt32LE(1 << 2, 12);
  shared.writeUInt32LE(4, 24); // VLAN tags are taken out
  shared.writeUInt32LE(QUEUES, 40);
  shared.writeUInt32LE(1500, 56);
  shared.writeUInt16LE(4, 60);
  shared.set([1, 1], 62);
  shared.set([1, 3, 0], 80);
  shared.writeUInt32LE(7, 120);
  shared.writeUInt32LE(1 << 5, 136);
  const queues = Buffer.alloc(512);
  queues.writeUInt32LE(TX, 16);
  queues.writeUInt32LE(TX_DONE, 32);
  queues.writeUInt32LE(32, 56);
  queues.writeUInt32LE(32, 64);
  queues.writeUInt32LE(RX, 256 + 16);
  queues.writeUInt32LE(RX_BODIES, 256 + 24);
  queues.writeUInt32LE(RX_DONE, 256 + 32);
  queues.writeUInt32LE(32, 256 + 56);
  queues.writeUInt32LE(32, 256 + 60);
  queues.writeUInt32LE(64, 256 + 64);
  s.writeBytes(SHARED, shared).writeBytes(QUEUES, queues).writeBytes(TX_DONE, Buffer.alloc(512, 0x55));
  s.about('masks are not its while it is not active').write32(REGISTERS, 0).read32(REGISTERS);
  command(0xcafe_0000);
  s.about('completions are cleared').readBytes(TX_DONE, 512).readBytes(QUEUES, 512);
  look('active');

  s.about('a packet of two pieces, one that is too short, and one with a tag').write32(REGISTERS, 0);
  s.writeBytes(BUFFERS, Buffer.from(Array.from({ length: 200 }, (_, at) => (at * 7 + 1) & 0xff)));
  const sends = Buffer.alloc(64);
  const descriptor = (at: number, address: number, third: number, fourth: number): void => {
    sends.writeUInt32LE(address, at * 16);
    sends.writeUInt32LE((third | (1 << 14)) >>> 0, at * 16 + 8);
    sends.writeUInt32LE(fourth >>> 0, at * 16 + 12);
  };
  descriptor(0, BUFFERS, 150, 0);
  descriptor(1, BUFFERS + 150, 50, 1 << 12);
  descriptor(2, BUFFERS, 10, 1 << 12);
  descriptor(3, BUFFERS, 100, (1 << 12) | (1 << 15) | (0x123 << 16));
  s.writeBytes(TX, sends).write32(REGISTERS + 0x600, 4);
  s.about('completions').readBytes(TX_DONE, 64);
  const interrupt = (when: string): void => {
    s.about(`${when}: the pin`)
      .pciRead(PLACE, 4)
      .read32(DEVICE + 0x38);
    s.pciRead(PLACE, 4)
      .read32(DEVICE + 0x38)
      .read32(REGISTERS);
  };
  interrupt('sent');
  s.about('nothing new')
    .write32(REGISTERS + 0x600, 4)
    .readBytes(TX_DONE, 80);
  command(0xf00d_0001);
  s.about('statistics').readBytes(QUEUES + 88, 80);

  s.about('an address of its own').write32(DEVICE + 0x28, 0x4433_2211);
  s.write32(DEVICE + 0x30, 0x6655);
  look('addressed');
  command(0xcafe_0001);
  look('quiet');
  command(0xcafe_0000);
  look('active again');
  command(0xcafe_0002);
  return s
    .about('reset: no more is sent')
    .write32(REGISTERS + 0x600, 4)
    .readBytes(TX_DONE, 64);
}
