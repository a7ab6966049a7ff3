import { BlockError } from '../io-error.ts';

/** VMware's Virtual Disk Format 5.0, "The Descriptor": text that says what a disk consists of. */
export const DESCRIPTOR_OFFSET = 512;
/** Of a descriptor inside an extent, in bytes. */
export const DESCRIPTOR_BYTES = 20 * 512;
/** The longest name that QEMU keeps. */
const MAX_NAME = 1023;
const MAX_SECTORS = 2 ** 43;

export const NO_PARENT = 0xffff_ffff;

/** What QEMU reads from a descriptor of its own; other descriptors lie inside the extent they describe. */
const CREATE_TYPES = [
  'monolithicFlat',
  'vmfs',
  'vmfsSparse',
  'seSparse',
  'twoGbMaxExtentSparse',
  'twoGbMaxExtentFlat',
] as const;

const EXTENT_TYPES = ['FLAT', 'VMFS', 'SPARSE', 'VMFSSPARSE', 'SESPARSE'] as const;
export type ExtentType = (typeof EXTENT_TYPES)[number];

export interface ExtentLine {
  readonly type: ExtentType;
  readonly sectors: number;
  readonly filename: string;
  /** Where its data begins in the file, in sectors; 0 where it is not flat. */
  readonly offset: number;
}

/** A descriptor in `bytes`, which ends before them or with them. */
export function textOf(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString('latin1', 0, end < 0 ? bytes.length : end);
}

/** The value in quotes that follows `name=`. */
function quoted(text: string, name: string, longest: number): string | undefined {
  const at = text.indexOf(name);
  if (at < 0) return undefined;
  const start = at + name.length + 2;
  const end = text.indexOf('"', start);
  return end < 0 || end - start > longest ? undefined : text.slice(start, end);
}

/** @throws BlockError where QEMU does not know the type either */
export function createType(text: string): string {
  const type = quoted(text, 'createType', 127);
  if (type === undefined) throw new BlockError('invalid VMDK image descriptor');
  if (!CREATE_TYPES.some(known => known === type)) throw new BlockError(`Unsupported image type '${type}'`);
  return type;
}

/** What "The Extent Section" lists that can be written to; the rest has no data of its own for QEMU. */
export function extentLines(text: string): ExtentLine[] {
  const lines: ExtentLine[] = [];
  for (const line of text.split('\n')) {
    const match = /^\s*(\S{1,10})\s+([+-]?\d+)\s*(\S{1,10})\s*"([^\r"]{1,511})"(?:\s*([+-]?\d+))?/.exec(line);
    if (match === null) continue;
    const [, access = '', sectorText = '', typeName = '', filename = '', offsetText] = match;
    if (access !== 'RW') continue;
    const sectors = Number(sectorText);
    const offset = Number(offsetText ?? 0);
    const wantsOffset = typeName === 'FLAT';
    const sound = wantsOffset === (offsetText !== undefined) && offset >= 0;
    if (!sound || sectors > MAX_SECTORS || offset > MAX_SECTORS) throw new BlockError(`Invalid extent line: ${line}`);
    const type = EXTENT_TYPES.find(known => known === typeName);
    if (type === undefined || sectors <= 0) continue;
    lines.push({ type, sectors, filename, offset });
  }
  return lines;
}

/** The content's identity: it changes when the content does, so that what rests on it can tell. */
export function contentId(text: string, name: 'CID' | 'parentCID'): number | undefined {
  const at = text.indexOf(name);
  if (at < 0) return undefined;
  const digits = /^\s*(?:0x)?([0-9a-f]{1,8})/i.exec(text.slice(at + name.length + 1))?.[1];
  return digits === undefined ? undefined : Number.parseInt(digits, 16);
}

/** The descriptor with another identity of its content. */
export function withContentId(text: string, id: number): string {
  return text.replace(
    /(^|[^t])CID=[0-9a-fA-F]*/,
    (_, before: string) => `${before}CID=${id.toString(16).padStart(8, '0')}`,
  );
}

/** The image that backs this one, as the descriptor names it. @throws BlockError where the name does not end */
export function parentName(text: string): string | undefined {
  if (!text.includes('parentFileNameHint')) return undefined;
  const name = quoted(text, 'parentFileNameHint', MAX_NAME);
  if (name === undefined) throw new BlockError('invalid VMDK image descriptor');
  return name;
}

export interface NewDescriptor {
  readonly id: number;
  readonly parentId: number;
  readonly createType: string;
  readonly parentName: string | undefined;
  readonly extents: readonly { readonly sectors: number; readonly flat: boolean; readonly filename: string }[];
  readonly hardwareVersion: string;
  readonly toolsVersion: string;
  readonly adapterType: string;
  /** In bytes. */
  readonly size: number;
}

export function descriptorText(disk: NewDescriptor): string {
  // VMware counts 255 heads for all but IDE disks.
  const heads = disk.adapterType === 'ide' ? 16 : 255;
  const extents = disk.extents.map(
    ({ sectors, flat, filename }) => `RW ${sectors} ${flat ? 'FLAT' : 'SPARSE'} "${filename}"${flat ? ' 0' : ''}\n`,
  );
  return [
    '# Disk DescriptorFile',
    'version=1',
    `CID=${disk.id.toString(16)}`,
    `parentCID=${disk.parentId.toString(16)}`,
    `createType="${disk.createType}"`,
    disk.parentName === undefined ? '' : `parentFileNameHint="${disk.parentName}"`,
    '# Extent description',
    extents.join(''),
    '# The Disk Data Base',
    '#DDB',
    '',
    `ddb.virtualHWVersion = "${disk.hardwareVersion}"`,
    `ddb.geometry.cylinders = "${Math.floor(disk.size / (63 * heads * 512))}"`,
    `ddb.geometry.heads = "${heads}"`,
    'ddb.geometry.sectors = "63"',
    `ddb.adapterType = "${disk.adapterType}"`,
    `ddb.toolsVersion = "${disk.toolsVersion}"`,
    '',
  ].join('\n');
}
