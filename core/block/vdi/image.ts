import { randomBytes } from 'node:crypto';
import type { OpenContext } from '../driver.ts';
import type { BlockGraph } from '../graph.ts';
import { BlockError } from '../io-error.ts';
import type { BlockNode } from '../node.ts';
import { readBytes, writeBytes } from '../node-bytes.ts';
import type { BlockOptions } from '../options.ts';
import { start, startFor, type Task } from '../pending.ts';
import { PREALLOCATIONS } from '../requests.ts';
import { entriesOf } from '../table-entries.ts';
import {
  BLOCK_SIZE,
  checkSize,
  FREE,
  imageType,
  MAP_OFFSET,
  parseHeader,
  serializeHeader,
  type VdiHeader,
} from './header.ts';
import { VdiNode } from './node.ts';
import { HEADER_BYTES } from './signature.ts';

const SECTOR = 512;
/** The map of 32 TiB; a larger one is hostile. */
const MAX_MAP_BYTES = 128 << 20;

/** Opens an image of the format (see BlockDriver). */
export async function open(context: OpenContext): Promise<BlockNode> {
  const { graph, settings, driver } = context;
  const file = await context.child('file');
  context.followReadOnly(file);
  const header = parseHeader(await startFor(readBytes(file, 0, HEADER_BYTES)));
  const map = await startFor(readMap(file, header));
  const node = new VdiNode(graph, driver, settings, header, map);
  node.filename = file.filename;
  node.attach('file', file);
  return node;
}

function* readMap(file: BlockNode, { mapOffset, blocks }: VdiHeader): Task<Uint32Array> {
  if (blocks * 4 > MAX_MAP_BYTES) {
    throw new BlockError(`unsupported VDI image (too many blocks ${blocks}, max is ${MAX_MAP_BYTES / 4})`);
  }
  return entriesOf(yield* readBytes(file, mapOffset, blocks * 4));
}

/** Makes one (see BlockDriver). */
export async function create(graph: BlockGraph, options: BlockOptions): Promise<void> {
  const file = graph.lookup(options.string('file') ?? '');
  const size = options.bytes('size') ?? 0;
  const preallocation = options.choice('preallocation', PREALLOCATIONS) ?? 'off';
  if (preallocation !== 'off' && preallocation !== 'metadata')
    throw new BlockError('Preallocation mode not supported for vdi');
  checkSize(BigInt(size));
  const type = preallocation === 'metadata' ? imageType.STATIC : imageType.DYNAMIC;
  await file.truncate(0);
  await start(writeEmpty(file, size, type));
  await file.flush();
}

function* writeEmpty(file: BlockNode, diskSize: number, type: number): Task {
  const blocks = Math.ceil(diskSize / BLOCK_SIZE);
  const map = Buffer.alloc(Math.ceil((blocks * 4) / SECTOR) * SECTOR);
  for (let index = 0; index < blocks; index++) map.writeUInt32LE(type === imageType.STATIC ? index : FREE, index * 4);
  const dataOffset = MAP_OFFSET + map.length;
  const header = { type, dataOffset, diskSize, blocks, uuid: randomBytes(16), lastSnapshot: randomBytes(16) };
  yield* writeBytes(file, 0, serializeHeader(header));
  if (map.length > 0) yield* writeBytes(file, MAP_OFFSET, map);
  if (type !== imageType.STATIC) return;
  const growing = file.truncate(dataOffset + blocks * BLOCK_SIZE);
  if (growing) yield growing;
}
