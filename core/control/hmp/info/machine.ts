import { registersReport } from '../../../accel/registers-report.ts';
import { QEMU_VERSION, SOUTHBRIDGE_VERSION } from '../../version.ts';
import { type HmpCommand, hmp } from '../command.ts';
import { interruptControllers, interruptCounts } from '../interrupt-report.ts';

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
    const { enabled, present } = (await context.qmp('query-kvm')) as { enabled: boolean; present: boolean };
    return `kvm support: ${present ? (enabled ? 'enabled' : 'disabled') : 'not compiled'}\n`;
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
  hmp('replay', '', '', 'record and replay', () => 'Record/replay is not active\n'),
  hmp('sev', '', '', 'encrypted memory', () => 'SEV is not enabled\n'),
  hmp('sgx', '', '', 'enclaves', async context => {
    await context.qmp('query-sgx');
    return undefined;
  }),
  hmp('history', '', '', 'the lines before', () => ''),
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
