import { type PciPlace, RegisterScript } from '../register-script.ts';
import { fixedTime } from './isa.ts';

const QUEUE_SIZE = 64;
const ADMIN = { GET_LOG_PAGE: 0x02, IDENTIFY: 0x06, SET_FEATURES: 0x09, ASYNC_EVENT: 0x0c, ATTACHMENT: 0x15 } as const;
const CHANGED_NAMESPACES = 4;

/** One controller's admin queue, as a driver has it. */
class Controller {
  readonly #s: RegisterScript;
  readonly #bar: number;
  readonly #memory: number;
  #submitted = 0;
  #completed = 0;

  constructor(s: RegisterScript, place: PciPlace, index: number) {
    this.#s = s;
    this.#bar = 0xe000_0000 + index * 0x1_0000;
    this.#memory = 0x10_0000 + index * 0x10_0000;
    s.about(`controller ${index} starts`).pciWrite(place, 0x10, this.#bar).pciWrite16(place, 4, 6);
    s.write32(this.#bar + 0x24, ((QUEUE_SIZE - 1) << 16) | (QUEUE_SIZE - 1))
      .write64(this.#bar + 0x28, BigInt(this.#memory))
      .write64(this.#bar + 0x30, BigInt(this.#memory + 0x1000))
      .write32(this.#bar + 0x14, 0x0046_0001);
    this.#settle();
  }

  get data(): number {
    return this.#memory + 0x2000;
  }

  /** QEMU puts taking a command off, then what it answers: each until its main loop has been around once more. */
  #settle(): void {
    for (let turn = 0; turn < 3; turn++) this.#s.read32(this.#bar + 0x1c).settle();
  }

  /** Asks, and compares `completions` entries of the completion queue. */
  run(opcode: number, nsid: number, dword10: number, dword11 = 0, completions = 1): void {
    const command = Buffer.alloc(64);
    const tail = this.#submitted % QUEUE_SIZE;
    command.writeUInt32LE((opcode | (this.#submitted << 16)) >>> 0);
    command.writeUInt32LE(nsid, 4);
    command.writeUInt32LE(this.data, 24);
    command.writeUInt32LE(dword10, 40);
    command.writeUInt32LE(dword11, 44);
    this.#submitted++;
    this.#s.writeBytes(this.#memory + 64 * tail, command);
    this.#s.write32(this.#bar + 0x1000, this.#submitted % QUEUE_SIZE);
    this.#settle();
    for (let index = 0; index < completions; index++) {
      this.#s.readBytes(this.#memory + 0x1000 + 16 * (this.#completed % QUEUE_SIZE), 16);
      this.#completed++;
    }
    if (completions > 0) this.#s.write32(this.#bar + 0x1004, this.#completed % QUEUE_SIZE);
  }

  /** @param parts offsets and lengths of what is compared of the data */
  identify(cns: number, nsid = 0, dword10 = 0, dword11 = 0, parts: readonly (readonly number[])[] = [[0, 64]]): void {
    this.#s.writeBytes(this.data, new Uint8Array(64).fill(0xee));
    this.run(ADMIN.IDENTIFY, nsid, (cns | dword10) >>> 0, dword11);
    for (const [at = 0, length = 0] of parts) this.#s.readBytes(this.data + at, length);
  }

  attach(nsid: number, select: number, ids: readonly number[], count = ids.length): void {
    const list = Buffer.alloc(64);
    list.writeUInt16LE(count);
    ids.forEach((id, index) => list.writeUInt16LE(id, 2 + 2 * index));
    this.#s.writeBytes(this.data, list);
    this.run(ADMIN.ATTACHMENT, nsid, select);
  }
}

const NAMESPACES = [0, 1, 2, 5, 7, 9, 256, 257, 0xffff_ffff] as const;

function lab(name: string): { s: RegisterScript; first: Controller; second: Controller; all: readonly Controller[] } {
  const drive = (id: string): string[] => ['-drive', `driver=null-co,size=1M,read-zeroes=on,if=none,id=${id}`];
  const machine = ['-machine', 'pc', '-m', '128M', '-nodefaults', ...['d1', 'd2', 'd3', 'd4'].flatMap(drive)];
  const devices = [
    'nvme-subsys,id=sub,nqn=lab',
    'nvme,serial=one,subsys=sub,addr=4,id=c0',
    'nvme-ns,drive=d1,bus=c0,nsid=1,eui64=0x1122334455667788',
    'nvme,serial=one,subsys=sub,addr=5,id=c1',
    'nvme-ns,drive=d2,bus=c0,shared=off',
    'nvme-ns,drive=d3,bus=c1,nsid=5,detached=on,uuid=01234567-89ab-cdef-0123-456789abcdef',
    'nvme-ns,drive=d4,bus=c1,nsid=7,detached=on,shared=off',
  ];
  const s = new RegisterScript(name, [...machine, ...devices.flatMap(device => ['-device', device]), ...fixedTime]);
  const first = new Controller(s, { device: 4 }, 0);
  const second = new Controller(s, { device: 5 }, 1);
  return { s, first, second, all: [first, second] };
}

/** Offsets and lengths: what a controller says of itself and the subsystem, and a namespace. */
const OF_CONTROLLER = [
  [0, 24],
  [76, 1],
  [78, 2],
  [768, 256],
] as const;
const OF_NAMESPACE = [
  [0, 24],
  [26, 1],
  [30, 1],
  [120, 8],
] as const;

export function subsystemIdentify(): RegisterScript {
  const { s, all } = lab('nvme-subsys: who is there, as each controller sees it');
  for (const controller of all) {
    s.about('Identify Controller');
    controller.identify(0x01, 0, 0, 0, OF_CONTROLLER);
    s.about('primary controller capabilities');
    controller.identify(0x14, 0, 0, 0, [[0, 2]]);
    for (const cns of [0x02, 0x10, 0x07, 0x1a])
      for (const nsid of [0, 1, 5, 0xffff_fffe]) {
        s.about(`namespaces ${cns.toString(16)} after ${nsid}`);
        controller.identify(cns, nsid);
      }
    for (const nsid of NAMESPACES) {
      for (const cns of [0x00, 0x11]) {
        s.about(`namespace ${cns.toString(16)} ${nsid}`);
        controller.identify(cns, nsid, 0, 0, OF_NAMESPACE);
      }
      for (const cns of [0x03, 0x12]) {
        s.about(`descriptors, controllers ${cns.toString(16)} ${nsid}`);
        controller.identify(cns, nsid);
      }
      controller.identify(0x12, nsid, 1 << 16);
    }
    for (const from of [0, 1, 2, 255, 256, 0xffff]) {
      s.about(`controllers from ${from}`);
      controller.identify(0x13, 0, from << 16);
    }
  }
  return s;
}

export function subsystemAttachment(): RegisterScript {
  const { s, first, second, all } = lab('nvme-subsys: Namespace Attachment and its events');
  const state = (): void => {
    for (const controller of all) controller.identify(0x02);
    for (const nsid of [1, 2, 5, 7]) first.identify(0x12, nsid);
  };
  for (const controller of all) {
    s.about('events of namespaces are asked for');
    controller.run(ADMIN.SET_FEATURES, 0, 0x0b, 1 << 8);
    controller.run(ADMIN.ASYNC_EVENT, 0, 0, 0, 0);
  }
  const ATTACH = 0;
  const DETACH = 1;
  s.about('attach 5 to the first, which has an event');
  first.run(ADMIN.GET_LOG_PAGE, 0xffff_ffff, CHANGED_NAMESPACES | (15 << 16));
  s.writeBytes(first.data, Uint8Array.of(1, 0, 0, 0));
  first.run(ADMIN.ATTACHMENT, 5, ATTACH, 0, 2);
  state();
  s.about('the log of changes');
  first.run(ADMIN.GET_LOG_PAGE, 0xffff_ffff, CHANGED_NAMESPACES | (15 << 16));
  s.readBytes(first.data, 64);
  first.run(ADMIN.GET_LOG_PAGE, 0xffff_ffff, CHANGED_NAMESPACES | (15 << 16));
  s.readBytes(first.data, 64);
  const steps: readonly (readonly [string, number, number, readonly number[], number?])[] = [
    ['again', 5, ATTACH, [0]],
    ['to the second, then to the first', 5, ATTACH, [1, 0]],
    ['from both', 5, DETACH, [0, 1]],
    ['from both again', 5, DETACH, [0, 1]],
    ['a private one', 7, ATTACH, [0]],
    ['a private one to another', 7, ATTACH, [1]],
    ['one that is attached elsewhere', 2, ATTACH, [1]],
    ['moved', 2, DETACH, [0]],
    ['moved there', 2, ATTACH, [1]],
    ['a shared one goes', 1, DETACH, [1]],
    ['no controllers', 1, DETACH, []],
    ['no such controller', 1, DETACH, [9]],
    ['controllers out of bounds', 1, DETACH, [0xffff]],
    ['more than the list has', 1, ATTACH, [1], 0xffff],
    ['no such operation', 1, 2, [0]],
    ['namespace 0', 0, ATTACH, [0]],
    ['namespace 9', 9, ATTACH, [0]],
    ['namespace 257', 257, ATTACH, [0]],
    ['all namespaces', 0xffff_ffff, ATTACH, [0]],
  ];
  for (const [what, nsid, select, ids, count] of steps) {
    s.about(`${what}: ${nsid} ${select} ${ids.join()}`);
    first.attach(nsid, select, ids, count);
    state();
  }
  s.about('what the second has heard of');
  second.run(ADMIN.GET_LOG_PAGE, 0xffff_ffff, CHANGED_NAMESPACES | (15 << 16));
  s.readBytes(second.data, 64);
  return s;
}
