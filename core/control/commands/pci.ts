import type { Machine } from '../../machine/machine.ts';
import { pciClassName } from '../../pci/class-names.ts';
import { CFG } from '../../pci/config-space.ts';
import { PciBridge } from '../../pci/pci-bridge.ts';
import { PciBus } from '../../pci/pci-bus.ts';
import type { Bar, PciDevice } from '../../pci/pci-device.ts';
import type { Program } from '../program.ts';
import type { Value } from '../qapi/declare.ts';
import type { PciInfo } from '../qapi/schema/pci.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

type Info = Value<typeof PciInfo>;
/** One function, as `query-pci` describes it. */
export type PciFunctionInfo = Info['devices'][number];

export function pciCommands(program: Program): Handlers<QmpSession> {
  return { 'query-pci': () => pciInfos(program.machine) };
}

/** The root buses with all that answers on them and, behind bridges that software has numbered, below them. */
export function pciInfos(machine: Machine): Info[] {
  const roots = [...machine.buses()]
    .filter(bus => bus instanceof PciBus)
    .filter(bus => !(bus.owner instanceof PciBridge));
  // What came last is first, and the host bridge's own bus last.
  return roots
    .reverse()
    .map(bus => ({ bus: bus.number, devices: bus.functions.map(card => functionInfo(bus.number, card)) }));
}

function functionInfo(busNumber: number, card: PciDevice): PciFunctionInfo {
  const { config } = card;
  const classCode = config.get16(CFG.CLASS_CODE + 1);
  const desc = pciClassName(classCode);
  const bridge = card instanceof PciBridge;
  const pin = config.get8(CFG.INTERRUPT_PIN);
  return {
    bus: busNumber,
    slot: card.devfn >> 3,
    function: card.devfn & 7,
    class_info: { ...(desc !== undefined && { desc }), class: classCode },
    id: {
      device: config.get16(CFG.DEVICE_ID),
      vendor: config.get16(CFG.VENDOR_ID),
      ...(!bridge && {
        subsystem: config.get16(CFG.SUBSYSTEM_ID),
        'subsystem-vendor': config.get16(CFG.SUBSYSTEM_VENDOR_ID),
      }),
    },
    ...(pin !== 0 && { irq: config.get8(CFG.INTERRUPT_LINE) }),
    irq_pin: pin,
    qdev_id: card.id ?? '',
    ...(bridge && { pci_bridge: bridgeInfo(card) }),
    regions: card.bars.filter(bar => bar !== undefined).map(regionInfo),
  };
}

function bridgeInfo(card: PciBridge): NonNullable<PciFunctionInfo['pci_bridge']> {
  const { secondary, windows } = card;
  const number = card.secondaryBusNumber;
  return {
    bus: {
      number: card.primaryBusNumber,
      secondary: number,
      subordinate: card.subordinateBusNumber,
      io_range: windows.io,
      memory_range: windows.memory,
      prefetchable_range: windows.prefetch,
    },
    ...(number !== 0 && { devices: secondary.functions.map(below => functionInfo(number, below)) }),
  };
}

function regionInfo({ index, declaration, address }: Bar): PciFunctionInfo['regions'][number] {
  const { space = 'memory', size, prefetchable = false, wide = false } = declaration;
  return {
    bar: index,
    type: space,
    address,
    size,
    ...(space === 'memory' && { prefetch: prefetchable, mem_type_64: wide }),
  };
}
