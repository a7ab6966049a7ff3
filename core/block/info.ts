import { performance } from 'node:perf_hooks';
import { writeJson } from '../control/json/writer.ts';
import { Accounting } from './accounting.ts';
import type { BlockBackend } from './backend.ts';
import { FileNode } from './file.ts';
import { relativeTo } from './file-name.ts';
import type { BlockGraph } from './graph.ts';
import { inOptionOrder } from './json-filename.ts';
import { LuksNode, luksInfo } from './luks/luks.ts';
import { MappedImage } from './mapped-image.ts';
import type { BlockNode } from './node.ts';
import { Qcow2Node } from './qcow2/node.ts';
import type { Snapshot } from './qcow2/snapshots.ts';
import type { Limit } from './throttle.ts';
import { VmdkNode } from './vmdk/node.ts';

const SECTOR = 512;

/** QMP's members, before they are given its types. */
export type Info = { readonly [member: string]: unknown };

/** SnapshotInfo. */
export function snapshotInfo(snapshot: Snapshot): Info {
  return {
    id: snapshot.id,
    name: snapshot.name,
    'vm-state-size': snapshot.vmStateSize,
    'date-sec': snapshot.dateSeconds,
    'date-nsec': snapshot.dateNanoseconds,
    'vm-clock-sec': Math.floor(snapshot.vmClockNs / 1e9),
    'vm-clock-nsec': snapshot.vmClockNs % 1e9,
    ...(snapshot.icount >= 0 && { icount: snapshot.icount }),
  };
}

/** Bytes that the host has set aside for an image and its external data. */
function actualSize(node: BlockNode): number | undefined {
  if (node instanceof FileNode) return node.host.allocatedSize();
  if (node.driver.name.startsWith('null')) return 0;
  let total: number | undefined;
  for (const [name, { node: child }] of node.children) {
    if (name === 'backing') continue;
    const size = actualSize(child);
    if (size !== undefined) total = (total ?? 0) + size;
  }
  return total;
}

/** Whether the driver, or what it passes the question on to, can say anything of the image beyond its size. */
function knowsItself(node: BlockNode): boolean {
  const below = node.filtered ?? (node.driver.name === 'raw' ? node.file : undefined);
  if (below !== undefined) return knowsItself(below);
  return node instanceof FileNode || node.driver.kind === 'format';
}

/**
 * ImageInfo; with what backs the image, all the way down, where `deep` is set. Filters that jobs have put there are left out for
 * who asks about a device (`asDevice`).
 */
export function imageInfo(node: BlockNode, deep: boolean, asDevice = false): Info {
  const size = actualSize(node);
  const info: Record<string, unknown> = {
    'virtual-size': node.length,
    filename: node.filename === '' ? jsonName(node) : node.filename,
    format: node.driver.name,
    ...(size !== undefined && { 'actual-size': size }),
    ...(knowsItself(node) && { 'dirty-flag': false }),
  };
  if (node instanceof Qcow2Node) {
    const { header } = node.image;
    info['cluster-size'] = node.clusterSize;
    info['dirty-flag'] = (header.incompatible & 1) !== 0;
    info['format-specific'] = {
      type: 'qcow2',
      data: {
        compat: node.compat,
        'compression-type': header.compression,
        'refcount-bits': node.refcounts.width.bits,
        ...(node.compat === '1.1' && {
          'lazy-refcounts': node.hasLazyRefcounts,
          corrupt: (header.incompatible & 2) !== 0,
          ...(node.image.luks !== undefined && { encrypt: luksInfo(node.image.luks) }),
          ...(node.bitmaps.listed.length > 0 && { bitmaps: node.bitmaps.listed }),
          'extended-l2': node.image.extended,
          ...(header.dataFile !== undefined && {
            'data-file': header.dataFile,
            'data-file-raw': (header.autoclear & 2) !== 0,
          }),
        }),
      },
    };
    if (header.encryption !== undefined) info['encrypted'] = true;
    if (node.snapshots.list.length > 0) info['snapshots'] = node.snapshots.list.map(snapshotInfo);
  }
  if (node instanceof MappedImage && node.clusterSize > SECTOR) info['cluster-size'] = node.clusterSize;
  if (node instanceof LuksNode) {
    const { format: _, ...data } = luksInfo(node.header);
    info['encrypted'] = true;
    info['format-specific'] = { type: 'luks', data };
  }
  if (node instanceof VmdkNode) info['format-specific'] = { type: 'vmdk', data: node.diskInfo };
  if (node.backingFileName !== undefined) {
    info['backing-filename'] = node.backingFileName;
    info['full-backing-filename'] = relativeTo(node.filename, node.backingFileName);
    if (node.backingFormat !== undefined) info['backing-filename-format'] = node.backingFormat;
  }
  const backing = below(node, asDevice);
  if (deep && backing !== undefined) info['backing-image'] = imageInfo(backing, true, asDevice);
  return info;
}

/** `json:{...}`: the name of what no path alone names. */
export function jsonName(node: BlockNode): string {
  return `json:${writeJson(describe(node))}`;
}

interface Description {
  readonly [option: string]: string | number | boolean | Description;
}

function describe(node: BlockNode): Description {
  const description: Record<string, string | number | boolean | Description> = {
    driver: node.driver.name,
    ...node.identity,
  };
  if (node.driver.kind === 'protocol' && node.filename !== '' && !node.driver.name.startsWith('null'))
    description['filename'] = node.filename;
  // What an image itself says backs it needs no saying.
  for (const [name, { node: child }] of node.children) if (name !== 'backing') description[name] = describe(child);
  return inOptionOrder(description);
}

/** What a node filters or is backed by. */
function below(node: BlockNode, asDevice: boolean): BlockNode | undefined {
  const next = node.filtered ?? node.backing;
  return asDevice ? next?.withoutImplicit : next;
}

function backingDepth(node: BlockNode, asDevice: boolean): number {
  let depth = 0;
  for (let next = below(node, asDevice); next !== undefined; next = below(next, asDevice)) depth++;
  return depth;
}

/** BlockDeviceInfo: a node, perhaps as a device has it. */
export function nodeInfo(node: BlockNode, backend: BlockBackend | undefined, flat: boolean): Info {
  const { settings } = node;
  return {
    file: node.filename === '' ? jsonName(node) : node.filename,
    'node-name': node.nodeName,
    ro: node.readOnly,
    drv: node.driver.name,
    ...(node.backingFileName !== undefined &&
      node.backing !== undefined && { backing_file: node.backing.withoutImplicit.filename }),
    backing_file_depth: flat ? 0 : backingDepth(node, backend !== undefined),
    encrypted: node instanceof LuksNode || (node instanceof Qcow2Node && node.image.header.encryption !== undefined),
    detect_zeroes: settings.detectZeroes,
    ...limitsInfo(backend),
    image: imageInfo(node, !flat, backend !== undefined),
    cache: { writeback: backend?.writeCache ?? true, direct: settings.direct, 'no-flush': settings.noFlush },
    write_threshold: node.writeThreshold,
    ...(node.dirtyBitmaps.size > 0 && { 'dirty-bitmaps': [...node.dirtyBitmaps].map(bitmap => bitmap.info()) }),
  };
}

function limitsInfo(backend: BlockBackend | undefined): Info {
  const group = backend?.throttle;
  const bucket = (limit: Limit): { average: number; max: number; burstLength: number } =>
    group?.config.buckets[limit] ?? { average: 0, max: 0, burstLength: 1 };
  const info: Record<string, unknown> = {};
  for (const unit of ['bps', 'iops'] as const) {
    for (const [suffix, limit] of [
      ['', `${unit}-total`],
      ['_rd', `${unit}-read`],
      ['_wr', `${unit}-write`],
    ] as const) {
      const { average, max, burstLength } = bucket(limit);
      info[`${unit}${suffix}`] = average;
      if (max === 0) continue;
      info[`${unit}${suffix}_max`] = max;
      info[`${unit}${suffix}_max_length`] = burstLength;
    }
  }
  if (group !== undefined) {
    if (group.config.iopsSize > 0) info['iops_size'] = group.config.iopsSize;
    info['group'] = group.name;
  }
  return info;
}

/** BlockInfo: a backend as query-block shows it. */
export function backendInfo(backend: BlockBackend): Info {
  const { device, root } = backend;
  const tray = device?.trayOpen?.();
  return {
    device: backend.name,
    ...(device !== undefined && { qdev: device.id }),
    type: 'unknown',
    removable: device?.removable ?? true,
    locked: device?.mediumLocked?.() ?? false,
    ...(root !== undefined && { inserted: nodeInfo(root.withoutImplicit, backend, false) }),
    ...(tray !== undefined && { tray_open: tray }),
    ...(device !== undefined && backend.ioStatus !== undefined && { 'io-status': backend.ioStatus }),
  };
}

/** BlockStats of a node and of what lies below it; filters that jobs have put there are left out below a device. */
export function nodeStats(node: BlockNode, asDevice = false): Info {
  const empty = new Accounting();
  empty.accountInvalid = false;
  empty.accountFailed = false;
  const { file, backing } = node;
  return {
    'node-name': node.nodeName,
    stats: empty.report(0, node.highestWrite),
    ...(node instanceof FileNode &&
      node.driver.name === 'file' && {
        'driver-specific': {
          driver: 'file',
          'discard-nb-ok': node.discards.ok,
          'discard-nb-failed': node.discards.failed,
          'discard-bytes-ok': node.discards.bytes,
        },
      }),
    ...(file !== undefined && { parent: nodeStats(file, asDevice) }),
    ...(backing !== undefined &&
      node.driver.kind === 'format' && {
        backing: nodeStats(asDevice ? backing.withoutImplicit : backing, asDevice),
      }),
  };
}

/** BlockStats of a backend. */
export function backendStats(backend: BlockBackend): Info {
  const { device, root } = backend;
  const below = root === undefined ? {} : nodeStats(root.withoutImplicit, true);
  return {
    device: backend.name,
    ...(device !== undefined && { qdev: device.id }),
    ...below,
    stats: backend.stats.report(performance.now(), root?.highestWrite ?? 0),
  };
}

/** Those that query-block lists. */
export function listedBackends(graph: BlockGraph): BlockBackend[] {
  return [...graph.backends].filter(({ name, device }) => name !== '' || device !== undefined);
}
