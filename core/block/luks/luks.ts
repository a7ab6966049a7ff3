import type { BlockDriver, OpenContext } from '../driver.ts';
import type { BlockGraph } from '../graph.ts';
import type { Info } from '../info.ts';
import { BlockError, errno, IoError } from '../io-error.ts';
import { IoVector } from '../io-vector.ts';
import { BlockNode } from '../node.ts';
import type { BlockOptions } from '../options.ts';
import { type Pending, start, type Task } from '../pending.ts';
import { type BlockStatus, type NodeSettings, PREALLOCATIONS, type TruncateOptions } from '../requests.ts';
import { amendVolume } from './amend.ts';
import { cipherAlgorithms, cipherModes, hashAlgorithms, ivGenerators, SECTOR, type SectorCipher } from './cipher.ts';
import { HEADER_BYTES, isLuks, type LuksHeader, parseHeader } from './header.ts';
import { areaReader, format, type NewVolume, unlock } from './keys.ts';

/** Reads sectors of `below` that are enciphered; `number` is that of the first. */
export function* readEnciphered(
  below: BlockNode,
  cipher: SectorCipher,
  place: number,
  number: number,
  bytes: number,
  iov: IoVector,
  at: number,
): Task {
  const data = new Uint8Array(bytes);
  const reading = below.readv(place, bytes, IoVector.of(data));
  if (reading) yield reading;
  cipher.decrypt(data, number);
  iov.scatter(at, data, 0, bytes);
}

export function writeEnciphered(
  below: BlockNode,
  cipher: SectorCipher,
  place: number,
  number: number,
  bytes: number,
  iov: IoVector,
  at: number,
): Pending {
  const data = new Uint8Array(bytes);
  iov.gather(at, data, 0, bytes);
  cipher.encrypt(data, number);
  return below.writev(place, bytes, IoVector.of(data));
}

/** A volume in LUKS format, version 1: a header with the key, enciphered itself, and the data behind it. */
export class LuksNode extends BlockNode {
  readonly header: LuksHeader;
  /** The name of the secret that opened it. */
  readonly secret: string;
  readonly #cipher: SectorCipher;

  constructor(graph: BlockGraph, settings: NodeSettings, header: LuksHeader, secret: string, cipher: SectorCipher) {
    super(graph, luksDriver, settings);
    this.header = header;
    this.secret = secret;
    this.#cipher = cipher;
    this.requestAlignment = SECTOR;
  }

  get #below(): BlockNode {
    const { file } = this;
    if (file === undefined) throw new IoError(errno.ENOMEDIUM);
    return file;
  }

  override get length(): number {
    return Math.max(0, (this.file?.length ?? 0) - this.header.payloadOffset);
  }

  protected override pread(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    const place = this.header.payloadOffset + offset;
    return start(readEnciphered(this.#below, this.#cipher, place, offset / SECTOR, bytes, iov, at));
  }

  protected override pwrite(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    const place = this.header.payloadOffset + offset;
    return writeEnciphered(this.#below, this.#cipher, place, offset / SECTOR, bytes, iov, at);
  }

  protected override ptruncate(size: number, options: TruncateOptions): Pending {
    return this.#below.truncate(this.header.payloadOffset + size, options);
  }

  protected override pstatus(_offset: number, bytes: number): BlockStatus {
    return { bytes, allocated: true, data: true, zero: false };
  }

  override resized(): void {
    this.notifyResize();
  }
}

/** QCryptoBlockInfoLUKS, with the format's name. */
export function luksInfo({ cipher, hash, payloadOffset, digestIterations, uuid, slots }: LuksHeader): Info {
  return {
    format: 'luks',
    'cipher-alg': cipher.algorithm,
    'cipher-mode': cipher.mode,
    'ivgen-alg': cipher.iv,
    ...(cipher.ivHash !== undefined && { 'ivgen-hash-alg': cipher.ivHash }),
    'hash-alg': hash,
    'payload-offset': payloadOffset,
    'master-key-iters': digestIterations,
    uuid,
    slots: slots.map(({ active, iterations, materialOffset }) => ({
      active,
      ...(active && { iters: iterations, stripes: 4000 }),
      'key-offset': materialOffset,
    })),
  };
}

/**
 * Reads the header at `offset` in `file`, and opens it with the secret of that name.
 *
 * @param prefix of the option that names the secret, for messages
 */
export async function openVolume(
  graph: BlockGraph,
  file: BlockNode,
  offset: number,
  secret: string | undefined,
  prefix: string,
): Promise<{ readonly header: LuksHeader; readonly cipher: SectorCipher }> {
  const read = areaReader(file, offset);
  const header = parseHeader(await read(0, HEADER_BYTES));
  return { header, cipher: await unlock(header, await passphrase(graph, secret, prefix), read) };
}

async function passphrase(graph: BlockGraph, secret: string | undefined, prefix: string): Promise<Uint8Array> {
  if (secret === undefined) throw new BlockError(`Parameter '${prefix}key-secret' is required for cipher`);
  return graph.secret(secret);
}

/** Takes the options of a new volume, and makes its header. `encrypt.` is the prefix where it is in another format. */
export async function createVolume(
  graph: BlockGraph,
  options: BlockOptions,
  prefix: string,
): Promise<Awaited<ReturnType<typeof format>>> {
  const volume = takeVolume(options);
  return format(volume, await passphrase(graph, options.string('key-secret'), prefix));
}

function takeVolume(options: BlockOptions): NewVolume {
  const iv = options.choice('ivgen-alg', ivGenerators) ?? 'plain64';
  const given = options.choice('ivgen-hash-alg', hashAlgorithms);
  const iterationMs = options.number('iter-time') ?? 2000;
  if (iterationMs === 0) throw new BlockError('iter-time must be greater than zero');
  return {
    cipher: {
      algorithm: options.choice('cipher-alg', cipherAlgorithms) ?? 'aes-256',
      mode: options.choice('cipher-mode', cipherModes) ?? 'xts',
      iv,
      ivHash: iv === 'essiv' ? (given ?? 'sha256') : undefined,
    },
    hash: options.choice('hash-alg', hashAlgorithms) ?? 'sha256',
    iterationMs,
  };
}

async function open(context: OpenContext): Promise<BlockNode> {
  const { graph, options, settings } = context;
  const secret = options.string('key-secret');
  const file = await context.child('file');
  context.followReadOnly(file);
  const { header, cipher } = await openVolume(graph, file, 0, secret, '');
  const node = new LuksNode(graph, settings, header, secret ?? '', cipher);
  node.filename = file.filename;
  node.attach('file', file);
  return node;
}

async function create(graph: BlockGraph, options: BlockOptions): Promise<void> {
  const file = graph.lookup(options.string('file') ?? '');
  const size = options.bytes('size') ?? 0;
  const preallocation = options.choice('preallocation', PREALLOCATIONS) ?? 'off';
  const { area } = await createVolume(graph, options, '');
  await file.truncate(0);
  await file.truncate(area.length + size, { preallocation });
  await file.writev(0, area.length, IoVector.of(area));
  await file.flush();
}

export const luksDriver: BlockDriver = {
  name: 'luks',
  kind: 'format',
  probe: head => (isLuks(head) ? 100 : 0),
  open,
  create,
  reopening: { resettable: [], steps: (_node, { options }) => (options?.string('key-secret'), {}) },
  async amend(node, options, force) {
    const { graph, file } = node;
    if (file === undefined || !(node instanceof LuksNode)) return;
    await amendVolume({ graph, file, offset: 0, header: node.header, secret: node.secret }, options, force);
  },
};
