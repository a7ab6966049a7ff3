import type { MemoryReport } from '../../../bus/memory-bus.ts';
import { type HmpCommand, hmp, textOf } from '../command.ts';
import { busTree, objectTree } from '../device-tree.ts';
import { flatViews, regionTrees } from '../memory-tree.ts';
import { activeMappings, translations } from '../page-tables.ts';
import { pciReport } from '../pci-report.ts';

/** Memory, address spaces, and the trees of devices. */
export const MEMORY_INFO: readonly HmpCommand[] = [
  hmp('mem', '', '', 'which virtual addresses are mapped', activeMappings),
  hmp('tlb', '', '', 'where virtual addresses lead', translations),
  hmp(
    'mtree',
    'flatview:-f,dispatch_tree:-d,owner:-o,disabled:-D',
    '[-f][-d][-o][-D]',
    'the regions of memory (-f: what is left of them in the end; -D: also what is switched off)',
    ({ program }, args) =>
      args.flag('flatview') ? flatViews(program.machine) : regionTrees(program.machine, args.flag('disabled')),
  ),
  hmp('qtree', '', '', 'buses and devices', ({ program }) => busTree(program.machine.system)),
  hmp('qdm', '', '', 'the types of devices', async ({ program }) => {
    const { deviceList } = await import('../../startup/listings.ts');
    return deviceList(program.registry);
  }),
  hmp('qom-tree', 'path:s?', '[path]', 'objects and what they are made of', ({ program }, args) => {
    const path = args.optional('path') ?? '/machine';
    const node = program.machine.root.resolve(path);
    return node === undefined ? `Error: Path '${path}' could not be resolved.\n` : objectTree(node, path);
  }),
  hmp('pci', '', '', 'PCI buses and devices', ({ program }) => pciReport(program.machine)),
  hmp('memdev', '', '', 'memory back ends', async ({ program }) => {
    const objects = (await program.objects()).all.filter(({ typeName }) => typeName.startsWith('memory-backend'));
    return `${objects.map(memdevReport).join('')}\n`;
  }),
  hmp(
    'memory_size_summary',
    '',
    '',
    'how much memory there is',
    ({ program }) =>
      `base memory: ${program.machine.config.ramSize}\nplugged memory: ${program.machine.memoryBus?.plugged ?? 0}\n`,
  ),
  hmp('memory-devices', '', '', 'memory devices', ({ program }) =>
    (program.machine.memoryBus?.all ?? []).map(({ report }) => memoryReport(report)).join(''),
  ),
  hmp('dirty_rate', '', '', 'how fast the guest writes memory', async context => {
    const rate = (await context.qmp('query-dirty-rate')) as Readonly<Record<string, string | number>>;
    const measured = rate['dirty-rate'] === undefined ? '(not ready)' : `${rate['dirty-rate']} (MB/s)`;
    return `Status: ${rate['status']}\nStart Time: ${rate['start-time']} (ms)\nSample Pages: ${rate['sample-pages']} (per GB)\nPeriod: ${rate['calc-time']} (sec)\nMode: ${rate['mode']}\nDirty rate: ${measured}\n`;
  }),
  hmp('ramblock', '', '', 'blocks of RAM', async context => textOf(await context.qmp('x-query-ramblock'))),
];

function memoryReport({ type, data }: MemoryReport): string {
  const { id, ...facts } = data;
  const lines = Object.entries(facts).map(([name, value]) => {
    const isAddress = typeof value === 'number' && (name === 'addr' || name === 'memaddr');
    return `  ${name}: ${isAddress ? `0x${value.toString(16)}` : String(value)}\n`;
  });
  return `Memory device [${type}]: "${id ?? ''}"\n${lines.join('')}`;
}

interface Memdev {
  readonly id: string;
  property(name: string): { get(): unknown } | undefined;
}

function memdevReport(object: Memdev): string {
  const lines = ['size', 'merge', 'dump', 'prealloc', 'share', 'reserve', 'policy'].map(
    name => `  ${name}:${name === 'size' ? '  ' : ' '}${String(object.property(name)?.get())}\n`,
  );
  return `memory backend: ${object.id}\n${lines.join('')}  host nodes: ${String(object.property('host-nodes')?.get() ?? '')}\n`;
}
