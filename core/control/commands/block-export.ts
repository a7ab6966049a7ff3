import type { ListenOptions } from 'node:net';
import { chainOf } from '../../block/chain.ts';
import type { DirtyBitmap } from '../../block/dirty-bitmap.ts';
import { activate } from '../../block/handover.ts';
import { isWellFormedId } from '../../block/identifier.ts';
import { NbdServer } from '../../block/nbd/server.ts';
import type { BlockNode } from '../../block/node.ts';
import type { Program } from '../program.ts';
import type { Args } from '../qapi/declare.ts';
import { QmpError } from '../qapi/error.ts';
import type { commands } from '../qapi/schema/block-export.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';
import { findBitmap, rootNode } from './block-bitmaps.ts';

function listenOptions({ addr }: Args<(typeof commands)['nbd-server-start']>): ListenOptions {
  if (addr.type === 'unix') return { path: addr.data.path };
  if (addr.type === 'inet') return { host: addr.data.host, port: Number(addr.data.port) };
  throw new QmpError('An inherited socket cannot be listened on by the NBD server');
}

async function secureServer(program: Program, creds: string | undefined, authz: string | undefined) {
  if (creds === undefined) return undefined;
  const { tlsUpgrade } = await import('../startup/tls-objects.ts');
  return tlsUpgrade(program, { creds, authz, endpoint: 'server' });
}

/** A bitmap of the node, or of what lies under it. What changes all the time is not for those who cannot change anything. */
function exportedBitmap(top: BlockNode, name: string, writable: boolean): DirtyBitmap {
  for (const node of chainOf(top)) {
    const found = node.dirtyBitmaps.named(name);
    if (found === undefined) continue;
    if (!writable && !node.readOnly && found.enabled)
      throw new QmpError(`Enabled bitmap '${name}' incompatible with readonly export`);
    return found.checkUsable({ readonly: true });
  }
  throw new QmpError(`Bitmap '${name}' is not found`);
}

/** What an export must not be, whatever its kind. */
function checkExport(node: BlockNode, id: string, writable: boolean, server: NbdServer | undefined): void {
  if (!isWellFormedId(id)) throw new QmpError('Invalid block export id');
  if (server?.exports.some(one => one.id === id)) throw new QmpError(`Block export id '${id}' is already in use`);
  if (writable && node.readOnly) throw new QmpError('Cannot export read-only node as writable');
}

/** The NBD server, and what it exports. */
export function blockExportCommands(program: Program): Handlers<QmpSession> {
  let server: NbdServer | undefined;
  const running = (): NbdServer => {
    if (server === undefined) throw new QmpError('NBD server not running');
    return server;
  };
  /** There is one thread for all nodes, but what could not be moved elsewhere is not promised to be. */
  const checkThread = async (node: BlockNode, thread: string, fixed: boolean): Promise<void> => {
    if ((await program.objects()).get(thread)?.spec['qom-type'] !== 'iothread')
      throw new QmpError(`iothread "${thread}" not found`);
    if (fixed && [...node.parents].some(({ parent }) => parent.asNode === undefined))
      throw new QmpError('Cannot change iothread of active block backend');
  };
  return {
    'nbd-server-start': async args => {
      if (server !== undefined) throw new QmpError('NBD server already running');
      const { graph } = await program.blocks();
      const started = await NbdServer.listen(graph, listenOptions(args), {
        maxConnections: args['max-connections'] ?? 0,
        secure: await secureServer(program, args['tls-creds'], args['tls-authz']),
      });
      server = started;
      program.resources.push({ dispose: () => void started.stop() });
    },
    'nbd-server-add': async ({ device, name, description, writable, bitmap }) => {
      const { graph } = await program.blocks();
      const node = rootNode(graph, device);
      const id = name ?? device;
      const changes = writable === true && !node.readOnly;
      checkExport(node, id, changes, server);
      const into = running();
      await activate(node);
      const added = into.add(node, {
        id,
        name: id,
        description,
        writable: changes,
        bitmaps: given => (bitmap === undefined ? [] : [exportedBitmap(node, bitmap, given)]),
      });
      // A device's medium is exported, so the export goes with it.
      graph.backend(device)?.onMediumGone.add(async () => {
        if (into.find(added.name) === added) await into.remove(added, true);
      });
    },
    'nbd-server-remove': async ({ name, mode = 'safe' }) => {
      const found = running().find(name);
      if (found === undefined) throw new QmpError(`Export '${name}' is not found`);
      await running().remove(found, mode === 'hard');
    },
    'nbd-server-stop': async () => {
      await running().stop();
      server = undefined;
    },
    'block-export-add': async options => {
      const { graph } = await program.blocks();
      const { id, writable, writethrough, name, description, iothread, 'node-name': nodeName } = options;
      const node = graph.lookupPair(undefined, nodeName);
      checkExport(node, id, writable === true, server);
      if (iothread !== undefined) await checkThread(node, iothread, options['fixed-iothread'] === true);
      running();
      await activate(node);
      running().add(node, {
        id,
        name,
        description,
        writable,
        writethrough,
        allocationDepth: options['allocation-depth'],
        bitmaps: given =>
          (options.bitmaps ?? []).map(bitmap =>
            typeof bitmap === 'string'
              ? exportedBitmap(node, bitmap, given)
              : findBitmap(graph.lookupPair(undefined, bitmap.node), bitmap.name).checkUsable({ readonly: true }),
          ),
      });
    },
    'block-export-del': async ({ id, mode = 'safe' }) => {
      const found = server?.exports.find(one => one.id === id);
      if (server === undefined || found === undefined) throw new QmpError(`Export '${id}' is not found`);
      await server.remove(found, mode === 'hard');
    },
    'query-block-exports': () =>
      [...(server?.exports ?? [])].reverse().map(one => ({
        id: one.id,
        type: 'nbd' as const,
        'node-name': one.backend.root?.nodeName ?? '',
        'shutting-down': false,
      })),
  };
}
