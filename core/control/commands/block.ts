import type { BlockBackend } from '../../block/backend.ts';
import type { BlockGraph } from '../../block/graph.ts';
import { graphInfo } from '../../block/graph-info.ts';
import { backendInfo, backendStats, type Info, listedBackends, nodeInfo, nodeStats } from '../../block/info.ts';
import { AmendJob } from '../../block/jobs/amend.ts';
import { CreateJob } from '../../block/jobs/create.ts';
import {
  changeMedium,
  closeTray,
  eject,
  findBackend,
  insertMedium,
  openTray,
  removeMedium,
} from '../../block/media.ts';
import { BlockOptions } from '../../block/options.ts';
import { reopenByOptions } from '../../block/reopen-options.ts';
import { imageLength } from '../../block/requests.ts';
import { limitsAnything, type ThrottleConfig } from '../../block/throttle.ts';
import type { JsonObject } from '../json/value.ts';
import type { Program } from '../program.ts';
import type { Args, Value } from '../qapi/declare.ts';
import { QmpError } from '../qapi/error.ts';
import type { commands } from '../qapi/schema/block.ts';
import type { BlockDeviceInfo, BlockInfo, BlockStats } from '../qapi/schema/block-info.ts';
import type { commands as blockdevCommands, XDbgBlockGraph } from '../qapi/schema/blockdev.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

/** What query-block answers. */
export async function blockInfos(program: Program): Promise<Value<typeof BlockInfo>[]> {
  const { graph } = await program.blocks();
  return listedBackends(graph).map(backend => typed(backendInfo(backend)));
}

// The block layer makes its reports as data; this is where they are given the schema's types.
function typed<T>(info: Info): T {
  return info as T;
}

/** Options as JSON has them, for the block layer, which checks them itself. */
export function plainOptions(options: object): BlockOptions {
  return BlockOptions.fromJson(options as JsonObject);
}

/** Questions about block devices and nodes, nodes that come and go, and media. */
export function blockCommands(program: Program): Handlers<QmpSession> {
  const graph = async (): Promise<BlockGraph> => (await program.blocks()).graph;
  return {
    'query-block': () => blockInfos(program),
    'query-named-block-nodes': async ({ flat = false }) =>
      (await graph()).nodes().map(node => typed<Value<typeof BlockDeviceInfo>>(nodeInfo(node, undefined, flat))),
    'query-blockstats': async ({ 'query-nodes': nodes = false }) => {
      const all = nodes
        ? (await graph()).nodes().map(node => nodeStats(node))
        : listedBackends(await graph()).map(backendStats);
      return all.map(info => typed<Value<typeof BlockStats>>(info));
    },
    'blockdev-add': async options => {
      await (await graph()).add(plainOptions(options));
    },
    'blockdev-del': async ({ 'node-name': name }) => (await graph()).delete(name),
    'blockdev-reopen': async ({ options }) => {
      const blocks = await graph();
      await blocks.drained(() => reopenByOptions(blocks, options.map(plainOptions)));
    },
    'x-blockdev-change': async args => changeChildren(await graph(), args),
    'x-blockdev-set-iothread': async ({ 'node-name': name, iothread, force = false }) => {
      const node = (await graph()).node(name);
      if (node === undefined) throw new QmpError(`Failed to find node with node-name='${name}'`);
      if (!force && [...node.parents].some(edge => edge.parent.asNode === undefined)) {
        throw new QmpError(
          `Node ${name} is associated with a BlockBackend and could be in use (use force=true to override this check)`,
        );
      }
      // There is one thread for all nodes: what can be named is as good a place as any.
      if (iothread !== null && (await program.objects()).get(iothread)?.spec['qom-type'] !== 'iothread')
        throw new QmpError(`Cannot find iothread ${iothread}`);
    },
    'x-debug-query-block-graph': async () => {
      const { jobs } = await program.blocks();
      return typed<Value<typeof XDbgBlockGraph>>(graphInfo(await graph(), jobs));
    },
    'blockdev-create': async ({ 'job-id': id, options }) => {
      const { jobs } = await program.blocks();
      jobs.checkId(id);
      jobs.add(new CreateJob(await graph(), { id }, await namedFiles(await graph(), plainOptions(options))));
    },
    'x-blockdev-amend': async ({ 'job-id': id, 'node-name': name, options, force = false }) => {
      const { jobs } = await program.blocks();
      const node = (await graph()).lookupPair('', name);
      if (node.driver.name !== options.driver)
        throw new QmpError("x-blockdev-amend doesn't support changing the block driver");
      if (node.driver.amend === undefined) throw new QmpError('Driver does not support x-blockdev-amend');
      jobs.checkId(id);
      jobs.add(new AmendJob(node, { id }, plainOptions(options), force));
    },
    block_resize: async ({ device, 'node-name': name, size }) => {
      const node = (await graph()).lookupPair(device, name);
      if ([...node.parents].some(edge => edge.name === 'backing' || edge.blocks !== undefined))
        throw new QmpError(`Device '${device ?? '(null)'}' is in use`);
      if (size < 0) throw new QmpError("Parameter 'size' expects a >0 size");
      const bytes = imageLength(BigInt(size));
      await (await graph()).drained(() => node.truncate(bytes));
    },
    'block-set-write-threshold': async ({ 'node-name': name, 'write-threshold': threshold }) => {
      const node = (await graph()).node(name);
      if (node === undefined) throw new QmpError(`Device '${name}' not found`);
      node.writeThreshold = Number(threshold);
    },
    block_set_io_throttle: async given => setThrottle(await graph(), given),
    eject: async ({ device, id, force = false }) => eject(await graph(), { device, id }, force),
    'blockdev-open-tray': async ({ device, id, force = false }) => openTray(await graph(), { device, id }, force),
    'blockdev-close-tray': async ({ device, id }) => closeTray(await graph(), { device, id }),
    'blockdev-remove-medium': async ({ id }) => removeMedium(await graph(), { id }),
    'blockdev-insert-medium': async ({ id, 'node-name': name }) => insertMedium(await graph(), { id }, name),
    'blockdev-change-medium': async ({ device, id, filename, format, force, 'read-only-mode': readOnly = 'retain' }) =>
      changeMedium(await graph(), { device, id }, { filename, format, force, readOnly }),
  };
}

/** A node that `blockdev-create` is to fill may be given by its options: it is opened for that then. */
async function namedFiles(graph: BlockGraph, options: BlockOptions): Promise<BlockOptions> {
  if (options.hasChild('file') && !options.has('file')) {
    const file = await graph.openTree(undefined, options.child('file'), {}, true);
    options.set('file', file.nodeName);
  }
  return options;
}

/** Adds a child to a node that can have any number of them, or takes one away. */
async function changeChildren(
  graph: BlockGraph,
  { parent, child, node: name }: Args<(typeof blockdevCommands)['x-blockdev-change']>,
): Promise<void> {
  const above = graph.lookup(parent);
  if ((child === undefined) === (name === undefined)) {
    throw new QmpError(
      child === undefined ? 'Either child or node must be specified' : 'The parameters child and node are in conflict',
    );
  }
  if (child !== undefined) {
    if (!above.children.has(child)) throw new QmpError(`Node '${parent}' does not have child '${child}'`);
    const before = await graph.drained(() => above.removeChild(child));
    if (before !== undefined) await graph.released(before);
    return;
  }
  const node = graph.node(name ?? '');
  if (node === undefined) throw new QmpError(`Node '${name}' not found`);
  if (node.parents.size > 0) throw new QmpError(`The node ${name} already has a parent`);
  await graph.drained(() => above.addChild(node));
}

function setThrottle(graph: BlockGraph, given: Args<(typeof commands)['block_set_io_throttle']>): void {
  const backend = findBackend(graph, given.device, given.id);
  if (!backend.inserted) throw new QmpError('Device has no medium');
  const bucket = (average: number | bigint, max: number | bigint | undefined, length: number | bigint | undefined) => ({
    average: Number(average),
    max: Number(max ?? 0),
    burstLength: Number(length ?? 1),
  });
  const config: ThrottleConfig = {
    buckets: {
      'bps-total': bucket(given.bps, given.bps_max, given.bps_max_length),
      'bps-read': bucket(given.bps_rd, given.bps_rd_max, given.bps_rd_max_length),
      'bps-write': bucket(given.bps_wr, given.bps_wr_max, given.bps_wr_max_length),
      'iops-total': bucket(given.iops, given.iops_max, given.iops_max_length),
      'iops-read': bucket(given.iops_rd, given.iops_rd_max, given.iops_rd_max_length),
      'iops-write': bucket(given.iops_wr, given.iops_wr_max, given.iops_wr_max_length),
    },
    iopsSize: Number(given.iops_size ?? 0),
  };
  applyThrottle(graph, backend, config, given.group ?? given.device ?? given.id ?? '');
}

function applyThrottle(graph: BlockGraph, backend: BlockBackend, config: ThrottleConfig, name: string): void {
  if (!limitsAnything(config)) {
    backend.throttle?.leave(backend);
    backend.throttle = undefined;
    return;
  }
  const group = graph.throttleGroup(name);
  group.configure(config);
  if (backend.throttle !== group) backend.throttle?.leave(backend);
  group.join(backend);
  backend.throttle = group;
}
