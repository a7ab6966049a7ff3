import type { BlockBackend } from './backend.ts';
import { checkNotBusy } from './busy.ts';
import type { BlockGraph } from './graph.ts';
import { BlockError } from './io-error.ts';
import { BlockOptions } from './options.ts';

/** The backend that a command names by its own name or by the id of its device. */
export function findBackend(graph: BlockGraph, device: string | undefined, id: string | undefined): BlockBackend {
  if ((device === undefined) === (id === undefined)) throw new BlockError("Need exactly one of 'device' and 'id'");
  if (id !== undefined) {
    // An id, or the path of the device that has it.
    const short = id.replace(/^\/machine\/peripheral\/([^/]+)$/, '$1');
    for (const backend of graph.backends) {
      if (backend.device !== undefined && (backend.device.id === id || backend.device.id === short)) return backend;
    }
    if (graph.isDevice(id)) throw new BlockError('Device does not have a block device backend');
    throw new BlockError(`Device '${id}' not found`, { code: 'ERR_DEVICE_NOT_FOUND' });
  }
  const found = graph.backend(device ?? '');
  if (found === undefined) throw new BlockError(`Device '${device}' not found`, { code: 'ERR_DEVICE_NOT_FOUND' });
  return found;
}

/** Which device a command is about, as it named it. */
export interface Named {
  readonly device?: string | undefined;
  readonly id?: string | undefined;
}

const nameOf = ({ device, id }: Named): string => device ?? id ?? '';

/** What came of asking for the tray to open. */
type TrayAnswer = 'open' | 'no-tray' | 'asked';

function askToOpen(graph: BlockGraph, named: Named, force: boolean): TrayAnswer {
  const backend = findBackend(graph, named.device, named.id);
  const { device } = backend;
  // A drive that no device has can be emptied at any time.
  if (device === undefined) return 'no-tray';
  if (!device.removable) throw new BlockError(`Device '${nameOf(named)}' is not removable`);
  const open = device.trayOpen?.();
  if (open === undefined) return 'no-tray';
  if (open) return 'open';
  const locked = device.mediumLocked?.() ?? false;
  if (locked) device.ejectRequest?.(force);
  if (!locked || force) device.changeMedium?.(false);
  return locked && !force ? 'asked' : 'open';
}

/** Opens the tray, or asks the guest to where it has locked it. */
export function openTray(graph: BlockGraph, named: Named, force: boolean): void {
  askToOpen(graph, named, force);
}

export function closeTray(graph: BlockGraph, named: Named): void {
  const { device } = findBackend(graph, named.device, named.id);
  if (device === undefined) return;
  if (!device.removable) throw new BlockError(`Device '${nameOf(named)}' is not removable`);
  if (device.trayOpen?.() === true) device.changeMedium?.(true);
}

/** Takes the medium out of an open tray. */
export async function removeMedium(graph: BlockGraph, named: Named): Promise<void> {
  const backend = findBackend(graph, named.device, named.id);
  const { device } = backend;
  if (backend.root !== undefined) checkNotBusy(backend.root);
  if (device !== undefined && !device.removable) throw new BlockError(`Device '${nameOf(named)}' is not removable`);
  const open = device?.trayOpen?.();
  if (open === false) throw new BlockError(`Tray of device '${nameOf(named)}' is not open`);
  if (!backend.inserted) return;
  backend.readOnlyIfEmpty = backend.readOnly;
  await backend.remove();
  // Without a tray the medium is gone at once.
  if (open === undefined) device?.changeMedium?.(false);
}

/** Puts the medium `nodeName` into an open tray. */
export function insertMedium(graph: BlockGraph, named: Named, nodeName: string): void {
  const backend = findBackend(graph, named.device, named.id);
  const node = graph.node(nodeName);
  if (node === undefined) throw new BlockError(`Node '${nodeName}' not found`);
  for (const { name } of node.parents)
    if (name === 'root') throw new BlockError(`Node '${nodeName}' is already in use`);
  insertInto(backend, () => backend.insert(node));
}

function insertInto(backend: BlockBackend, insert: () => void): void {
  const { device } = backend;
  if (device !== undefined && !device.removable) throw new BlockError('Device is not removable');
  const open = device?.trayOpen?.();
  if (open === false) throw new BlockError('Tray of the device is not open');
  if (backend.inserted) throw new BlockError('There already is a medium in the device');
  insert();
  if (open === undefined) device?.changeMedium?.(true);
}

export interface MediumChange {
  readonly filename: string;
  readonly format?: string | undefined;
  readonly force?: boolean | undefined;
  readonly readOnly: 'retain' | 'read-only' | 'read-write';
}

/** Replaces the medium by another image: tray and all. */
export async function changeMedium(graph: BlockGraph, named: Named, change: MediumChange): Promise<void> {
  const backend = findBackend(graph, named.device, named.id);
  const retained = backend.readOnly;
  const readOnly = change.readOnly === 'retain' ? retained : change.readOnly === 'read-only';
  const options = new BlockOptions();
  if (change.format !== undefined) options.set('driver', change.format);
  const node = await graph.openTree(
    change.filename,
    options,
    { readOnly, detectZeroes: backend.root?.settings.detectZeroes ?? 'off' },
    false,
  );
  try {
    const answer = askToOpen(graph, named, change.force ?? false);
    if (answer === 'asked') {
      throw new BlockError(
        `Device '${nameOf(named)}' is locked and force was not specified, wait for tray to open and try again`,
      );
    }
    await removeMedium(graph, named);
    insertInto(backend, () => backend.insert(node));
  } catch (error) {
    await graph.released(node);
    throw error;
  }
  closeTray(graph, named);
}

/** Opens the tray and takes the medium out. */
export async function eject(graph: BlockGraph, named: Named, force: boolean): Promise<void> {
  if (askToOpen(graph, named, force) === 'asked') {
    throw new BlockError(
      `Device '${nameOf(named)}' is locked and force was not specified, wait for tray to open and try again`,
    );
  }
  await removeMedium(graph, named);
}

/**
 * Has a device use another node: a filter over its own, or what lies under one.
 *
 * @throws BlockError where there is no such node, or its other users do not allow it; the device goes on with its own then
 */
export async function exchangeNode(backend: BlockBackend, nodeName: string): Promise<void> {
  const { graph, root } = backend;
  const node = graph.lookupPair(undefined, nodeName);
  if (root === undefined) throw new BlockError(`Device '${backend.id}' has no medium`);
  await graph.drained(() => graph.replace(root, node, parent => parent !== backend));
  await graph.released(root);
}
