import { openBacking } from '../backing.ts';
import type { BlockDriver, OpenContext } from '../driver.ts';
import { relativeTo } from '../file-name.ts';
import { BlockError, IoError, reason } from '../io-error.ts';
import { amendVolume } from '../luks/amend.ts';
import { openVolume } from '../luks/luks.ts';
import type { BlockNode } from '../node.ts';
import type { BlockOptions } from '../options.ts';
import { start, startFor, type Task } from '../pending.ts';
import { check } from './check.ts';
import { create } from './create.ts';
import { incompatible, isQcow2, type Qcow2Header } from './header.ts';
import { Qcow2Image } from './image.ts';
import { load, prepareForWriting, readHeader } from './loading.ts';
import { Qcow2Node } from './node.ts';
import { reopening } from './reopening.ts';
import { runtimeOf, takeOptions } from './runtime-options.ts';

async function open(context: OpenContext): Promise<BlockNode> {
  const { options, settings, graph } = context;
  const own = takeOptions(options, settings.discard);
  const backingGiven = options.peek('backing');
  const file = await context.child('file');
  context.followReadOnly(file);
  let header: Qcow2Header;
  try {
    header = await startFor(readHeader(file));
  } catch (error) {
    if (!(error instanceof IoError)) throw error;
    throw new BlockError(`Could not read qcow2 header: ${reason(error)}`, { cause: error });
  }
  if ((header.incompatible & incompatible.CORRUPT) !== 0 && !settings.readOnly) {
    throw new BlockError('qcow2: Image is corrupt; cannot be opened read/write', { code: 'ERR_QCOW2_CORRUPT' });
  }
  const image = new Qcow2Image(file, header);
  await openEncryption(context, image);
  if ((header.incompatible & incompatible.DATA_FILE) !== 0) image.data = await dataFile(context, header, file);
  else if (options.hasChild('data-file'))
    throw new BlockError("'data-file' can only be set for images with an external data file");
  const node = new Qcow2Node(graph, context.driver, settings, image, runtimeOf(own, image));
  node.filename = file.filename;
  node.attach('file', file);
  if (image.data !== undefined) node.attach('data-file', image.data);
  image.isWritable = () => !node.readOnly && !node.inactive;
  image.onCorruption = (msg, offset, size, fatal) => {
    graph.notice(
      `qcow2: ${fatal ? 'Marking image as corrupt' : 'Image is corrupt'}: ${msg}; ${fatal ? 'further corruption events will be suppressed' : 'further non-fatal corruption events will be suppressed'}`,
    );
    graph.emit({
      event: 'BLOCK_IMAGE_CORRUPTED',
      device: node.deviceName,
      nodeName: node.nodeName,
      msg,
      ...(offset >= 0 ? { offset } : {}),
      ...(size >= 0 ? { size } : {}),
      fatal,
    });
  };
  try {
    await start(load(node));
    context.register(node);
    await openBacking(context, node, header, backingGiven === null || backingGiven === '');
    if (!settings.readOnly && !graph.inactive) await start(prepareForWriting(node));
  } catch (error) {
    settings.readOnly = true;
    graph.forget(node);
    await node.close();
    throw error;
  }
  return node;
}

/** Takes `encrypt.*`; where the image is enciphered they name the secret that opens it. */
async function openEncryption({ graph, options }: OpenContext, image: Qcow2Image): Promise<void> {
  const encrypt = options.child('encrypt');
  const format = encrypt.choice('format', ['aes', 'luks']);
  const secret = encrypt.string('key-secret');
  const { encryption } = image.header;
  if (encryption === undefined) {
    if (format === undefined) return;
    throw new BlockError(`No encryption in image header, but options specified format '${format}'`);
  }
  if (format !== undefined && format !== 'luks')
    throw new BlockError(`Header reported 'luks' encryption format but options specify '${format}'`);
  const { header, cipher } = await openVolume(graph, image.file, encryption.offset, secret, 'encrypt.');
  image.luks = header;
  image.secret = secret ?? '';
  image.cipher = cipher;
}

async function dataFile(context: OpenContext, header: Qcow2Header, file: BlockNode): Promise<BlockNode> {
  // A protocol, as `file` is: nothing in it says what it is.
  if (context.options.hasChild('data-file')) return context.child('data-file', {}, undefined, true);
  if (header.dataFile === undefined) throw new BlockError("'data-file' is required for this image");
  return context.child('data-file', {}, relativeTo(file.filename, header.dataFile), true);
}

/** Only the passphrases of an encrypted image can be changed. */
async function amend(node: BlockNode, options: BlockOptions, force: boolean): Promise<void> {
  if (!options.hasChild('encrypt') || !(node instanceof Qcow2Node)) return;
  const { image, graph } = node;
  const { encryption } = image.header;
  const encrypt = options.child('encrypt');
  if (encryption === undefined || image.luks === undefined) throw new BlockError("image is not encrypted, can't amend");
  if (encrypt.string('format') !== 'luks')
    throw new BlockError("Amend can't be used to change the qcow2 encryption format");
  const { file, luks: header, secret } = image;
  await amendVolume({ graph, file, offset: encryption.offset, header, secret }, encrypt, force);
}

export const qcow2Driver: BlockDriver = {
  name: 'qcow2',
  kind: 'format',
  supportsBacking: true,
  probe: head => (isQcow2(head) ? 100 : 0),
  open,
  create,
  reopening,
  amend,
};

/** Checks an open image, and repairs it where `fix` is set. */
export async function checkImage(
  node: Qcow2Node,
  fix: boolean,
): Promise<ReturnType<typeof check> extends Task<infer R> ? R : never> {
  return startFor(node.exclusively(check(node, fix)));
}
