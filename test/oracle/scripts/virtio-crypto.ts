import { type PciPlace, RegisterScript } from '../register-script.ts';
import { VirtioRequests } from '../virtio-requests.ts';

const PLACE: PciPlace = { device: 4 };
const CONTROL_QUEUE = 1;
const CREATE = 2;
const DESTROY = 3;
const CIPHER = 1;

interface Session {
  readonly opcode?: number;
  readonly algorithm?: number;
  readonly keyLength: number;
  readonly key?: number;
  readonly type?: number;
  readonly hashMode?: number;
}

/** A request for a session, with a key of so many bytes behind it. */
export function createSession(session: Session): Buffer {
  const { opcode = CREATE, algorithm = 3, keyLength, key = keyLength, type = CIPHER, hashMode = 0 } = session;
  const at = type === 2 ? 24 : 16;
  const bytes = Buffer.alloc(72 + key);
  bytes.writeUInt32LE(opcode, 0);
  bytes.writeUInt32LE(algorithm, at);
  bytes.writeUInt32LE(keyLength, at + 4);
  bytes.writeUInt32LE(1, at + 8);
  if (type === 2) bytes.writeUInt32LE(hashMode, 20);
  bytes.writeUInt32LE(type, 64);
  for (let index = 0; index < key; index++) bytes[72 + index] = index * 7 + 1;
  return bytes;
}

export function destroySession(id: number): Buffer {
  const bytes = Buffer.alloc(72);
  bytes.writeUInt32LE(DESTROY, 0);
  bytes.writeBigUInt64LE(BigInt(id), 16);
  return bytes;
}

// With ioeventfd QEMU answers when its main loop comes to it.
const machine = [
  ...['-machine', 'pc', '-m', '128M', '-nodefaults', '-object', 'cryptodev-backend-builtin,id=c'],
  ...['-device', 'virtio-crypto-pci,cryptodev=c,addr=4,ioeventfd=off'],
];

export function sessions(): RegisterScript {
  const script = new RegisterScript('virtio-crypto: sessions', machine);
  for (let at = 0; at < 0x40; at += 4) script.about(`PCI ${at}`).pciRead(PLACE, at);
  const driver = new VirtioRequests(script, PLACE);
  // QEMU has RSA, which is not here: the service, and the algorithm.
  const base = 0xe000_2000;
  for (let at = 0; at < 56; at += 4) {
    script.about(`configuration ${at}`).read32(base + at, at === 8 ? 0xf : at === 44 ? 0 : 0xffff_ffff);
  }
  driver.start(2);
  const ask = (what: string, out: Buffer, room = 16): void => {
    driver.request(what, CONTROL_QUEUE, out, room);
  };
  for (const algorithm of [0, 1, 2, 3, 4, 5, 7, 8, 13, 14])
    for (const keyLength of [0, 8, 16, 24, 32, 48, 64])
      ask(`algorithm ${algorithm}, key of ${keyLength}`, createSession({ algorithm, keyLength }));
  ask('a key that is too long', createSession({ keyLength: 65 }));
  for (const type of [0, 2, 3]) ask(`operation type ${type}`, createSession({ keyLength: 16, type }));
  for (const hashMode of [1, 2, 3]) ask(`hash mode ${hashMode}`, createSession({ keyLength: 16, type: 2, hashMode }));
  for (const opcode of [0x102, 0x202, 0x302, 0x777]) ask(`opcode ${opcode}`, createSession({ keyLength: 16, opcode }));
  for (const id of [0, 0, 3, 200, 256, 2 ** 40]) ask(`destroy ${id}`, destroySession(id), 1);
  ask('the first that is free', createSession({ keyLength: 16 }));
  ask('the next', createSession({ keyLength: 16 }));
  ask('a longer answer', createSession({ keyLength: 16 }), 32);
  driver.request('no room', CONTROL_QUEUE, createSession({ keyLength: 16 }), 15).status('broken');
  return script;
}

export function manySessions(): RegisterScript {
  const script = new RegisterScript('virtio-crypto: as many sessions as there can be', machine);
  const driver = new VirtioRequests(script, PLACE).start(2);
  for (let count = 0; count < 258; count++)
    driver.request(`session ${count}`, CONTROL_QUEUE, createSession({ keyLength: 16 }), 16);
  return script;
}

const violation = (what: string, out: Buffer, room: number) => (): RegisterScript => {
  const script = new RegisterScript(`virtio-crypto: ${what}`, machine);
  new VirtioRequests(script, PLACE).start(2).request(what, CONTROL_QUEUE, out, room).status('broken');
  return script;
};

export const shortRequest = violation('a short request', createSession({ keyLength: 0 }).subarray(0, 71), 16);
export const shortKey = violation('a key that is not all there', createSession({ keyLength: 16, key: 15 }), 16);
export const noAnswer = violation('no answer wanted', createSession({ keyLength: 16 }), 0);
export const noStatus = violation('no question', Buffer.alloc(0), 16);
