import t from 'tap';
import { bench } from '../../core/testing/bench.ts';
import { VirtioDriver } from '../../core/testing/virtio-driver.ts';
import type { DriverQueue } from '../../core/testing/virtio-driver-queue.ts';
import { virtioCryptoPci } from '../../devices/virtio-crypto/virtio-crypto.ts';
import { RunningProgram, runToEnd } from '../core/control/program.ts';
import { createSession, destroySession } from '../oracle/scripts/virtio-crypto.ts';

const ECB = 2;
const CBC = 3;
const CTR = 4;
const TRIPLE_DES_CBC = 8;
const XTS = 13;
const ENCRYPT = 1;
const DECRYPT = 2;
const STATUS = { OK: 0, ERR: 1, NOTSUPP: 3, INVSESS: 4 };

const bytes = (hex: string): Buffer => Buffer.from(hex.replaceAll(' ', ''), 'hex');

/** NIST SP 800-38A, appendix F: the plain text of all examples, and their initial values. */
const PLAIN = bytes('6bc1bee22e409f96e93d7e117393172a ae2d8a571e03ac9c9eb76fac45af8e51');
const IV = bytes('000102030405060708090a0b0c0d0e0f');
const COUNTER = bytes('f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff');
const KEY_128 = bytes('2b7e151628aed2a6abf7158809cf4f3c');
const KEY_192 = bytes('8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b');
const KEY_256 = bytes('603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4');

interface Answer {
  readonly status: number | undefined;
  readonly data: Buffer;
  readonly length: number;
}

class Guest {
  readonly lab = bench({ backends: { find: () => ({ id: 'c', used: false, claim: () => () => {} }) } });
  readonly probe = this.lab.pci(virtioCryptoPci, { cryptodev: 'c' });
  readonly driver = new VirtioDriver(this.lab, this.probe);
  readonly data: DriverQueue;
  readonly control: DriverQueue;
  readonly #out: number;
  readonly #in: number;

  constructor() {
    this.lab.machine.start();
    this.driver.negotiate(0n);
    this.data = this.driver.queue(0, 64);
    this.control = this.driver.queue(1, 64);
    this.#out = this.driver.allocate(0x4000, 4096);
    this.#in = this.driver.allocate(0x4000, 4096);
    this.driver.start();
  }

  ask(queue: DriverQueue, out: Uint8Array, room: number): { readonly data: Buffer; readonly length: number } {
    const { ram } = this.driver;
    ram.bytes.set(out, this.#out);
    ram.bytes.fill(0xee, this.#in, this.#in + room);
    queue.add([
      { address: this.#out, length: out.length },
      { address: this.#in, length: room, writable: true },
    ]);
    queue.kick();
    const used = queue.used();
    return { data: Buffer.from(ram.bytes.slice(this.#in, this.#in + room)), length: used?.length ?? -1 };
  }

  session(algorithm: number, key: Uint8Array, direction = ENCRYPT): number {
    const request = createSession({ algorithm, keyLength: key.length });
    request.writeUInt32LE(direction, 24);
    request.set(key, 72);
    const { data } = this.ask(this.control, request, 16);
    return data.readUInt32LE(8) === STATUS.OK ? data.readUInt32LE(0) : -data.readUInt32LE(8);
  }

  run(session: number, iv: Uint8Array, source: Uint8Array, options: { opcode?: number; type?: number } = {}): Answer {
    const head = Buffer.alloc(72);
    head.writeUInt32LE(options.opcode ?? 0, 0);
    head.writeUInt32LE(session, 8);
    [iv.length, source.length, source.length].forEach((value, index) => head.writeUInt32LE(value, 24 + 4 * index));
    head.writeUInt32LE(options.type ?? 1, 64);
    const { data, length } = this.ask(this.data, Buffer.concat([head, iv, source]), source.length + 1);
    return { status: data.at(-1), data: data.subarray(0, -1), length };
  }
}

function guest(): Guest {
  const made = new Guest();
  t.teardown(() => made.lab.dispose());
  return made;
}

t.test('ciphers do what their standards say, both ways', async t => {
  const device = guest();
  const cases: readonly (readonly [string, number, Buffer, Buffer, Buffer, Buffer])[] = [
    [
      'ECB-AES128',
      ECB,
      KEY_128,
      Buffer.alloc(0),
      PLAIN,
      bytes('3ad77bb40d7a3660a89ecaf32466ef97 f5d3d58503b9699de785895a96fdbaaf'),
    ],
    ['CBC-AES128', CBC, KEY_128, IV, PLAIN, bytes('7649abac8119b246cee98e9b12e9197d 5086cb9b507219ee95db113a917678b2')],
    ['CBC-AES192', CBC, KEY_192, IV, PLAIN, bytes('4f021db243bc633d7178183a9fa071e8 b4d9ada9ad7dedf4e5e738763f69145a')],
    ['CBC-AES256', CBC, KEY_256, IV, PLAIN, bytes('f58c4c04d6e5f1ba779eabfb5f7bfbd6 9cfc4e967edb808d679f777bc6702c7d')],
    [
      'CTR-AES128',
      CTR,
      KEY_128,
      COUNTER,
      PLAIN,
      bytes('874d6191b620e3261bef6864990db6ce 9806f66b7970fdff8617187bb9fffdff'),
    ],
    // IEEE 1619-2007, appendix B, vector 2.
    [
      'XTS-AES128',
      XTS,
      bytes('11111111111111111111111111111111 22222222222222222222222222222222'),
      bytes('33333333330000000000000000000000'),
      Buffer.alloc(32, 0x44),
      bytes('c454185e6a16936e39334038acef838b fb186fff7480adc4289382ecd6d394f0'),
    ],
  ];
  for (const [name, algorithm, key, iv, plain, secret] of cases) {
    const encrypt = device.session(algorithm, key);
    const decrypt = device.session(algorithm, key, DECRYPT);
    t.same(device.run(encrypt, iv, plain), { status: STATUS.OK, data: secret, length: 33 }, name);
    t.same(device.run(decrypt, iv, secret), { status: STATUS.OK, data: plain, length: 33 }, `${name}, back`);
  }
  const des = device.session(TRIPLE_DES_CBC, KEY_192);
  const back = device.session(TRIPLE_DES_CBC, KEY_192, DECRYPT);
  const secret = device.run(des, IV.subarray(0, 8), PLAIN).data;
  t.notSame(secret, PLAIN);
  t.same(device.run(back, IV.subarray(0, 8), secret).data, PLAIN);
});

t.test('a request without an initial value goes on from the last one', async t => {
  const device = guest();
  for (const [algorithm, iv] of [
    [CBC, IV],
    [CTR, Buffer.alloc(16, 0xff)],
  ] as const)
    for (const direction of [ENCRYPT, DECRYPT]) {
      const whole = device.run(device.session(algorithm, KEY_128, direction), iv, PLAIN).data;
      const session = device.session(algorithm, KEY_128, direction);
      const first = device.run(session, iv, PLAIN.subarray(0, 16)).data;
      const backend = device.probe.device.buses[0]?.devices[0];
      backend?.restore(backend.save());
      const second = device.run(session, Buffer.alloc(0), PLAIN.subarray(16)).data;
      t.same(Buffer.concat([first, second]), whole, 'even where all was saved and restored in between');
    }
});

t.test('what cannot be done is said', async t => {
  const device = guest();
  const session = device.session(CBC, KEY_128);
  const none = Buffer.alloc(0);
  t.equal(device.run(session, IV.subarray(0, 8), PLAIN).status, STATUS.ERR, 'an initial value of the wrong size');
  t.equal(device.run(session, IV, PLAIN.subarray(0, 17)).status, STATUS.ERR, 'part of a block');
  t.equal(device.run(session, IV, none).status, STATUS.OK, 'nothing');
  t.equal(device.run(77, IV, PLAIN).status, STATUS.INVSESS);
  t.equal(device.run(session, IV, PLAIN, { type: 2 }).status, STATUS.NOTSUPP, 'a chain');
  t.equal(device.run(session, IV, PLAIN, { type: 0 }).status, STATUS.NOTSUPP, 'no operation');
  t.equal(device.run(session, IV, PLAIN, { opcode: 0x100 }).status, STATUS.NOTSUPP, 'a hash');
  t.equal(device.session(CBC, KEY_128.subarray(1)), -STATUS.ERR);
  t.equal(device.ask(device.control, destroySession(session), 1).data[0], STATUS.OK);
  t.equal(device.run(session, IV, PLAIN).status, STATUS.INVSESS, 'it is gone');
  t.equal(device.driver.status & 64, 0, 'the device still works');
});

t.test('a request that breaks the rules is the last one', async t => {
  const lengths = (iv: number, source: number, target: number): Buffer => {
    const head = Buffer.alloc(72 + 32);
    [iv, source, target].forEach((value, index) => head.writeUInt32LE(value, 24 + 4 * index));
    head.writeUInt32LE(1, 64);
    return head;
  };
  for (const [name, request] of Object.entries({
    'a short one': Buffer.alloc(71),
    'lengths that differ': lengths(0, 16, 32),
    'an initial value that is not there': lengths(33, 0, 0),
    'an endless one': lengths(0xffff_ffff, 16, 16),
    'data that are not there': lengths(16, 32, 32),
    'endless data': lengths(16, 0xffff_ffff, 0xffff_ffff),
  })) {
    const device = guest();
    device.session(CBC, KEY_128);
    t.equal(device.ask(device.data, request, 64).length, -1, name);
    t.equal(device.driver.status & 64, 64, 'it needs a reset');
    device.driver.negotiate(0n);
    t.equal(device.driver.status & 64, 0);
  }
  const device = guest();
  const session = device.session(CBC, KEY_128);
  const head = lengths(0, 32, 32);
  head.writeUInt32LE(session, 8);
  t.equal(device.ask(device.data, head, 20).data.at(-1), STATUS.OK, 'no room for what comes out');
  t.equal(device.driver.status & 64, 64);
});

t.test('the object and its device', async t => {
  const machine = ['-machine', 'pc', '-m', '64', '-nodefaults'];
  const object = ['-object', 'cryptodev-backend-builtin,id=c'];
  for (const [args, message] of [
    [['-device', 'virtio-crypto-pci'], "'cryptodev' parameter expects a valid object"],
    [['-device', 'virtio-crypto-pci,cryptodev=x'], "Device 'x' not found"],
    [['-object', 'cryptodev-backend-builtin,id=c,queues=2'], 'Only support one queue in cryptdov-builtin backend'],
    [
      ['-object', 'cryptodev-backend-builtin,id=c,queues=0'],
      "Property 'cryptodev-backend-builtin.queues' doesn't take value '0'",
    ],
    [
      [...object, '-device', 'virtio-crypto-pci,cryptodev=c', '-device', 'virtio-crypto-pci,cryptodev=c'],
      "can't use already used cryptodev backend: c",
    ],
  ] as const) {
    const { errors } = await runToEnd(...machine, ...args);
    t.match(errors, message);
  }
  const program = await RunningProgram.start(...machine, ...object, '-device', 'virtio-crypto-pci,cryptodev=c,id=d');
  t.teardown(() => program.stop());
  await program.execute('qmp_capabilities');
  t.match(await program.execute('object-del', { id: 'c' }), {
    error: { desc: "object 'c' is in use, can not be deleted" },
  });
  t.equal((await program.execute('qom-get', { path: '/objects/c', property: 'queues' }))['return'], 1);
});
