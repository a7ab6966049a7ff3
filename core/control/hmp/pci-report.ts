import type { Machine } from '../../machine/machine.ts';
import { type PciFunctionInfo, pciInfos } from '../commands/pci.ts';

const hex = (value: number | bigint, digits: number): string =>
  BigInt.asUintN(64, BigInt(value)).toString(16).padStart(digits, '0');

/** `info pci`. */
export function pciReport(machine: Machine): string {
  const buses = pciInfos(machine);
  if (buses.length === 0) return 'PCI devices not supported\n';
  return buses.flatMap(({ devices }) => devices.map(functionReport)).join('');
}

function functionReport(card: PciFunctionInfo): string {
  const { class_info: kind, id, irq, irq_pin: pin, pci_bridge: bridge } = card;
  const lines = [
    `  Bus ${String(card.bus).padStart(2)}, device ${String(card.slot).padStart(3)}, function ${card.function}:`,
    `    ${kind.desc ?? `Class ${String(kind.class).padStart(4, '0')}`}: PCI device ${hex(id.vendor, 4)}:${hex(id.device, 4)}`,
  ];
  if (id.subsystem !== undefined && id['subsystem-vendor'] !== undefined)
    lines.push(`      PCI subsystem ${hex(id['subsystem-vendor'], 4)}:${hex(id.subsystem, 4)}`);
  if (irq !== undefined) lines.push(`      IRQ ${irq}, pin ${String.fromCharCode(0x40 + Number(pin))}`);
  if (bridge !== undefined) {
    const {
      number,
      secondary,
      subordinate,
      io_range: io,
      memory_range: memory,
      prefetchable_range: prefetch,
    } = bridge.bus;
    lines.push(
      `      BUS ${number}.`,
      `      secondary bus ${secondary}.`,
      `      subordinate bus ${subordinate}.`,
      `      IO range [0x${hex(io.base, 4)}, 0x${hex(io.limit, 4)}]`,
      `      memory range [0x${hex(memory.base, 8)}, 0x${hex(memory.limit, 8)}]`,
      `      prefetchable memory range [0x${hex(prefetch.base, 8)}, 0x${hex(prefetch.limit, 8)}]`,
    );
  }
  for (const { bar, type, address, size, prefetch = false, mem_type_64: wide = false } of card.regions) {
    const end = BigInt(address) + BigInt(size) - 1n;
    lines.push(
      type === 'io'
        ? `      BAR${bar}: I/O at 0x${hex(address, 4)} [0x${hex(end, 4)}].`
        : `      BAR${bar}: ${wide ? 64 : 32} bit${prefetch ? ' prefetchable' : ''} memory at 0x${hex(address, 8)} [0x${hex(end, 8)}].`,
    );
  }
  lines.push(`      id "${card.qdev_id}"`);
  const below = (bridge?.devices ?? []) as readonly PciFunctionInfo[];
  return `${lines.join('\n')}\n${below.map(functionReport).join('')}`;
}
