import { IoVector } from '../../block/io-vector.ts';
import type { Job } from '../../block/jobs/job.ts';
import type { BlockNode } from '../../block/node.ts';
import { startFor, type Task } from '../../block/pending.ts';
import { Qcow2Node } from '../../block/qcow2/node.ts';
import type { Snapshot } from '../../block/qcow2/snapshots.ts';
import { MachineLoader, saveMachine } from '../../state/snapshot.ts';
import type { Program } from '../program.ts';
import { QmpError } from '../qapi/error.ts';

const PIECE = 2 ** 20;

/** The disks that a snapshot of the whole machine is made of, and the one of them that holds the machine itself. */
export interface SnapshotDisks {
  readonly nodes: readonly Qcow2Node[];
  readonly holder: Qcow2Node;
}

/** All writable disks of the machine; the first holds it. */
async function machineDisks(program: Program): Promise<SnapshotDisks> {
  const { graph } = await program.blocks();
  const nodes = new Set<Qcow2Node>();
  for (const backend of graph.backends) {
    const { root } = backend;
    if (root === undefined || root.readOnly) continue;
    if (!(root instanceof Qcow2Node)) {
      throw new QmpError(`Device '${backend.name || root.nodeName}' is writable but does not support snapshots`);
    }
    nodes.add(root);
  }
  const [holder] = nodes;
  if (holder === undefined) throw new QmpError('No block device can accept snapshots');
  return { nodes: [...nodes], holder };
}

/** The nodes that the jobs are told of by name. @throws QmpError in QEMU's words */
export async function namedDisks(
  program: Program,
  vmstate: string | undefined,
  names: readonly string[],
): Promise<SnapshotDisks> {
  const { graph } = await program.blocks();
  const nodes = names.map(name => {
    const node: BlockNode | undefined = graph.node(name);
    if (node === undefined) throw new QmpError(`No block device node '${name}'`);
    if (!(node instanceof Qcow2Node)) throw new QmpError(`Device '${name}' is writable but does not support snapshots`);
    return node;
  });
  const holder = vmstate === undefined ? nodes[0] : nodes.find(({ nodeName }) => nodeName === vmstate);
  if (holder === undefined) throw new QmpError(`vmstate block device '${vmstate ?? ''}' does not exist`);
  return { nodes, holder };
}

const locked = async <T>(node: Qcow2Node, task: Task<T>): Promise<T> => startFor(node.exclusively(task));

/**
 * Stops the machine for `action`, and lets it go on if it ran. A machine that was only half made what it was stays stopped.
 * @param job whose own work this is
 */
async function stopped<T>(
  program: Program,
  state: 'save-vm' | 'restore-vm',
  action: () => Promise<T>,
  job: Job | undefined,
): Promise<T> {
  const { machine } = program;
  const running = machine.power.running;
  const before = machine.runState;
  machine.stop(state);
  let complete = state === 'save-vm';
  try {
    const result = await (await program.blocks()).graph.drained(action, job);
    complete = true;
    return result;
  } finally {
    machine.power.setState(running ? 'paused' : before);
    if (running && complete) machine.start();
  }
}

/** `savevm`: the whole machine as a snapshot in its qcow2 disks, in place of one of the same name. */
export async function saveVm(program: Program, name: string | undefined): Promise<void> {
  const now = new Date();
  const tag = name ?? `vm-${now.toISOString().slice(0, 19).replace(/[-:]/g, '').replace('T', '')}`;
  await save(program, tag, await machineDisks(program));
}

/** Saves the machine under `tag` in `disks`. */
export async function save(program: Program, tag: string, { nodes, holder }: SnapshotDisks, job?: Job): Promise<void> {
  await (await program.migration()).refuseWhereBlocked();
  const now = Date.now();
  const action = async (): Promise<void> => {
    for (const node of nodes) {
      const old = node.snapshots.find(tag);
      if (old !== undefined) await locked(node, node.snapshots.remove(old));
    }
    let position = 0;
    for (const piece of saveMachine(program.machine)) {
      await holder.writeVmState(position, IoVector.of(piece));
      position += piece.length;
    }
    for (const node of nodes) {
      const snapshot = node.snapshots.create({
        name: tag,
        dateSeconds: Math.floor(now / 1000),
        dateNanoseconds: (now % 1000) * 1_000_000,
        vmClockNs: program.machine.clocks.virtual.now(),
        vmStateSize: node === holder ? position : 0,
      });
      await locked(node, snapshot);
    }
  };
  await stopped(program, 'save-vm', action, job);
}

/** `loadvm`: makes disks and machine what they were. */
export async function loadVm(program: Program, name: string): Promise<void> {
  const { nodes } = await machineDisks(program);
  const holder = nodes.find(node => (node.snapshots.find(name)?.vmStateSize ?? 0) > 0);
  const [first] = nodes;
  if (first !== undefined) await load(program, name, { nodes, holder: holder ?? first });
}

/** Makes `disks` and the machine what they were when `tag` was saved. */
export async function load(program: Program, tag: string, { nodes, holder }: SnapshotDisks, job?: Job): Promise<void> {
  const chosen = nodes.map(node => ({ node, snapshot: node.snapshots.find(tag) }));
  if (chosen.some(({ snapshot }) => snapshot === undefined))
    throw new QmpError(`Snapshot '${tag}' does not exist in one or more devices`);
  const size = holder.snapshots.find(tag)?.vmStateSize ?? 0;
  if (size === 0) throw new QmpError('This is a disk-only snapshot. Revert to it offline using qemu-img');
  const action = async (): Promise<void> => {
    for (const { node, snapshot } of chosen)
      if (snapshot !== undefined) await locked(node, node.snapshots.apply(snapshot));
    const { machine } = program;
    machine.resetDevices();
    const loader = new MachineLoader(machine);
    for (let position = 0; position < size; position += PIECE) {
      const piece = Buffer.alloc(Math.min(PIECE, size - position));
      await holder.readVmState(position, IoVector.of(piece));
      loader.feed(piece);
    }
    loader.end();
  };
  await stopped(program, 'restore-vm', action, job);
}

/** `delvm`. */
export async function deleteVm(program: Program, name: string): Promise<void> {
  for (const node of (await machineDisks(program)).nodes) {
    const snapshot = node.snapshots.find(name);
    if (snapshot === undefined)
      throw new QmpError(`Device '${node.nodeName}' does not have the requested snapshot '${name}'`);
    await locked(node, node.snapshots.remove(snapshot));
  }
}

/** Deletes what `disks` have of `tag`; some may have none. */
export async function remove(tag: string, { nodes }: SnapshotDisks): Promise<void> {
  for (const node of nodes) {
    const snapshot = node.snapshots.find(tag);
    if (snapshot !== undefined) await locked(node, node.snapshots.remove(snapshot));
  }
}

/** `info snapshots`: those that every disk has and that hold a machine. */
export async function listSnapshots(program: Program): Promise<string> {
  let nodes: readonly Qcow2Node[];
  try {
    nodes = (await machineDisks(program)).nodes;
  } catch {
    return 'no block device can store vmstate for snapshot\n';
  }
  const whole = (nodes[0]?.snapshots.list ?? []).filter(({ name }) =>
    nodes.every(node => node.snapshots.find(name) !== undefined),
  );
  if (whole.length === 0) return 'There is no snapshot available.\n';
  return `List of snapshots present on all disks:\n${ROW(['ID', 'TAG', 'VM SIZE', 'DATE', 'VM CLOCK', 'ICOUNT'])}${whole.map(row).join('')}`;
}

const ROW = ([id = '', tag = '', size = '', date = '', clock = '', icount = '']: readonly string[]): string =>
  `${id.padEnd(10)}${tag.padEnd(17)}${size.padStart(8)}${date.padStart(20)}${clock.padStart(13)}${icount.padStart(11)}\n`;

function row(snapshot: Snapshot): string {
  const mib = `${(snapshot.vmStateSize / 2 ** 20).toFixed(1)} MiB`;
  const date = new Date(snapshot.dateSeconds * 1000).toISOString().slice(0, 19).replace('T', ' ');
  const ms = Math.floor(snapshot.vmClockNs / 1e6);
  const two = (value: number): string => String(value).padStart(2, '0');
  const clock = `${two(Math.floor(ms / 3_600_000))}:${two(Math.floor(ms / 60_000) % 60)}:${two(Math.floor(ms / 1000) % 60)}.${String(ms % 1000).padStart(3, '0')}`;
  return ROW(['--', snapshot.name, mib, date, clock, '']);
}
