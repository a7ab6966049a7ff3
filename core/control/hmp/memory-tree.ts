import type { Machine } from '../../machine/machine.ts';
import type { FlatView } from '../../memory/flat-view.ts';
import type { MemoryRegion } from '../../memory/memory-region.ts';
import { PORT_COUNT } from '../../memory/port-space.ts';

const address = (value: number): string => value.toString(16).padStart(16, '0');
/** The last byte of a region; one that fills all 52 bits is as large as QEMU's 64-bit ones. */
const last = (start: number, size: number): string => (size >= 2 ** 52 ? 'f'.repeat(16) : address(start + size - 1));

const KINDS: Readonly<Record<string, string>> = { ram: 'ram', rom: 'rom', 'rom-device': 'romd' };
const kindOf = (region: MemoryRegion, readonly = false): string =>
  region.kind === 'ram' && readonly ? 'rom' : (KINDS[region.kind] ?? 'i/o');

/** `info mtree`: regions and what is in them. */
export function regionTrees(machine: Machine, disabled: boolean): string {
  const aliased = new Set<MemoryRegion>();
  const spaces = [
    ['memory', machine.memoryRoot],
    ['I/O', machine.ioRoot],
  ] as const;
  const shown = spaces.map(([name, root]) => `address-space: ${name}\n${tree(root, 0, 1, disabled, aliased)}\n`);
  const targets = [...aliased].map(
    region => `memory-region: ${region.name}\n${tree(region, 0, 1, disabled, new Set())}\n`,
  );
  return shown.join('') + targets.join('');
}

function tree(
  region: MemoryRegion,
  start: number,
  level: number,
  disabled: boolean,
  aliased: Set<MemoryRegion>,
): string {
  if (!region.enabled && !disabled) return '';
  const target = region.aliasOf;
  if (target !== undefined) aliased.add(target);
  const name =
    target === undefined
      ? region.name
      : `alias ${region.name} @${target.name} ${address(region.aliasOffset)}-${last(region.aliasOffset, region.size)}`;
  const kind = kindOf(target ?? region, region.readonly);
  const line = `${'  '.repeat(level)}${address(start)}-${last(start, region.size)} (prio ${region.priority}, ${kind}): ${name}${region.enabled ? '' : ' [disabled]'}\n`;
  const below = [...region.children]
    .sort((a, b) => a.offset - b.offset || b.priority - a.priority)
    .map(child => tree(child, start + child.offset, level + 1, disabled, aliased));
  return line + below.join('');
}

/** `info mtree -f`: what is left of the regions where some cover others. */
export function flatViews(machine: Machine): string {
  const { memory, ports } = machine;
  return (
    view(0, 'I/O', machine.ioRoot, portRows(ports.flat)) + view(1, 'memory', machine.memoryRoot, rows(memory.flat))
  );
}

function view(number: number, space: string, root: MemoryRegion, lines: readonly string[]): string {
  return `FlatView #${number}\n AS "${space}", root: ${root.name}\n Root memory region: ${root.name}\n${lines.join('')}\n`;
}

function rows({ ranges }: FlatView): string[] {
  return ranges.map(({ start, end, region, offset, readonly }) =>
    row(start, end, region.priority, kindOf(region, readonly), region.name, offset),
  );
}

const row = (start: number, end: number, priority: number, kind: string, name: string, offset: number): string =>
  `  ${address(start)}-${address(end - 1)} (prio ${priority}, ${kind}): ${name}${offset === 0 ? '' : ` @${address(offset)}`}\n`;

/** Ports that nothing decodes belong to the space itself. */
function portRows(flat: FlatView): string[] {
  const lines: string[] = [];
  let at = 0;
  const gap = (to: number): void => {
    if (at < to) lines.push(row(at, to, 0, 'i/o', 'io', at));
  };
  rows(flat).forEach((line, index) => {
    const range = flat.ranges[index];
    if (range === undefined) return;
    gap(range.start);
    lines.push(line);
    at = range.end;
  });
  gap(PORT_COUNT);
  return lines;
}
