import { type PciPlace, RegisterScript } from '../register-script.ts';
import { fixedTime } from './isa.ts';

const PLACE: PciPlace = { device: 4 };
const BASE = 0xe000_0000;
const MMCONFIG = 0xb000_0000;
const REG = { COMMAND: 0, DATA: 4, STATUS: 8, CAUSES: 0x100c, MASK: 0x2010, KICK: 0x3014, KICK_RW: 0x4018 } as const;
const CMD = { RESET: 1, RINGS: 3, RESET_BUS: 4, RESET_DEVICE: 5, ABORT: 6, CONFIG: 7, MESSAGES: 8 } as const;
const [STATE, REQUESTS, COMPLETIONS, MESSAGES] = [0x10_0000, 0x11_0000, 0x14_0000, 0x17_0000] as const;
const [LIST, SENSE, DATA] = [0x18_0000, 0x18_8000, 0x20_0000] as const;
const MSI = { AT: 0x7c, ADDRESS: 0x19_0000 } as const;
const TO_HOST = 8;
const TO_DEVICE = 16;
const SG = 1;

interface Request {
  readonly cdb: readonly number[];
  readonly target?: number;
  readonly bus?: number;
  readonly lun?: readonly number[];
  readonly flags?: number;
  readonly address?: number;
  readonly length?: number;
  readonly senseLength?: number;
  readonly cdbLength?: number;
  readonly context?: number;
}

type Element = readonly [address: number, length: number, flags?: number];

const drives = [
  ...['-drive', 'if=none,id=d,driver=null-co,read-zeroes=on,size=64M'],
  ...['-device', 'scsi-hd,bus=s.0,scsi-id=1,drive=d,serial=SN1'],
  ...['-drive', 'if=none,id=c,driver=null-co,read-zeroes=on,size=4M,read-only=on,media=cdrom'],
  ...['-device', 'scsi-cd,bus=s.0,scsi-id=2,drive=c,serial=SN2'],
];

/** The driver of the adapter in a register script. */
class Driver {
  readonly s: RegisterScript;
  #requests = 0;
  #completions = 0;
  #requestEntries = 32;
  #completionEntries = 128;

  constructor(name: string, properties = '', type = 'pc') {
    this.s = new RegisterScript(`pvscsi: ${name}`, [
      ...['-machine', type, '-m', '128M', '-nodefaults', ...fixedTime],
      ...['-device', `pvscsi,addr=4,id=s${properties}`, ...drives],
    ]);
    this.s.pciWrite(PLACE, 0x10, BASE).pciWrite16(PLACE, 0x04, 0x06);
  }

  command(command: number, ...words: readonly number[]): this {
    const s = this.s.about(`command ${command.toString(16)} with ${words.length} words`);
    s.write32(BASE + REG.COMMAND, command).read32(BASE + REG.STATUS);
    for (const word of words) s.write32(BASE + REG.DATA, word);
    s.read32(BASE + REG.STATUS).settle();
    return this;
  }

  /** SETUP_RINGS, with pages that follow each other. */
  rings(requestPages: number, completionPages: number): this {
    const pages = (at: number): number[] => Array.from({ length: 32 }, (_, page) => [(at >>> 12) + page, 0]).flat();
    this.s.writeBytes(STATE, Buffer.alloc(160, 0x55));
    this.command(CMD.RINGS, requestPages, completionPages, STATE >>> 12, 0, ...pages(REQUESTS), ...pages(COMPLETIONS));
    this.#requests = 0;
    this.#completions = 0;
    this.#requestEntries = 2 ** (32 - Math.clz32(32 * requestPages - 1));
    this.#completionEntries = 2 ** (32 - Math.clz32(128 * completionPages - 1));
    this.s.about('state of the rings').readBytes(STATE, 160);
    return this;
  }

  messages(pages: number): this {
    const numbers = Array.from({ length: 16 }, (_, page) => [(MESSAGES >>> 12) + page, 0]).flat();
    return this.command(CMD.MESSAGES, pages, 0, ...numbers);
  }

  list(...elements: readonly Element[]): this {
    const bytes = Buffer.alloc(16 * elements.length);
    for (const [index, [address, length, flags = 0]] of elements.entries()) {
      bytes.writeBigUInt64LE(BigInt(address), 16 * index);
      bytes.writeUInt32LE(length, 16 * index + 8);
      bytes.writeUInt32LE(flags, 16 * index + 12);
    }
    this.s.writeBytes(LIST, bytes);
    return this;
  }

  put(request: Request): this {
    const bytes = Buffer.alloc(128);
    const { cdb, target = 1, bus = 0, lun = [0, 0, 0, 0, 0, 0, 0, 0], flags = TO_HOST } = request;
    bytes.writeBigUInt64LE(BigInt(request.context ?? 0x1_2345_0000 + this.#requests), 0);
    bytes.writeBigUInt64LE(BigInt(request.address ?? ((flags & SG) !== 0 ? LIST : DATA)), 8);
    bytes.writeBigUInt64LE(BigInt(request.length ?? 0), 16);
    bytes.writeBigUInt64LE(BigInt(SENSE), 24);
    bytes.writeUInt32LE(request.senseLength ?? 96, 32);
    bytes.writeUInt32LE(flags, 36);
    bytes.set(cdb, 40);
    bytes[56] = request.cdbLength ?? cdb.length;
    bytes.set(lun, 57);
    bytes[65] = 0x20;
    bytes[66] = bus;
    bytes[67] = target;
    this.s.writeBytes(REQUESTS + 128 * (this.#requests % this.#requestEntries), bytes);
    this.#requests++;
    return this;
  }

  kick(register: number = REG.KICK): this {
    this.s
      .write32(STATE, this.#requests)
      .write32(BASE + register, 0)
      .settle();
    return this;
  }

  /** Looks at `count` completions, without how much data there was, which QEMU does not say. */
  completed(count = 1, hostStatus = true): this {
    const { s } = this;
    s.readBytes(STATE, 24);
    for (let left = count; left > 0; left--) {
      const at = COMPLETIONS + 32 * (this.#completions % this.#completionEntries);
      s.readBytes(at, 8).read32(at + 16);
      if (hostStatus) s.read16(at + 20);
      s.readBytes(at + 22, 10);
      this.#completions++;
    }
    return this.causes();
  }

  /** Which causes there are, what the pin does, and that both go away. */
  causes(): this {
    this.s
      .read32(BASE + REG.CAUSES)
      .pciRead(PLACE, 4)
      .write32(BASE + REG.CAUSES, 0xffff_ffff)
      .settle();
    this.s.read32(BASE + REG.CAUSES).pciRead(PLACE, 4);
    return this;
  }

  /** @param hostStatus false where QEMU takes it that no data has gone where there is no room for it */
  run(what: string, request: Request, look = 64, hostStatus = true): this {
    this.s.about(what).writeBytes(DATA, Buffer.alloc(look, 0xee)).writeBytes(SENSE, Buffer.alloc(32, 0xee));
    this.put(request).kick().completed(1, hostStatus);
    this.s.readBytes(DATA, look).readBytes(SENSE, 32);
    return this;
  }
}

/** Registers, and commands with all that may be wrong with them. */
export function registers(): RegisterScript {
  const driver = new Driver('registers and commands');
  const { s } = driver;
  const offsets = [0, 4, 8, 0xc, 0x100, 0x10c, 0x100c, 0x1010, 0x2010, 0x3014, 0x3018, 0x4018, 0x6000, 0x7ffc];
  const dump = (about: string): void => {
    s.about(about);
    for (const offset of offsets) s.read32(BASE + offset);
  };
  dump('at reset');
  for (const value of [0xffff_ffff, 0x5, 0]) s.write32(BASE + REG.MASK, value).read32(BASE + REG.MASK);
  for (const offset of offsets.slice(4)) s.write32(BASE + offset, 0xa5a5_a5a5);
  dump('after writes');
  for (const command of [0, 1, 2, 4, 9, 10, 11, 0x8000_0001, 0xffff_ffff]) driver.command(command);
  driver.command(2, 1).command(0, 1, 2);
  driver.command(CMD.CONFIG, 1, 2, 3, 4, 5).command(CMD.CONFIG, 1, 2, 3, 4, 5, 6, 7);
  driver.command(CMD.ABORT, 1, 2, 3).command(CMD.ABORT, 1, 2, 3, 4);
  for (const [target, low, high] of [
    [1, 0, 0],
    [2, 0, 0],
    [1, 0x100, 0],
    [1, 1, 0],
    [1, 0, 0x0100_0000],
    [3, 0, 0],
    [65, 0, 0],
    [0xffff_ffff, 0, 0],
  ] as const)
    driver.command(CMD.RESET_DEVICE, target, low, high);
  s.about('no rings yet').write32(BASE + REG.KICK, 0);
  driver.messages(1).messages(0);
  for (const [requests, completions] of [
    [0, 1],
    [1, 0],
    [33, 1],
    [1, 33],
    [0xffff_ffff, 0xffff_ffff],
    [32, 32],
    [3, 5],
    [1, 1],
  ] as const)
    driver.rings(requests, completions);
  for (const pages of [0, 17, 0xffff_ffff, 16, 3, 1]) {
    driver.messages(pages);
    s.readBytes(STATE, 160);
  }
  driver.command(CMD.RESET).messages(0);
  dump('after a reset of the adapter');
  return s;
}

const inquiry = (length: number): number[] => [0x12, 0, 0, length >>> 8, length & 0xff, 0];
const read10 = (block: number, blocks: number): number[] => [0x28, 0, 0, 0, 0, block, 0, 0, blocks, 0];
const write10 = (block: number, blocks: number): number[] => [0x2a, 0, 0, 0, 0, block, 0, 0, blocks, 0];

/** Requests, and how they end. */
export function requests(): RegisterScript {
  const driver = new Driver('requests');
  driver.rings(1, 1).s.write32(BASE + REG.MASK, 0xf);
  driver.run('the attention after power-on', { cdb: [0, 0, 0, 0, 0, 0] });
  driver.run('ready', { cdb: [0, 0, 0, 0, 0, 0], flags: 4 });
  driver.run('INQUIRY', { cdb: inquiry(36), length: 36 });
  driver.run('INQUIRY with more room', { cdb: inquiry(255), length: 255 }, 256);
  driver.run('a command without data, and room for some', { cdb: [0, 0, 0, 0, 0, 0], length: 64 });
  driver.run('an unknown command', { cdb: [0xc1, 0, 0, 0, 0, 0] });
  driver.run('a page that there is not', { cdb: [0x12, 1, 0x55, 0, 64, 0], length: 64 });
  driver.run('short sense data', { cdb: [0xc1, 0, 0, 0, 0, 0], senseLength: 5 });
  driver.run('no sense data', { cdb: [0xc1, 0, 0, 0, 0, 0], senseLength: 0 });
  driver.run('blocks', { cdb: read10(2, 2), length: 1024 }, 1040);
  driver.run('blocks behind the end', { cdb: [0x28, 0, 1, 0, 0, 0, 0, 0, 1, 0], length: 512 });
  driver.run('less room than blocks', { cdb: read10(0, 2), length: 512 }, 1024);
  driver.run('blocks to the disk', { cdb: write10(3, 1), length: 512, flags: TO_DEVICE });
  driver.run('no direction', { cdb: write10(3, 1), length: 512, flags: 0 });
  driver.run('a disc', { cdb: [0, 0, 0, 0, 0, 0], target: 2 });
  driver.run('a disc’s blocks', { cdb: read10(0, 1), target: 2, length: 2048 }, 2064);
  driver.run('a disc cannot be written', { cdb: write10(0, 1), target: 2, length: 2048, flags: TO_DEVICE });
  for (const target of [0, 3, 64, 65, 255]) driver.run(`target ${target}`, { cdb: inquiry(36), target, length: 36 });
  driver.run('another bus', { cdb: inquiry(36), bus: 1, length: 36 });
  for (const lun of [
    [0, 1, 0, 0, 0, 0, 0, 0],
    [1, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 1],
    [0x40, 0, 0, 0, 0, 0, 0, 0],
  ])
    driver.run(`LUN ${lun.join()}`, { cdb: inquiry(36), lun, length: 36 });
  driver.run('what units there are', { cdb: [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], length: 16 });
  for (const cdbLength of [0, 5, 16, 255])
    driver.run(`a block of ${cdbLength}`, { cdb: inquiry(36), cdbLength, length: 36 });

  const { s } = driver;
  s.about('several at one doorbell');
  for (let count = 0; count < 40; count++) driver.put({ cdb: inquiry(36), length: 36, address: DATA + 64 * count });
  driver.kick(REG.KICK_RW).completed(40);
  s.about('masked').write32(BASE + REG.MASK, 4);
  driver.run('a completion that nobody is told of', { cdb: [0, 0, 0, 0, 0, 0] });
  driver.put({ cdb: [0, 0, 0, 0, 0, 0] }).kick();
  s.about('unmasked afterwards')
    .pciRead(PLACE, 4)
    .write32(BASE + REG.MASK, 1)
    .pciRead(PLACE, 4);
  driver.completed();
  driver.command(CMD.RESET_DEVICE, 1, 0, 0);
  driver.run('after the reset of the disk', { cdb: [0, 0, 0, 0, 0, 0] });
  driver.run('the disc has not been reset', { cdb: [0, 0, 0, 0, 0, 0], target: 2 });
  driver.command(CMD.RESET_BUS);
  driver.run('after the reset of the bus: the disk', { cdb: [0, 0, 0, 0, 0, 0] });
  driver.run('after the reset of the bus: the disc', { cdb: [0, 0, 0, 0, 0, 0], target: 2 });
  driver.command(CMD.RESET);
  s.about('no rings any more')
    .read32(BASE + REG.MASK)
    .write32(STATE, 1)
    .write32(BASE + REG.KICK, 0)
    .settle();
  s.readBytes(STATE, 24).read32(BASE + REG.CAUSES);
  driver.rings(2, 1).run('rings anew', { cdb: [0, 0, 0, 0, 0, 0] });
  driver.run('the attention has been told', { cdb: [0, 0, 0, 0, 0, 0] });
  return s;
}

/** Lists of memory, and what a hostile driver makes of them. */
export function lists(): RegisterScript {
  const driver = new Driver('scatter-gather lists');
  driver.rings(1, 1).run('the attention after power-on', { cdb: [0, 0, 0, 0, 0, 0] });
  const flags = TO_HOST | SG;
  const pieces = (what: string, elements: readonly Element[], request: Partial<Request> = {}, room = true): void => {
    driver.list(...elements);
    driver.run(what, { cdb: inquiry(36), length: 36, flags, ...request }, 0x2000, room);
  };
  pieces('two pieces', [
    [DATA + 0x100, 10],
    [DATA + 0x20, 26],
  ]);
  pieces('empty elements in between', [
    [DATA, 0],
    [DATA + 0x100, 10],
    [DATA, 0],
    [DATA, 0],
    [DATA + 0x200, 4096],
  ]);
  pieces('a list that is too short', [[DATA, 16]], { length: 16 }, false);
  pieces('a list that is longer', [[DATA, 4096]], { length: 36 });
  pieces('nothing but empty elements', new Array<Element>(2050).fill([DATA, 0]), {}, false);
  pieces('a length without end', [[DATA, 36]], { length: 2 ** 52, cdb: inquiry(36) });
  pieces(
    'blocks in pieces',
    [
      [DATA + 1, 511],
      [DATA + 0x400, 1],
      [DATA + 0x801, 512],
    ],
    { cdb: read10(0, 2), length: 1024 },
  );
  pieces('one byte at a time, on the same byte', new Array<Element>(512).fill([DATA, 1]), {
    cdb: read10(0, 1),
    length: 512,
  });
  pieces('to where nothing is', [[0x7fff_0000_0000, 36]]);
  driver.run('a list where nothing is', { cdb: inquiry(36), length: 36, flags, address: 0x7fff_0000_0000 }, 64, false);
  driver.run('data where nothing is', { cdb: inquiry(36), length: 36, address: 0x7fff_0000_0000 });
  driver.run('data at the end of addresses', { cdb: inquiry(36), length: 36, address: 0xfff_ffff_fff0 });
  return driver.s;
}

/** Rings that a hostile driver describes. */
export function hostileRings(): RegisterScript {
  const driver = new Driver('hostile rings');
  const { s } = driver;
  driver.rings(1, 1);
  for (const producer of [1024, 1025, 0x8000_0000, 0xffff_ffff]) {
    s.about(`producer ${producer}`)
      .write32(STATE, producer)
      .write32(BASE + REG.KICK, 0)
      .settle();
    s.readBytes(STATE, 24).read32(BASE + REG.CAUSES);
  }
  s.about('many times round the ring').writeBytes(REQUESTS, Buffer.alloc(4096)).write32(STATE, 1000);
  s.write32(BASE + REG.KICK, 0).settle();
  s.readBytes(STATE, 24)
    .readBytes(COMPLETIONS, 64)
    .read32(BASE + REG.CAUSES);
  s.about('backwards')
    .write32(STATE, 990)
    .write32(BASE + REG.KICK, 0)
    .settle();
  s.readBytes(STATE, 24);
  driver.rings(32, 32).run('the longest rings', { cdb: inquiry(36), length: 36 });
  s.about('as many as fit but one')
    .write32(STATE, 1024)
    .write32(BASE + REG.KICK, 0)
    .settle();
  s.readBytes(STATE, 24);
  s.about('pages that are not there');
  driver.command(CMD.RINGS, 1, 1, STATE >>> 12, 0, ...new Array<number>(128).fill(0x7fff_ffff));
  s.write32(STATE, 3)
    .write32(BASE + REG.KICK, 0)
    .settle();
  s.readBytes(STATE, 24);
  driver.command(CMD.RINGS, 1, 1, 0xffff_ffff, 0xffff_ffff, ...new Array<number>(128).fill(0xffff_ffff));
  s.write32(BASE + REG.KICK, 0).settle();
  s.read32(BASE + REG.CAUSES);
  driver.rings(1, 1).run('and a good ring afterwards', { cdb: inquiry(36), length: 36 });
  return s;
}

/** Disks that come and go are told of, while there is room in the ring of messages. */
export function hotplug(): RegisterScript {
  const driver = new Driver('disks that come and go');
  const { s } = driver;
  const look = (when: string): void => {
    s.about(when).settle();
    s.readBytes(STATE + 128, 12)
      .readBytes(MESSAGES, 4096)
      .readBytes(MESSAGES + 4096, 256);
    driver.causes();
  };
  const plug = (target: number): void => {
    s.ask('blockdev-add', { driver: 'null-co', 'node-name': `n${target}` });
    s.ask('device_add', { driver: 'scsi-hd', drive: `n${target}`, id: `d${target}`, bus: 's.0', 'scsi-id': target });
  };
  plug(3);
  look('nobody listens');
  driver.rings(1, 1).messages(1);
  s.write32(BASE + REG.MASK, 0xf);
  for (const target of [4, 64]) plug(target);
  look('two have come');
  s.ask('device_del', { id: 'd64' });
  look('one has gone');
  driver.run('where it was', { cdb: inquiry(36), target: 64, length: 36 });
  driver.run('where one has come', { cdb: inquiry(36), target: 4, length: 36 });
  s.about('no room').write32(STATE + 132, 3 - 32);
  plug(5);
  look('there was no room');
  s.about('room for one').write32(STATE + 132, 4 - 32);
  for (const target of [6, 7]) plug(target);
  look('there was room for one');
  driver.command(CMD.RESET);
  plug(8);
  look('nobody listens after a reset');
  s.ask('device_add', { driver: 'scsi-hd', drive: 'n8', id: 'd65', bus: 's.0', 'scsi-id': 65 });
  s.ask('device_add', { driver: 'scsi-hd', drive: 'n8', id: 'lun', bus: 's.0', 'scsi-id': 9, lun: 1 });
  return s;
}

/** Messages instead of the pin. */
export function messageSignalled(): RegisterScript {
  const driver = new Driver('MSI');
  const { s } = driver;
  const look = (when: string): void => {
    s.about(when).readBytes(MSI.ADDRESS, 4).pciRead(PLACE, 4).write32(MSI.ADDRESS, 0);
  };
  s.pciRead(PLACE, MSI.AT)
    .pciWrite(PLACE, MSI.AT + 4, MSI.ADDRESS)
    .pciWrite(PLACE, MSI.AT + 8, 0);
  s.pciWrite(PLACE, MSI.AT + 12, 0x4321)
    .pciWrite16(PLACE, MSI.AT + 2, 0x0081)
    .pciRead(PLACE, MSI.AT);
  driver.rings(1, 1);
  s.write32(MSI.ADDRESS, 0);
  driver.put({ cdb: inquiry(36), length: 36 }).kick();
  look('masked');
  s.write32(BASE + REG.MASK, 1);
  look('unmasked');
  s.write32(BASE + REG.CAUSES, 2);
  look('another cause taken away');
  s.write32(BASE + REG.CAUSES, 1);
  look('the cause taken away');
  driver.put({ cdb: inquiry(36), length: 36 }).kick();
  look('the next');
  return s;
}

/** Configuration space as `properties` make it, on PCI and on PCI Express. */
function configuration(type: string, properties: string): RegisterScript {
  const express = type === 'q35';
  const driver = new Driver(`configuration space on ${type}${properties}`, properties, type);
  const { s } = driver;
  if (express) s.pciWrite({ device: 0 }, 0x60, MMCONFIG | 1);
  const look = (when: string): void => {
    for (let at = 0; at < 0x100; at += 4) s.about(`${when}, ${at.toString(16)}`).pciRead(PLACE, at);
  };
  look('at reset');
  for (const value of [0xffff_ffff, 0]) {
    // Not device control: QEMU's takes no bits of it, which PCI Express 3.0, section 7.8.4, wants.
    for (let at = 0x0c; at < 0x100; at += 4) if (!express || at !== 0x48) s.pciWrite(PLACE, at, value);
    look(`with ${value.toString(16)}`);
  }
  return s;
}

export const onPci = (): RegisterScript => configuration('pc', '');
export const onPciOld = (): RegisterScript => configuration('pc', ',x-old-pci-configuration=on');
export const onExpress = (): RegisterScript => configuration('q35', '');
export const onExpressOld = (): RegisterScript => configuration('q35', ',x-old-pci-configuration=on,x-disable-pcie=on');

/** Without messages SETUP_MSG_RING fails; that it will is said as soon as it has begun, where QEMU waits for its data. */
export function withoutMessages(): RegisterScript {
  const driver = new Driver('without messages', ',use_msg=0');
  driver.rings(1, 1);
  driver.s.write32(BASE + REG.COMMAND, CMD.MESSAGES);
  for (let word = 0; word < 34; word++) driver.s.write32(BASE + REG.DATA, 1);
  driver.s.read32(BASE + REG.STATUS).readBytes(STATE, 160);
  return driver.s;
}
