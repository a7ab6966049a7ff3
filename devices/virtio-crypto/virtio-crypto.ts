import type { CryptoBackend } from '../../core/crypto/cryptodev.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { field } from '../../core/state/fields.ts';
import type { VirtqueueElement } from '../../core/virtio/element.ts';
import { VIRTIO_ID } from '../../core/virtio/features.ts';
import { VirtioDevice, virtioProperties } from '../../core/virtio/virtio-device.ts';
import { virtioPciType } from '../../core/virtio/virtio-pci-types.ts';
import type { Virtqueue } from '../../core/virtio/virtqueue.ts';
import { CipherSession } from './cipher.ts';
import {
  CIPHERS,
  CONFIG,
  CONTROL,
  DATA,
  HASH_MODE,
  HASHES,
  HW_READY,
  MAX_AUTH_KEY,
  MAX_CIPHER_KEY,
  MAX_SESSIONS,
  OP_ENCRYPT,
  SERVICES,
  SESSION_INPUT,
  STATUS,
  type Status,
  SYM_OP,
} from './protocol.ts';

const QUEUE_SIZE = 1024;
/** The most that a request may be long, as QEMU says: what its memory allocator could take. */
const MAX_SIZE = 2n ** 63n - 1n - 24n;

const properties = {
  ...virtioProperties,
  cryptodev: prop.backend<CryptoBackend>('cryptodev', {
    typeName: 'link<cryptodev-backend>',
    help: 'id of what does the work',
  }),
};

/** The device cannot go on: the driver broke the rules. */
class Violation extends Error {}

/** Cryptography for the guest (virtio 1.2, section 5.9): ciphers, whose keys are kept in sessions. */
class VirtioCrypto extends VirtioDevice<typeof properties> {
  readonly #saved = this.state(
    1,
    {
      sessions: field.list(
        field.record({
          id: field.u16(),
          algorithm: field.u32(),
          encrypts: field.bool(),
          key: field.buffer(MAX_CIPHER_KEY),
          iv: field.buffer(16),
        }),
        MAX_SESSIONS,
      ),
    },
    { onReset: 'keep' },
  );
  /** By id. Unlike QEMU's they end with the driver that made them. */
  readonly #sessions = new Map<number, CipherSession>();
  readonly #request = new Uint8Array(Math.max(CONTROL.SIZE, DATA.SIZE));
  readonly #view = new DataView(this.#request.buffer);
  readonly #input = new Uint8Array(SESSION_INPUT.SIZE);
  readonly #inputView = new DataView(this.#input.buffer);
  #data: Virtqueue | undefined;

  protected override realize(): void {
    const { cryptodev } = this.props;
    if (cryptodev === undefined) throw refused("'cryptodev' parameter expects a valid object");
    if (cryptodev.used) throw refused(`can't use already used cryptodev backend: ${cryptodev.id}`);
    this.onUnrealize(cryptodev.claim());
    this.begin({ id: VIRTIO_ID.CRYPTO, configSize: CONFIG.BYTES });
    this.#data = this.addQueue(QUEUE_SIZE, queue => this.#serveData(queue));
    this.addQueue(QUEUE_SIZE, queue => this.#serveControl(queue));
    this.onUnrealize(this.services.system.onRunning(() => this.#data && this.#serveData(this.#data)));
  }

  protected override readConfig(config: DataView): void {
    config.setUint32(CONFIG.STATUS, HW_READY, true);
    config.setUint32(CONFIG.MAX_DATAQUEUES, 1, true);
    config.setUint32(CONFIG.CRYPTO_SERVICES, SERVICES, true);
    config.setUint32(CONFIG.CIPHER_ALGO_L, CIPHERS, true);
    config.setUint32(CONFIG.HASH_ALGO, HASHES, true);
    config.setUint32(CONFIG.MAX_CIPHER_KEY_LEN, MAX_CIPHER_KEY, true);
    config.setUint32(CONFIG.MAX_AUTH_KEY_LEN, MAX_AUTH_KEY, true);
    config.setBigUint64(CONFIG.MAX_SIZE, MAX_SIZE, true);
  }

  protected override virtioReset(): void {
    this.#sessions.clear();
  }

  override save() {
    this.#saved.sessions = [...this.#sessions].map(([id, { algorithm, encrypts, key, iv }]) => ({
      id,
      algorithm,
      encrypts,
      key: key.slice(),
      iv: iv.slice(),
    }));
    return super.save();
  }

  protected override restored(): void {
    this.#sessions.clear();
    for (const { id, algorithm, encrypts, key, iv } of this.#saved.sessions) {
      const session = CipherSession.create(algorithm, key, encrypts);
      if (session === undefined) continue;
      if (iv.length === session.iv.length) session.iv.set(iv);
      this.#sessions.set(id, session);
    }
  }

  // Sessions (section 5.9.7.2)

  #serveControl(queue: Virtqueue): void {
    this.#serve(queue, 'virtio-crypto ctrl missing headers', element => {
      if (element.read(this.#request, 0, CONTROL.SIZE) < CONTROL.SIZE)
        throw new Violation('virtio-crypto request ctrl_hdr too short');
      const operation = this.#view.getUint32(0, true);
      if (CONTROL.DESTROY.includes(operation)) return this.#destroy(element);
      this.#input.fill(0);
      const status = operation === CONTROL.CIPHER_CREATE ? this.#create(element) : STATUS.NOTSUPP;
      this.#inputView.setUint32(SESSION_INPUT.STATUS, status, true);
      if (element.write(this.#input) < SESSION_INPUT.SIZE) throw new Violation('virtio-crypto input incorrect');
      return SESSION_INPUT.SIZE;
    });
  }

  /** Takes up a session, whose id it puts into the answer. */
  #create(element: VirtqueueElement): Status {
    const type = this.#view.getUint32(CONTROL.OP_TYPE, true);
    if (type !== SYM_OP.CIPHER && type !== SYM_OP.CHAIN) return STATUS.NOTSUPP;
    const at = type === SYM_OP.CHAIN ? CONTROL.CHAIN : 0;
    const keyLength = this.#view.getUint32(CONTROL.KEY_LENGTH + at, true);
    if (keyLength > MAX_CIPHER_KEY) return STATUS.ERR;
    const key = new Uint8Array(keyLength);
    if (element.read(key, CONTROL.SIZE) < keyLength) throw new Violation('virtio-crypto cipher key incorrect');
    if (type === SYM_OP.CHAIN) return this.#refuseChain(element, CONTROL.SIZE + keyLength);
    const session = CipherSession.create(
      this.#view.getUint32(CONTROL.ALGORITHM, true),
      key,
      this.#view.getUint32(CONTROL.DIRECTION, true) === OP_ENCRYPT,
    );
    const id = this.#freeId();
    if (session === undefined || id === undefined) return STATUS.ERR;
    this.#sessions.set(id, session);
    this.#inputView.setUint32(SESSION_INPUT.ID, id, true);
    return STATUS.OK;
  }

  /** Ciphers with hashes are no affair of the builtin backend's; what is wrong with them is said all the same. */
  #refuseChain(element: VirtqueueElement, authKeyAt: number): Status {
    const mode = this.#view.getUint32(CONTROL.HASH_MODE, true);
    if (mode !== HASH_MODE.PLAIN && mode !== HASH_MODE.AUTH) return STATUS.NOTSUPP;
    const length = mode === HASH_MODE.AUTH ? this.#view.getUint32(CONTROL.AUTH_KEY_LENGTH, true) : 0;
    if (length <= MAX_AUTH_KEY && element.out.length < authKeyAt + length)
      throw new Violation('virtio-crypto authenticated key incorrect');
    return STATUS.ERR;
  }

  #freeId(): number | undefined {
    for (let id = 0; id < MAX_SESSIONS; id++) if (!this.#sessions.has(id)) return id;
    return undefined;
  }

  /** The answer is a byte. */
  #destroy(element: VirtqueueElement): number {
    const found = this.#sessions.delete(this.#sessionId(CONTROL.SESSION_ID));
    this.#input[0] = found ? STATUS.OK : STATUS.ERR;
    if (element.write(this.#input, 0, 0, 1) < 1) throw new Violation('virtio-crypto status incorrect');
    return 1;
  }

  #sessionId(at: number): number {
    return this.#view.getUint32(at, true) + this.#view.getUint32(at + 4, true) * 2 ** 32;
  }

  // Data (section 5.9.7.4)

  /** Only while the guest runs: its memory is changed. */
  #serveData(queue: Virtqueue): void {
    if (!this.services.system.running || !this.running) return;
    this.#serve(queue, 'virtio-crypto dataq missing headers', element => {
      if (element.read(this.#request, 0, DATA.SIZE) < DATA.SIZE)
        throw new Violation('virtio-crypto request outhdr too short');
      // The status is the last byte of the last buffer.
      this.#input[0] = this.#operate(element);
      element.write(this.#input, element.in.length - 1, 0, 1);
      return element.in.length;
    });
  }

  #operate(element: VirtqueueElement): Status {
    const operation = this.#view.getUint32(0, true);
    if (operation !== DATA.CIPHER_ENCRYPT && operation !== DATA.CIPHER_DECRYPT) return STATUS.NOTSUPP;
    const type = this.#view.getUint32(DATA.OP_TYPE, true);
    if (type !== SYM_OP.CIPHER && type !== SYM_OP.CHAIN) return STATUS.NOTSUPP;
    const [ivLength, sourceLength, targetLength] = [DATA.IV_LENGTH, DATA.SOURCE_LENGTH, DATA.TARGET_LENGTH].map(at =>
      this.#view.getUint32(at, true),
    ) as [number, number, number];
    if (sourceLength !== targetLength) throw new Violation('sym request src len is different from dst len');
    const left = element.out.length - DATA.SIZE;
    if (ivLength > left) throw new Violation('virtio-crypto iv incorrect');
    if (sourceLength > left - ivLength) throw new Violation('virtio-crypto source data incorrect');
    const session = this.#sessions.get(this.#sessionId(DATA.SESSION_ID));
    if (session === undefined) return STATUS.INVSESS;
    if (type === SYM_OP.CHAIN) return STATUS.NOTSUPP;
    const iv = new Uint8Array(ivLength);
    const source = new Uint8Array(sourceLength);
    element.read(iv, DATA.SIZE);
    element.read(source, DATA.SIZE + ivLength);
    const target = session.run(iv, source);
    if (target === undefined) return STATUS.ERR;
    if (element.in.length - 1 < target.length) this.broken('virtio-crypto dest data incorrect');
    else element.write(target);
    return STATUS.OK;
  }

  /** Answers what the driver asks; a request that breaks the rules is the last one. */
  #serve(queue: Virtqueue, headless: string, answer: (element: VirtqueueElement) => number): void {
    for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
      try {
        if (element.outCount < 1 || element.inCount < 1) throw new Violation(headless);
        queue.push(element, answer(element));
        queue.notify();
      } catch (error) {
        if (!(error instanceof Violation)) throw error;
        this.broken(error.message);
        queue.detach(element);
        return;
      }
    }
  }
}

const refused = (message: string): SouthbridgeError => new SouthbridgeError('ERR_PROPERTY_VALUE', message);

export const virtioCryptoDevice = deviceType({
  type: 'virtio-crypto-device',
  summary: 'Cryptography (virtio)',
  bus: 'virtio-bus',
  category: 'misc',
  parents: ['virtio-device', 'device'],
  properties,
  create: VirtioCrypto,
});

export const virtioCryptoPci = virtioPciType({
  name: 'virtio-crypto',
  summary: 'Cryptography (virtio, PCI)',
  aliases: [],
  category: 'misc',
  backend: virtioCryptoDevice,
  virtioId: VIRTIO_ID.CRYPTO,
  class: 0x00_ff00,
  properties: { vectors: prop.u32({ default: 2 }) },
  vectors: () => 2,
});
