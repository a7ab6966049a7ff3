import type { BlockBackend } from '../../block/backend.ts';
import type { BlockGraph } from '../../block/graph.ts';
import * as media from '../../block/media.ts';
import type { BlockNode } from '../../block/node.ts';
import type { JsonObject } from '../json/value.ts';
import type { Program } from '../program.ts';
import type { Value } from '../qapi/declare.ts';
import { QmpError } from '../qapi/error.ts';
import type { BlockDeviceInfo, BlockInfo, BlockStats } from '../qapi/schema/block-info.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

type Info = Value<typeof BlockInfo>;
type NodeInfo = Value<typeof BlockDeviceInfo>;

function nodeInfo(node: BlockNode, backend?: BlockBackend): NodeInfo {
  return {
    file: node.filename,
    'node-name': node.nodeName,
    ro: node.settings.readOnly,
    drv: node.driver.name,
    backing_file_depth: backingDepth(node),
    encrypted: false,
    detect_zeroes: node.settings.detectZeroes,
    bps: 0,
    bps_rd: 0,
    bps_wr: 0,
    iops: 0,
    iops_rd: 0,
    iops_wr: 0,
    cache: { writeback: backend?.writeCache ?? true, direct: node.settings.direct, 'no-flush': node.settings.noFlush },
    write_threshold: 0,
    image: {
      filename: node.filename,
      format: node.driver.name,
      'virtual-size': node.length,
    } as NodeInfo['image'],
  };
}

function backingDepth(node: BlockNode): number {
  let depth = 0;
  for (let below = backingOf(node); below !== undefined; below = backingOf(below)) depth++;
  return depth;
}

const backingOf = (node: BlockNode): BlockNode | undefined => node.children.get('backing')?.node;

export async function blockInfos(program: Program): Promise<Info[]> {
  const blocks = await program.blocks();
  return [...blocks.graph.backends]
    .filter(backend => backend.name !== '' || backend.device !== undefined)
    .map(backend => {
      const { device, root } = backend;
      const tray = device?.trayOpen?.();
      return {
        device: backend.name,
        ...(device !== undefined && { qdev: device.id }),
        type: 'unknown',
        removable: device?.removable ?? true,
        locked: device?.mediumLocked?.() ?? false,
        ...(root !== undefined && { inserted: nodeInfo(root, backend) }),
        ...(tray !== undefined && { tray_open: tray }),
        ...(backend.ioStatus !== undefined && { 'io-status': backend.ioStatus }),
      };
    });
}

export function blockCommands(program: Program): Handlers<QmpSession> {
  const graph = async (): Promise<BlockGraph> => (await program.blocks()).graph;
  const stats = (node: BlockNode): Value<typeof BlockStats> =>
    ({
      'node-name': node.nodeName,
      stats: EMPTY_STATS,
      ...(node.children.get('file') !== undefined && { parent: fileStats(node) }),
    }) as Value<typeof BlockStats>;
  const fileStats = (node: BlockNode): unknown => {
    const file = node.children.get('file')?.node;
    return file === undefined ? undefined : stats(file);
  };
  return {
    'query-block': () => blockInfos(program),
    'query-named-block-nodes': async () => (await program.blocks()).graph.nodes().map(node => nodeInfo(node)),
    'query-blockstats': async ({ 'query-nodes': nodes = false }) => {
      const { graph } = await program.blocks();
      if (nodes) return graph.nodes().map(stats);
      return [...graph.backends].map(
        backend =>
          ({
            ...(backend.root !== undefined && { ...stats(backend.root) }),
            device: backend.name,
            ...(backend.device !== undefined && { qdev: backend.device.id }),
            stats: backend.stats.report(performance.now(), 0),
          }) as unknown as Value<typeof BlockStats>,
      );
    },
    'blockdev-add': async options => (await program.blocks()).addNode(options as unknown as JsonObject),
    'blockdev-del': async ({ 'node-name': name }) => (await program.blocks()).graph.delete(name),
    'query-block-jobs': () => [],
    'query-jobs': () => [],
    'query-block-exports': () => [],
    block_resize: async ({ device, 'node-name': name, size }) => {
      const node = (await program.blocks()).graph.lookupPair(device, name);
      if (Number(size) < 0) throw new QmpError("Parameter 'size' expects a >0 size");
      await node.truncate(Number(size), {});
    },
    eject: async ({ device, id, force = false }) => media.eject(await graph(), { device, id }, force),
    'blockdev-open-tray': async ({ device, id, force = false }) => media.openTray(await graph(), { device, id }, force),
    'blockdev-close-tray': async ({ device, id }) => media.closeTray(await graph(), { device, id }),
    'blockdev-remove-medium': async ({ id }) => media.removeMedium(await graph(), { id }),
    'blockdev-insert-medium': async ({ id, 'node-name': name }) => media.insertMedium(await graph(), { id }, name),
    'blockdev-change-medium': async ({ device, id, filename, format, 'read-only-mode': readOnly = 'retain' }) =>
      media.changeMedium(await graph(), { device, id }, { filename, format, readOnly }),
  };
}

const EMPTY_STATS = {
  rd_bytes: 0,
  wr_bytes: 0,
  unmap_bytes: 0,
  rd_operations: 0,
  wr_operations: 0,
  flush_operations: 0,
  unmap_operations: 0,
  rd_total_time_ns: 0,
  wr_total_time_ns: 0,
  flush_total_time_ns: 0,
  unmap_total_time_ns: 0,
  wr_highest_offset: 0,
  rd_merged: 0,
  wr_merged: 0,
  unmap_merged: 0,
  failed_rd_operations: 0,
  failed_wr_operations: 0,
  failed_flush_operations: 0,
  failed_unmap_operations: 0,
  invalid_rd_operations: 0,
  invalid_wr_operations: 0,
  invalid_flush_operations: 0,
  invalid_unmap_operations: 0,
  account_invalid: false,
  account_failed: false,
  timed_stats: [],
} as const;
