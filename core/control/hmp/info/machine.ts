import { registersReport } from '../../../accel/registers-report.ts';
import { QEMU_VERSION, SOUTHBRIDGE_VERSION } from '../../version.ts';
import { type HmpCommand, hmp, textOf } from '../command.ts';
import { interruptControllers, interruptCounts } from '../interrupt-report.ts';
import { lapicReport } from '../lapic-report.ts';

const SYNC_TITLE = 'Type               Object  Call site  Wait Time (s)         Count  Average (us)';
const SYNC_RULE = '-'.repeat(SYNC_TITLE.length);
const SYNC_PROFILE = `${SYNC_TITLE}\n${SYNC_RULE}\n${SYNC_RULE}\n`;

/** The machine, its CPUs and interrupts. */
export const MACHINE_INFO: readonly HmpCommand[] = [
  hmp(
    'version',
    '',
    '',
    'show the version of the emulator',
    () => `${QEMU_VERSION.major}.${QEMU_VERSION.minor}.${QEMU_VERSION.micro}Southbridge ${SOUTHBRIDGE_VERSION}\n`,
  ),
  hmp('name', '', '', 'show the current VM name', ({ program }) => {
    const name = program.line.merged('name').string('guest');
    return name === undefined ? '' : `${name}\n`;
  }),
  hmp(
    'uuid',
    '',
    '',
    'show the current VM UUID',
    async context => `${((await context.qmp('query-uuid')) as { UUID: string }).UUID}\n`,
  ),
  hmp('kvm', '', '', 'show KVM information', async context => {
    const { enabled } = (await context.qmp('query-kvm')) as { enabled: boolean };
    return `kvm support: ${enabled ? 'enabled' : 'disabled'}\n`;
  }),
  hmp('cpus', '', '', 'show infos for each CPU', ({ program, cpu }) =>
    program.machine.cpus.plugged
      .map(slot => `${slot.index === cpu ? '*' : ' '} CPU #${slot.index}: thread_id=${program.cpuThread(slot.index)}\n`)
      .join(''),
  ),
  hmp('numa', '', '', 'show NUMA information', ({ program }) => numaReport(program.machine)),
  hmp('hotpluggable-cpus', '', '', 'Show information about hotpluggable CPUs', async context => {
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
  hmp(
    'vm-generation-id',
    '',
    '',
    'Show Virtual Machine Generation ID',
    async context => `${((await context.qmp('query-vm-generation-id')) as { guid: string }).guid}\n`,
  ),
  hmp('status', '', '', 'whether the machine runs', ({ program }) => {
    const { runState: state } = program;
    const running = state === 'running';
    return `VM status: ${running ? 'running' : 'paused'}${running || state === 'paused' ? '' : ` (${state})`}\n`;
  }),
  hmp('registers', 'cpustate_all:-a,vcpu:i?', '[-a|vcpu]', "the CPU's registers", (context, args) => {
    const { plugged } = context.program.machine.cpus;
    if (plugged.length === 0) return 'No CPU available\n';
    const { vcpus } = context.program.machine.vm;
    const index = Number(args.optionalInteger('vcpu') ?? context.cpu);
    const chosen = args.flag('cpustate_all') ? vcpus : vcpus.filter(vcpu => vcpu.index === index);
    if (chosen.length === 0) return `CPU#${index} not available\n`;
    return chosen.map(vcpu => `\nCPU#${vcpu.index}\n${registersReport(vcpu.readState())}`).join('');
  }),
  hmp('lapic', 'apic-id:i?', '[apic-id]', "the CPU's local interrupt controller", (context, args) => {
    const { machine } = context.program;
    const index = Number(args.optionalInteger('apic-id') ?? context.cpu);
    const registers = machine.vm.vcpus.find(vcpu => vcpu.index === index)?.readLapic?.();
    if (machine.cpus.plugged.every(slot => slot.index !== index)) return 'No CPU available\n';
    return registers === undefined ? 'local apic state not available\n' : lapicReport(index, registers);
  }),
  hmp('pic', '', '', 'the interrupt controllers', ({ program }) => interruptControllers(program.machine)),
  hmp('irq', '', '', 'how often interrupts came', ({ program }) => interruptCounts(program.machine)),
  hmp('jit', '', '', 'the dynamic compiler', async context => {
    await context.qmp('x-query-jit');
    return undefined;
  }),
  hmp('opcount', '', '', "the dynamic compiler's operations", async context => {
    await context.qmp('x-query-opcount');
    return undefined;
  }),
  hmp('profile', '', '', 'profile of the dynamic compiler', async context =>
    textOf(await context.qmp('x-query-profile')),
  ),
  hmp(
    'sync-profile',
    'mean:-m,no_coalesce:-n,max:i?',
    '[-m] [-n] [max]',
    'profile of locks: there are none here',
    () => SYNC_PROFILE,
  ),
  hmp('stats', 'target:s,names:s?,provider:s?', 'target [names] [provider]', 'statistics', async (context, args) => {
    const target = args.text('target');
    if (target !== 'vm' && target !== 'vcpu') return `invalid stats target ${target}\n`;
    await context.qmp('query-stats', { target });
    return '';
  }),
  hmp('vcpu_dirty_limit', '', '', 'how fast CPUs may write memory', async context => {
    const limits = (await context.qmp('query-vcpu-dirty-limit')) as readonly unknown[];
    return limits.length === 0 ? 'Dirty page limit not enabled!\n' : undefined;
  }),
  hmp('replay', '', '', 'record and replay', () => 'Record/replay is not active\n'),
  hmp('sev', '', '', 'encrypted memory', () => 'SEV is not enabled\n'),
  hmp('sgx', '', '', 'enclaves', () => 'No EPC regions defined, SGX not available\n'),
  hmp('history', '', '', 'the lines before', ({ history }) =>
    history()
      .map((line, index) => `${index}: '${line}'\n`)
      .join(''),
  ),
  hmp('trace-events', 'name:s?,vcpu:i?', '[name] [vcpu]', 'the trace events, and which are on', ({ program }, args) => {
    const wanted = args.optional('name');
    const events = program.machine.trace.events().filter(({ name }) => wanted === undefined || name === wanted);
    if (events.length === 0 && wanted !== undefined) return `unknown event "${wanted}"\n`;
    return events.map(({ name, enabled }) => `${name} : state ${enabled ? 1 : 0}\n`).join('');
  }),
];

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
