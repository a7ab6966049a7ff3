import { registersReport } from '../../accel/registers-report.ts';
import type { Bus } from '../../device/bus.ts';
import type { Device } from '../../device/device.ts';
import type { ObjectNode } from '../../device/object.ts';
import type { FlatView } from '../../memory/flat-view.ts';
import type { MemoryRegion } from '../../memory/memory-region.ts';
import type { PciDevice } from '../../pci/pci-device.ts';
import { blockInfos } from '../commands/block.ts';
import { QEMU_VERSION, SOUTHBRIDGE_VERSION } from '../version.ts';
import { type HmpCommand, hmp } from './command.ts';
import { miceReport, vncReport } from './display.ts';

const address16 = (value: number): string => value.toString(16).padStart(16, '0');

/** The subcommands of `info`. */
export const INFO_COMMANDS: readonly HmpCommand[] = [
  hmp(
    'version',
    '',
    'show the version of the emulator',
    () => `${QEMU_VERSION.major}.${QEMU_VERSION.minor}.${QEMU_VERSION.micro}Southbridge ${SOUTHBRIDGE_VERSION}\n`,
  ),
  hmp('status', '', 'show the current VM status (running|paused)', ({ program }) => {
    const state = program.runState;
    const running = state === 'running';
    return `VM status: ${running ? 'running' : 'paused'}${running || state === 'paused' ? '' : ` (${state})`}\n`;
  }),
  hmp('plugins', '', 'show what came from which plugin', async ({ program }) => {
    const { pluginList } = await import('../startup/listings.ts');
    return pluginList(program.plugins);
  }),
  hmp('name', '', 'show the current VM name', ({ program }) => {
    const name = program.line.merged('name').string('guest');
    return name === undefined ? '' : `${name}\n`;
  }),
  hmp(
    'uuid',
    '',
    'show the current VM UUID',
    async context => `${((await context.qmp('query-uuid')) as { UUID: string }).UUID}\n`,
  ),
  hmp('kvm', '', 'show KVM information', async context => {
    const { enabled, present } = (await context.qmp('query-kvm')) as { enabled: boolean; present: boolean };
    return `kvm support: ${present ? (enabled ? 'enabled' : 'disabled') : 'not compiled'}\n`;
  }),
  hmp('cpus', '', 'show infos for each CPU', ({ program, cpu }) =>
    program.machine.cpus.plugged
      .map(slot => `${slot.index === cpu ? '*' : ' '} CPU #${slot.index}: thread_id=${program.cpuThread(slot.index)}\n`)
      .join(''),
  ),
  hmp('registers', '[-a|vcpu]', 'show the cpu registers', (context, text) => {
    const { plugged } = context.program.machine.cpus;
    if (plugged.length === 0) return 'No CPU available\n';
    const vcpus = context.program.machine.vm.vcpus;
    const chosen = text.includes('-a')
      ? vcpus
      : vcpus.filter(vcpu => vcpu.index === (text.trim() === '' ? context.cpu : Number(text)));
    return chosen.map(vcpu => `\nCPU#${vcpu.index}\n${registersReport(vcpu.readState())}`).join('');
  }),
  hmp('mem', '', 'show the active virtual memory mappings', context =>
    context.cpuState() === undefined ? 'No CPU available\n' : 'PG disabled\n',
  ),
  hmp('mtree', '[-f][-d][-o][-D]', 'show memory tree', ({ program }, text) => {
    const { memory, ports } = program.machine;
    if (text.includes('-f')) return `${flatView('memory', memory.flat)}${flatView('I/O', ports.flat)}`;
    return `address-space: memory\n${regionTree(program.machine.memoryRoot, 0, 1)}\naddress-space: I/O\n${regionTree(program.machine.ioRoot, 0, 1)}\n`;
  }),
  hmp('qtree', '', 'show device tree', ({ program }) => busTree(program.machine.system, 0)),
  hmp('qom-tree', '[path]', 'show QOM composition tree', ({ program }, text) => {
    const path = text.trim() || '/machine';
    const node = program.machine.root.resolve(path);
    return node === undefined ? `Error: Path '${path}' could not be resolved.\n` : objectTree(node, path, 0);
  }),
  hmp('pic', '', 'show PIC state', ({ program }) => chipReport(program.machine.devices(), /8259|ioapic/)),
  hmp('irq', '', 'show the interrupts statistics (if available)', () => ''),
  hmp('pci', '', 'show PCI info', ({ program }) => pciReport(program.machine.devices())),
  hmp('block', '[-n] [-v] [device]', 'show info of one block device or all block devices', async ({ program }) => {
    const list = await blockInfos(program);
    return list
      .map(({ device, qdev, inserted, removable, locked, tray_open: tray }) => {
        const file =
          inserted === undefined
            ? '[not inserted]'
            : `${inserted.file} (${inserted.drv}${inserted.ro ? ', read-only' : ''})`;
        const lines = [
          `${device === '' ? (inserted?.['node-name'] ?? '') : `${device}${inserted === undefined ? '' : ` (${inserted['node-name']})`}`}: ${file}`,
        ];
        if (qdev !== undefined) lines.push(`    Attached to:      ${qdev}`);
        if (removable)
          lines.push(`    Removable device: ${locked ? '' : 'not '}locked, tray ${tray === true ? 'open' : 'closed'}`);
        if (inserted !== undefined)
          lines.push(
            `    Cache mode:       ${inserted.cache.writeback ? 'writeback' : 'writethrough'}${inserted.cache.direct ? ', direct' : ''}`,
          );
        return `${lines.join('\n')}\n`;
      })
      .join('\n');
  }),
  hmp('blockstats', '', 'show block device statistics', async context => {
    const list = (await context.qmp('query-blockstats')) as readonly {
      device?: string;
      stats: Readonly<Record<string, unknown>>;
    }[];
    return list
      .filter(({ device }) => device !== undefined)
      .map(
        ({ device, stats }) =>
          `${device}: rd_bytes=${stats['rd_bytes']} wr_bytes=${stats['wr_bytes']} rd_operations=${stats['rd_operations']} wr_operations=${stats['wr_operations']} flush_operations=${stats['flush_operations']}\n`,
      )
      .join('');
  }),
  hmp('network', '', 'show the network state', async ({ program }) => (await program.nets()).describe()),
  hmp('usernet', '', 'show user network stack connection states', async ({ program }) =>
    (await program.nets()).users.map(backend => `Hub -1 (${backend.id}):\n${backend.connectionInfo()}`).join(''),
  ),
  hmp('chardev', '', 'show the character devices', ({ program: { chars } }) =>
    chars.ids.map(id => `${id}: filename=${chars.get(id)?.filename}\n`).join(''),
  ),
  hmp('mice', '', 'show which guest mouse is receiving events', miceReport),
  hmp('numa', '', 'show NUMA information', ({ program }) => numaReport(program.machine)),
  hmp('dirty_rate', '', 'show dirty rate information', async context => {
    const rate = (await context.qmp('query-dirty-rate')) as Readonly<Record<string, string | number>>;
    const measured = rate['dirty-rate'] === undefined ? '(not ready)' : `${rate['dirty-rate']} (MB/s)`;
    return `Status: ${rate['status']}\nStart Time: ${rate['start-time']} (ms)\nSample Pages: ${rate['sample-pages']} (per GB)\nPeriod: ${rate['calc-time']} (sec)\nMode: ${rate['mode']}\nDirty rate: ${measured}\n`;
  }),
  hmp('dump', '', 'Display the latest dump status', async ({ program }) => {
    const { status, completed, total } = (await program.memoryDump()).result;
    const finished =
      status === 'active' ? `Finished: ${((100 * Number(completed)) / Number(total)).toFixed(2)} %\n` : '';
    return `Status: ${status}\n${finished}`;
  }),
  hmp('memdev', '', 'show memory backends', async ({ program }) => {
    const objects = (await program.objects()).all.filter(({ typeName }) => typeName.startsWith('memory-backend'));
    return `${objects
      .map(
        object =>
          `memory backend: ${object.id}\n  size:  ${object.property('size')?.get()}\n${['merge', 'dump', 'prealloc', 'share', 'reserve', 'policy'].map(name => `  ${name}: ${object.property(name)?.get()}\n`).join('')}  host nodes: ${object.property('host-nodes')?.get()}\n`,
      )
      .join('')}\n`;
  }),
  hmp(
    'memory_size_summary',
    '',
    'show the amount of initially allocated and present hotpluggable (if enabled) memory in bytes.',
    ({ program }) =>
      `base memory: ${program.machine.config.ramSize}\nplugged memory: ${program.machine.memoryBus?.plugged ?? 0}\n`,
  ),
  hmp('memory-devices', '', 'show memory devices', ({ program }) =>
    (program.machine.memoryBus?.dimms ?? [])
      .map(
        dimm =>
          `Memory device [dimm]: "${dimm.id ?? ''}"\n  addr: 0x${dimm.address.toString(16)}\n  slot: ${dimm.slot}\n  node: ${dimm.node}\n  size: ${dimm.size}\n  memdev: ${dimm.backend?.path}\n  hotplugged: ${dimm.hotplugged}\n  hotpluggable: ${dimm.type.hotpluggable}\n`,
      )
      .join(''),
  ),
  hmp('hotpluggable-cpus', '', 'Show information about hotpluggable CPUs', async context => {
    const slots = (await context.qmp('query-hotpluggable-cpus')) as readonly {
      type: string;
      'vcpus-count': number;
      'qom-path'?: string;
      props: Readonly<Record<string, number>>;
    }[];
    const lines = slots.map(slot => {
      const path = slot['qom-path'] === undefined ? '' : `  qom_path: "${slot['qom-path']}"\n`;
      const props = Object.entries(slot.props)
        .map(([name, value]) => `    ${name}: "${value}"\n`)
        .join('');
      return `  type: "${slot.type}"\n  vcpus_count: "${slot['vcpus-count']}"\n${path}  CPUInstance Properties:\n${props}`;
    });
    return `Hotpluggable CPUs:\n${lines.join('')}`;
  }),
  hmp('iothreads', '', 'show iothreads', async context => {
    const list = (await context.qmp('query-iothreads')) as readonly { id: string; 'thread-id': number }[];
    return list.map(thread => `${thread.id}:\n  thread_id=${thread['thread-id']}\n`).join('');
  }),
  hmp('ramblock', '', 'Display system ramblock information', ({ program }) =>
    program.machine.ram.map(({ name, size }) => `${name.padStart(30)} ${size}\n`).join(''),
  ),
  hmp('trace-events', '[name] [vcpu]', 'show available trace-events & their state', ({ program }) =>
    program.machine.trace
      .events()
      .map(({ name, enabled }) => `${name} : state ${enabled ? 1 : 0}\n`)
      .join(''),
  ),
  hmp('snapshots', '', 'show the currently saved VM snapshots', async ({ program }) =>
    (await import('../migration/snapshots.ts')).listSnapshots(program),
  ),
  hmp('migrate', '', 'show migration status', async ({ program }) => {
    const { status } = (await program.migration()).info;
    return status === undefined ? '' : `Migration status: ${status}\n`;
  }),
  hmp('balloon', '', 'show balloon information', async context => {
    const { actual } = (await context.qmp('query-balloon')) as { actual: number };
    return `balloon: actual=${Math.floor(actual / 2 ** 20)}\n`;
  }),
  hmp('tpm', '', 'show the TPM device', () => 'TPM device not supported\n'),
  hmp('usb', '', 'show guest USB devices', async context => {
    return ((await context.qmp('x-query-usb')) as { 'human-readable-text': string })['human-readable-text'];
  }),
  hmp('vnc', '', 'show the vnc server status', vncReport),
  hmp('jit', '', 'show dynamic compiler info', () => 'Error: JIT information is only available with accel=tcg\n'),
  hmp('replay', '', 'show record/replay information', () => 'Record/replay is not active\n'),
  hmp(
    'vm-generation-id',
    '',
    'Show Virtual Machine Generation ID',
    async context => `${((await context.qmp('query-vm-generation-id')) as { guid: string }).guid}\n`,
  ),
];

function regionTree(region: MemoryRegion, base: number, level: number): string {
  const start = base;
  const end = base + region.size - 1;
  const kind =
    region.kind === 'ram' ? 'ram' : region.kind === 'rom' ? 'rom' : region.kind === 'rom-device' ? 'romd' : 'i/o';
  const alias = region.aliasOf === undefined ? '' : `alias ${region.name} @${region.aliasOf.name}`;
  const line = `${'  '.repeat(level)}${address16(start)}-${address16(Math.max(0, end))} (prio ${region.priority}, ${kind}): ${alias || region.name}${region.enabled ? '' : ' [disabled]'}\n`;
  const children = [...region.children].sort((a, b) => a.offset - b.offset);
  return line + children.map(child => regionTree(child, base + child.offset, level + 1)).join('');
}

function flatView(name: string, view: FlatView): string {
  const rows = view.ranges.map(({ start, end, region, offset, readonly }) => {
    const kind = region.kind === 'ram' ? (readonly ? 'rom' : 'ram') : region.kind === 'rom' ? 'rom' : 'i/o';
    return `  ${address16(start)}-${address16(end - 1)} (prio ${region.priority}, ${kind}): ${region.name}${offset === 0 ? '' : ` @${address16(offset)}`}\n`;
  });
  return `FlatView: AS "${name}"\n${rows.join('')}\n`;
}

function busTree(bus: Bus, level: number): string {
  const indent = '  '.repeat(level);
  return `${indent}bus: ${bus.busName}\n${indent}  type ${bus.kind}\n${bus.devices.map(device => deviceTree(device, level + 1)).join('')}`;
}

function deviceTree(device: Device, level: number): string {
  const indent = '  '.repeat(level);
  const lines = [`${indent}dev: ${device.typeName}, id "${device.id ?? ''}"\n`];
  for (const [name, pins] of device.inputPins) lines.push(`${indent}  gpio-in "${name}" ${pins.length}\n`);
  for (const [name, pins] of device.outputPins) lines.push(`${indent}  gpio-out "${name}" ${pins.length}\n`);
  for (const name of Object.keys(device.type.properties)) {
    const value = device.property(name)?.get();
    if (value !== undefined && value !== null)
      lines.push(`${indent}  ${name} = ${typeof value === 'string' ? `"${value}"` : String(value)}\n`);
  }
  return lines.join('') + device.buses.map(bus => busTree(bus, level + 1)).join('');
}

function objectTree(node: ObjectNode, name: string, level: number): string {
  const shown = level === 0 ? name : `/${name}`;
  return `${'  '.repeat(level)}${shown} (${node.typeName})\n${[...node.children].map(([child, below]) => objectTree(below, child, level + 1)).join('')}`;
}

function chipReport(devices: Iterable<Device>, pattern: RegExp): string {
  const lines: string[] = [];
  for (const device of devices) {
    if (!pattern.test(device.typeName)) continue;
    const pins = [...device.inputPins.values()]
      .flat()
      .map((pin, index) => (pin.level ? index : -1))
      .filter(index => index >= 0);
    lines.push(`${device.name}: ${device.typeName} inputs high: ${pins.length === 0 ? 'none' : pins.join(' ')}\n`);
  }
  return lines.join('');
}

const isPci = (device: Device): device is PciDevice => device.bus.kind === 'PCI' && 'devfn' in device;

function pciReport(devices: Iterable<Device>): string {
  const lines: string[] = [];
  for (const device of devices) {
    if (!isPci(device)) continue;
    const hex = (offset: number, size: number): string =>
      device
        .configRead(offset, size)
        .toString(16)
        .padStart(size * 2, '0');
    const header = `  Bus  0, device ${String(device.devfn >> 3).padStart(3)}, function ${device.devfn & 7}:\n`;
    const pin = device.configRead(0x3d, 1);
    const irq = pin === 0 ? '' : `      IRQ ${device.configRead(0x3c, 1)}, pin ${String.fromCharCode(0x40 + pin)}\n`;
    lines.push(
      `${header}    Class ${hex(0x0a, 2)}: PCI device ${hex(0, 2)}:${hex(2, 2)}\n${irq}      id "${device.id ?? ''}"\n`,
    );
  }
  return lines.join('');
}

interface NumaView {
  readonly numa: { readonly nodes: readonly { readonly memory: number }[] };
  readonly cpus: { readonly plugged: readonly { readonly index: number; readonly nodeId: number | undefined }[] };
}

export function numaReport({ numa, cpus }: NumaView): string {
  const { nodes } = numa;
  const lines = nodes.map((node, number) => {
    const list = cpus.plugged.filter(slot => slot.nodeId === number).map(slot => ` ${slot.index}`);
    return `node ${number} cpus:${list.join('')}\nnode ${number} size: ${Math.floor(node.memory / 2 ** 20)} MB\nnode ${number} plugged: 0 MB\n`;
  });
  return `${nodes.length} nodes\n${lines.join('')}`;
}
