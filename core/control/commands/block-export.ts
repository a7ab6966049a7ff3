import type { ListenOptions } from 'node:net';
import type { DirtyBitmap } from '../../block/dirty-bitmap.ts';
import { activate } from '../../block/handover.ts';
import { NbdServer } from '../../block/nbd/server.ts';
import type { BlockNode } from '../../block/node.ts';
import type { Program } from '../program.ts';
import type { Args } from '../qapi/declare.ts';
import { QmpError } from '../qapi/error.ts';
import type { commands } from '../qapi/schema/block-export.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';
import { findBitmap, rootNode } from './block-bitmaps.ts';
import { blockErrors } from './block-errors.ts';

function listenOptions({ addr }: Args<(typeof commands)['nbd-server-start']>): ListenOptions {
  if (addr.type === 'unix') return { path: addr.data.path };
  if (addr.type === 'inet') return { host: addr.data.host, port: Number(addr.data.port) };
  throw new QmpError('An inherited socket cannot be listened on by the NBD server');
}

/** A bitmap of the node, or of what lies under it. */
function exportedBitmap(top: BlockNode, name: string): DirtyBitmap {
  for (let node: BlockNode | undefined = top; node !== undefined; node = node.filtered ?? node.backing) {
    const found = node.dirtyBitmaps.find(one => one.name === name);
    if (found !== undefined) return found.checkUsable({ readonly: true });
  }
  throw new QmpError(`Bitmap '${name}' is not found`);
}

/** The NBD server, and what it exports. */
export function blockExportCommands(program: Program): Handlers<QmpSession> {
  let server: NbdServer | undefined;
  const running = (): NbdServer => {
    if (server === undefined) throw new QmpError('NBD server not running');
    return server;
  };
  return blockErrors({
    'nbd-server-start': async args => {
      if (server !== undefined) throw new QmpError('NBD server already running');
      if (args['tls-creds'] !== undefined) throw new QmpError('TLS is not supported by the NBD server');
      const { graph } = await program.blocks();
      const started = await NbdServer.listen(graph, listenOptions(args), args['max-connections'] ?? 0);
      server = started;
      program.resources.push({ dispose: () => void started.stop() });
    },
    'nbd-server-add': async ({ device, name, description, writable, bitmap }) => {
      const { graph } = await program.blocks();
      const node = rootNode(graph, device);
      const into = running();
      await activate(node);
      const added = into.add(node, {
        id: name ?? device,
        name: name ?? device,
        description,
        writable: writable === true && !node.readOnly,
        bitmaps: bitmap === undefined ? [] : [exportedBitmap(node, bitmap)],
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
      const node = graph.lookupPair(undefined, options['node-name']);
      const { id, writable, name, description } = options;
      running();
      await activate(node);
      const bitmaps = (options.bitmaps ?? []).map(bitmap =>
        typeof bitmap === 'string'
          ? exportedBitmap(node, bitmap)
          : findBitmap(graph.lookupPair(undefined, bitmap.node), bitmap.name).checkUsable({ readonly: true }),
      );
      const allocationDepth = options['allocation-depth'];
      running().add(node, { id, name, description, writable, bitmaps, allocationDepth });
    },
    'block-export-del': async ({ id, mode = 'safe' }) => {
      const found = server?.exports.find(one => one.id === id);
      if (server === undefined || found === undefined) throw new QmpError(`Export '${id}' is not found`);
      await server.remove(found, mode === 'hard');
    },
    'query-block-exports': () =>
      (server?.exports ?? []).map(one => ({
        id: one.id,
        type: 'nbd' as const,
        'node-name': one.backend.root?.nodeName ?? '',
        'shutting-down': false,
      })),
  });
}
