import { type PciPlace, RegisterScript } from '../register-script.ts';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
/** Where the MCH shows configuration space in memory, and where the machine has CXL: behind its memory, from 4 GiB on. */
const ECAM = 0xb000_0000;
const HOSTS = 4 * GIB;
const WINDOW = HOSTS + 256 * MIB;
const WINDOW_2 = WINDOW + GIB;
const HOST_BLOCK = 0x1_0000;
const CACHE_MEM = 0x1000;
const DECODER = CACHE_MEM + 0x120;
const CONTROL = 0x10;
const GLOBAL_CONTROL = CACHE_MEM + 0x114;
/**
 * Of a decoder's control: whether software still asks for what was committed. It does until it says otherwise (CXL 2.0, 8.2.5.12.7); QEMU
 * takes the wish back once it is granted.
 */
const WITHOUT_COMMIT = 0xffff_fdff;

/** All in one option, as QEMU wants them. */
const WINDOWS =
  'cxl-fmw.0.targets.0=c0,cxl-fmw.0.size=1G,' +
  'cxl-fmw.1.targets.0=c0,cxl-fmw.1.targets.1=c1,cxl-fmw.1.size=1G,cxl-fmw.1.interleave-granularity=1k';

const machine = [
  ...['-machine', 'q35,cxl=on', '-m', '128M', '-nodefaults'],
  ...[0, 1, 2].flatMap(n => ['-object', `memory-backend-ram,id=m${n},size=256M`]),
  ...[0, 1, 2].flatMap(n => ['-object', `memory-backend-ram,id=l${n},size=64K`]),
  ...['-device', 'pxb-cxl,id=c0,bus=pcie.0,bus_nr=52,addr=5', '-device', 'pxb-cxl,id=c1,bus=pcie.0,bus_nr=80,addr=6'],
  ...['-device', 'cxl-rp,id=r0,bus=c0,chassis=0,slot=0,port=0,addr=0'],
  ...['-device', 'cxl-rp,id=r1,bus=c0,chassis=0,slot=1,port=3,addr=1'],
  ...['-device', 'cxl-rp,id=r2,bus=c1,chassis=0,slot=2,port=1,addr=0'],
  ...['-device', 'cxl-type3,bus=r0,memdev=m0,lsa=l0', '-device', 'cxl-upstream,bus=r1,id=u0,port=7'],
  ...['-device', 'cxl-downstream,bus=u0,id=d0,port=2,chassis=0,slot=4,addr=0'],
  ...['-device', 'cxl-downstream,bus=u0,id=d1,port=5,chassis=0,slot=5,addr=1'],
  ...[
    '-device',
    'cxl-type3,bus=d0,memdev=m1,lsa=l1,sn=0x1122334455667788',
    '-device',
    'cxl-type3,bus=r2,memdev=m2,lsa=l2',
  ],
  ...['-machine', WINDOWS],
];

const rootPort: PciPlace = { bus: 52, device: 0 };
const switchPort: PciPlace = { bus: 52, device: 1 };
const otherPort: PciPlace = { bus: 80, device: 0 };
const memory: PciPlace = { bus: 53, device: 0 };
const upstream: PciPlace = { bus: 54, device: 0 };
const downstream: PciPlace = { bus: 55, device: 0 };
const emptyDownstream: PciPlace = { bus: 55, device: 1 };
const switchedMemory: PciPlace = { bus: 56, device: 0 };
const otherMemory: PciPlace = { bus: 81, device: 0 };

/** Of each BAR 0; BAR 2 of memory devices is behind it. */
const BLOCKS = new Map<PciPlace, number>([
  [rootPort, 0xe800_0000],
  [switchPort, 0xe801_0000],
  [memory, 0xe810_0000],
  [upstream, 0xe820_0000],
  [downstream, 0xe830_0000],
  [switchedMemory, 0xe840_0000],
  [otherPort, 0xe802_0000],
  [otherMemory, 0xe850_0000],
]);

const config = ({ bus = 0, device, fn = 0 }: PciPlace, register: number): number =>
  ECAM + (bus << 20) + (device << 15) + (fn << 12) + register;
const block = (place: PciPlace): number => BLOCKS.get(place) ?? 0;
const registers = (place: PciPlace): number => block(place) + HOST_BLOCK;

function openMachine(name: string): RegisterScript {
  const s = new RegisterScript(name, machine).about('buses, windows and BARs');
  s.pciWrite({ device: 0 }, 0x64, 0).pciWrite({ device: 0 }, 0x60, ECAM + 1);
  const numbers: readonly (readonly [PciPlace, number])[] = [
    [rootPort, 0x35_3534],
    [switchPort, 0x39_3634],
    [upstream, 0x39_3736],
    [downstream, 0x38_3837],
    [emptyDownstream, 0x39_3937],
    [otherPort, 0x51_5150],
  ];
  for (const [place, bus] of numbers) s.write32(config(place, 0x18), bus);
  const windows: readonly (readonly [PciPlace, number])[] = [
    [rootPort, 0xe810_e810],
    [switchPort, 0xe840_e820],
    [upstream, 0xe840_e830],
    [downstream, 0xe840_e840],
    [otherPort, 0xe850_e850],
  ];
  for (const [place, window] of windows) s.write32(config(place, 0x20), window);
  for (const [place, at] of BLOCKS) {
    s.write32(config(place, 0x10), at).write32(config(place, 0x14), 0);
    if ([memory, switchedMemory, otherMemory].includes(place))
      s.write32(config(place, 0x18), at + HOST_BLOCK).write32(config(place, 0x1c), 0);
    s.write16(config(place, 0x04), 0x0006);
  }
  return s;
}

/** What the functions are, and which of their registers take what. */
export function functions(): RegisterScript {
  const s = openMachine('CXL: configuration space of ports and memory devices');
  s.about('the seat of a host bridge')
    .read32(config({ device: 5 }, 0))
    .read32(config({ device: 5 }, 8));
  const named: readonly (readonly [string, PciPlace, number])[] = [
    ['root port', rootPort, 0x1c0],
    ['memory device', memory, 0x16c],
    ['upstream port', upstream, 0x1b0],
    ['downstream port', downstream, 0x1b8],
    ['memory device with a serial number', switchedMemory, 0x178],
  ];
  for (const [name, place, end] of named) {
    for (let register = 0; register < 0x100; register += 4)
      s.about(`${name} ${register.toString(16)}`).read32(config(place, register));
    for (let register = 0x100; register < end; register += 4)
      s.about(`${name} ${register.toString(16)} all ones`)
        .read32(config(place, register))
        .write32(config(place, register), 0xffff_ffff)
        .read32(config(place, register))
        .write32(config(place, register), 0)
        .read32(config(place, register));
  }
  return s;
}

/** The component registers of each kind of component. */
export function components(): RegisterScript {
  const s = openMachine('CXL: component registers');
  const named: readonly (readonly [string, number])[] = [
    ['first host bridge', HOSTS + HOST_BLOCK],
    ['second host bridge', HOSTS],
    ['root port', block(rootPort)],
    ['memory device', block(memory)],
    ['upstream port', block(upstream)],
    ['downstream port', block(downstream)],
  ];
  for (const [name, base] of named) {
    s.about(`${name}, CXL.io`).read32(base).write32(base, 0xffff_ffff).read32(base);
    for (let register = CACHE_MEM; register < CACHE_MEM + 0x160; register += 4) {
      const mask = register === DECODER + CONTROL ? WITHOUT_COMMIT : 0xffff_ffff;
      s.about(`${name} ${register.toString(16)}`).read32(base + register);
      // A committed decoder is for the next script.
      const ones = register === DECODER + CONTROL ? 0xffff_fdff : 0xffff_ffff;
      s.write32(base + register, ones)
        .read32(base + register, mask)
        .write32(base + register, 0)
        .read32(base + register, mask);
    }
    for (const register of [0x260, 0xa84, 0xa88, 0xffc]) s.read32(base + CACHE_MEM + register);
  }
  return s;
}

/** Commands with their input; which of them return less than QEMU says is in {@link mailbox}. */
class Commands {
  readonly #s: RegisterScript;
  readonly #base: number;

  constructor(s: RegisterScript, base: number) {
    this.#s = s;
    this.#base = base + 0x88;
  }

  /** @param output bytes of payload to compare @param lengthToo whether the length that is returned is compared */
  run(name: string, opcode: number, input: Uint8Array, output: number, lengthToo = true): this {
    const [s, base] = [this.#s, this.#base];
    s.about(name);
    if (input.length > 0) s.writeBytes(base + 0x20, input);
    s.write64(base + 0x08, BigInt(opcode) | (BigInt(input.length) << 16n)).write32(base + 0x04, 1);
    s.read32(base + 0x04)
      .read32(base + 0x10)
      .read32(base + 0x14);
    s.read32(base + 0x08, lengthToo ? 0xffff_ffff : 0xffff).read32(base + 0x0c);
    if (output > 0) s.readBytes(base + 0x20, output);
    return this;
  }
}

const words = (...values: readonly number[]): Uint8Array => new Uint8Array(Uint32Array.from(values).buffer);
const joined = (...parts: readonly Uint8Array[]): Uint8Array => Buffer.concat(parts);
const EFFECTS_LOG = Buffer.from('0da9c0b5bf414b788f7996b1623b3f17', 'hex');
const NOTHING = new Uint8Array(0);

/** The registers of a memory device, and its commands. */
export function mailbox(): RegisterScript {
  const s = openMachine('CXL: device registers and mailbox of a memory device');
  const base = registers(memory);
  for (let register = 0; register < 0xb0; register += 4)
    s.about(`device ${register.toString(16)}`).read32(base + register);
  s.about('memory device status')
    .read32(base + 0x8a8)
    .write32(base + 0x8a8, 0xffff_ffff)
    .read32(base + 0x8a8);
  s.about('narrow reads')
    .read8(base + 0x8a8)
    .read8(base + 0x88)
    .read16(base + 0x88);
  const commands = new Commands(s, base);
  commands
    .run('identify', 0x4000, NOTHING, 0x43)
    .run('partitions', 0x4100, NOTHING, 0x20)
    .run('labels', 0x4102, words(0, 64), 64)
    .run('set labels', 0x4103, joined(words(16, 0), Buffer.from('a label, and another')), 0)
    .run('labels that were set', 0x4102, words(8, 40), 40)
    .run('labels at the end', 0x4102, words(65_536 - 16, 16), 16)
    .run('labels beyond the end', 0x4102, words(65_536 - 16, 17), 0)
    .run('set labels beyond the end', 0x4103, joined(words(65_536 - 4, 0), words(1, 2)), 0)
    .run('set no labels', 0x4103, NOTHING, 0)
    .run('time before it is set', 0x0300, NOTHING, 8)
    .run('set the time', 0x0301, words(0x89ab_cdef, 0x0123_4567), 0)
    .run('time', 0x0300, NOTHING, 8)
    // Clears what QEMU leaves in the reserved bytes of the next.
    .run('event records', 0x0100, Uint8Array.of(0), 0x20)
    .run('logs', 0x0400, NOTHING, 0x1c)
    .run('command effects log', 0x0401, joined(EFFECTS_LOG, words(0, 52)), 52)
    // Offsets are in bytes (8.2.9.4.2); QEMU takes them for entries.
    .run('part of the log', 0x0401, joined(EFFECTS_LOG, words(8, 12)), 0)
    .run('firmware', 0x0200, NOTHING, 0x50)
    .run('interrupt policy', 0x0102, NOTHING, 4)
    // What failed or has no output returns no bytes; QEMU returns as many as it got.
    .run('clear events', 0x0101, Uint8Array.of(0, 0, 0, 0, 0, 0), 0, false)
    .run('set interrupt policy', 0x0103, words(0), 0, false)
    .run('another log', 0x0401, joined(new Uint8Array(16), words(0, 4)), 0, false)
    .run('beyond the payload', 0x0401, joined(EFFECTS_LOG, words(2048, 4)), 0, false)
    .run('wrong length', 0x4000, words(1), 0, false)
    .run('no such command', 0x4001, NOTHING, 0)
    .run('no such command set', 0xff00, words(5), 0, false);
  return s;
}

/** Sets a decoder: `control` is its interleaving, and `targets` the ports. */
function decode(s: RegisterScript, block: number, base: number, size: number, control: number, targets = 0): void {
  const decoder = block + DECODER;
  s.write32(decoder, base % 2 ** 32).write32(decoder + 4, Math.floor(base / 2 ** 32));
  s.write32(decoder + 8, size).write32(decoder + 0xc, 0);
  s.write32(decoder + 0x14, targets).write32(decoder + 0x18, 0);
  s.write32(block + GLOBAL_CONTROL, 2)
    .write32(decoder + CONTROL, control | 0x200)
    .read32(decoder + CONTROL, WITHOUT_COMMIT);
}

/** The memory through fixed windows: behind a root port, behind a switch, in turn on several devices. */
export function windows(): RegisterScript {
  const s = openMachine('CXL: fixed memory windows');
  const size = 256 * MIB;
  s.about('not decoded').read32(WINDOW).write32(WINDOW, 0x1234_5678).read32(WINDOW);
  s.about('one device');
  decode(s, HOSTS + HOST_BLOCK, WINDOW, size, 0, 0);
  decode(s, block(memory), WINDOW, size, 0);
  for (const offset of [0, 0x104, 0x1000, size - 8]) {
    s.write32(WINDOW + offset, 0xcafe_0000 + (offset & 0xffff)).read32(WINDOW + offset);
    s.write8(WINDOW + offset + 1, 0x5a)
      .read16(WINDOW + offset)
      .read32(WINDOW + offset);
  }
  s.write64(WINDOW + 0x2000, 0x1122_3344_5566_7788n).readBytes(WINDOW + 0x2000, 16);
  s.writeBytes(WINDOW + 0x30fd, Buffer.from('not aligned at all')).readBytes(WINDOW + 0x30f8, 32);
  s.about('behind the end')
    .write32(WINDOW + size, 1)
    .read32(WINDOW + size);
  s.about('two ways at one host bridge: a root port, and behind a switch');
  const both = 2 * size;
  const twoWays = 0x11;
  decode(s, HOSTS + HOST_BLOCK, WINDOW, both, twoWays, 0x0300);
  decode(s, block(memory), WINDOW, both, twoWays);
  decode(s, block(upstream), WINDOW, both, 0x01, 0x02);
  decode(s, block(switchedMemory), WINDOW, both, twoWays);
  for (let offset = 0; offset < 0x1000; offset += 0x80) s.write32(WINDOW + offset, 0xabcd_0000 + offset);
  for (let offset = 0; offset < 0x2000; offset += 0x80) s.read32(WINDOW + offset);
  s.about('two host bridges in turn');
  decode(s, HOSTS + HOST_BLOCK, WINDOW_2, both, 0, 0);
  decode(s, HOSTS, WINDOW_2, both, 0, 1);
  decode(s, block(memory), WINDOW_2, both, 0x12);
  decode(s, block(otherMemory), WINDOW_2, both, 0x12);
  for (let offset = 0; offset < 0x2000; offset += 0x100) s.write32(WINDOW_2 + offset, 0x1357_0000 + offset);
  for (let offset = 0; offset < 0x4000; offset += 0x100) s.read32(WINDOW_2 + offset);
  return s;
}

/** Reads the attribute table of a function, entry by entry, as data objects. */
export function attributes(): RegisterScript {
  const s = openMachine('CXL: coherent device attribute tables by data object exchange');
  const places: readonly (readonly [string, PciPlace, number])[] = [
    ['memory device', memory, 0x190],
    ['switch', upstream, 0x1a8],
  ];
  for (const [name, place, at] of places) {
    const register = (offset: number): number => config(place, at + offset);
    const ask = (about: string, request: readonly number[], answer: number): void => {
      s.about(`${name}: ${about}`);
      for (const word of request) s.write32(register(0x10), word);
      s.read32(register(0x0c)).write32(register(0x08), 0x8000_0000).read32(register(0x0c));
      for (let word = 0; word < answer; word++) s.read32(register(0x14)).write32(register(0x14), 0);
      s.read32(register(0x0c)).read32(register(0x14));
    };
    ask('which protocols', [0x0000_0001, 3, 0], 3);
    ask('which is the next', [0x0000_0001, 3, 1], 3);
    ask('a request of another length', [0x0002_1e98, 4, 0], 0);
    ask('another protocol', [0x0003_1e98, 3, 0], 0);
    ask('header', [0x0002_1e98, 3, 0], 7);
    for (let entry = 1; entry <= (place === memory ? 6 : 2); entry++)
      ask(`entry ${entry}`, [0x0002_1e98, 3, entry << 16], place === memory ? 9 : 11);
    s.about(`${name}: abort`).write32(register(0x10), 0x0002_1e98).write32(register(0x08), 1).read32(register(0x0c));
    s.about(`${name}: reading what is not there`)
      .write32(register(0x14), 0)
      .read32(register(0x0c))
      .write32(register(0x08), 1);
  }
  return s;
}
