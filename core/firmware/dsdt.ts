/** The Differentiated System Description Tables of the i440FX and ICH9 machines. */
import type { TableContent } from './acpi-blob.ts';
import type { McfgFacts } from './acpi-tables.ts';
import {
  type Aml,
  arg,
  type Body,
  block,
  derefOf,
  device,
  eisaId,
  field,
  increment,
  index,
  lEqual,
  lGreater,
  lLess,
  lOr,
  local,
  method,
  name,
  notify,
  otherwise,
  pkg,
  region,
  ret,
  scope,
  shiftRight,
  sizeOf,
  store,
  subtract,
  text,
  toBuffer,
  toHexString,
  when,
  whileLoop,
} from './aml.ts';
import {
  dwordMemory,
  io,
  memory32Fixed,
  qwordMemory,
  resourceTemplate,
  wordBusNumber,
  wordIo,
} from './aml-resources.ts';
import { type CpuHotplugFacts, cpuHotplug } from './dsdt-cpus.ts';
import { cxlRoot } from './dsdt-cxl.ts';
import { type ExpanderFacts, expanderHost } from './dsdt-expander.ts';
import { fwCfg } from './dsdt-isa.ts';
import { memoryHotplug } from './dsdt-memory.ts';
import {
  type AcpiPciBus,
  busObjects,
  gsiLink,
  hostBridgeOsc,
  hotplugController,
  hotplugEvent,
  ich9Routes,
  linkSettingsMethod,
  linkStatusMethod,
  pirqLink,
  rotatingRoutes,
  sciLink,
} from './dsdt-pci.ts';
import { type AddressRange, freeRanges } from './ranges.ts';
import { type TpmFacts, tpmDevice, tpmWindow } from './tpm.ts';

export interface PciHotplugFacts {
  readonly base: number;
  readonly length: number;
  /** Slots of the root bus (`acpi-root-pci-hotplug`). */
  readonly root: boolean;
  /** Slots behind bridges (`acpi-pci-hotplug-with-bridge-support`). */
  readonly bridges: boolean;
}

export interface DsdtFacts {
  readonly chipset: 'i440fx' | 'q35';
  readonly rootUid: number;
  readonly hasHpet: boolean;
  readonly cpuHotplug: CpuHotplugFacts;
  /** Absent where the machine has no DIMM slots. */
  readonly memoryHotplug?: { readonly base: number; readonly slots: number };
  readonly nvdimm: boolean;
  readonly pciHotplug: PciHotplugFacts;
  readonly rootBus: AcpiPciBus;
  /** Root buses of expander bridges, the last that came first. */
  readonly expanders?: readonly ExpanderFacts[];
  /** Where PCI devices below 4 GiB may lie. */
  readonly pciHole: AddressRange;
  /** Where 64-bit BARs may lie; absent where the firmware put none there. */
  readonly pciHole64?: AddressRange;
  /** The memory-mapped configuration space, once the firmware switched it on (q35). */
  readonly mcfg?: McfgFacts;
  readonly tpm?: TpmFacts;
  readonly gpe0: { readonly base: number; readonly length: number };
  readonly sleep: { readonly s3: boolean; readonly s4: boolean; readonly s4Value: number };
  readonly fwCfg: { readonly iobase: number; readonly dma: boolean };
}

/** `_STA`: present, enabled and working, not shown to users. */
const HIDDEN = 0xb;
const HPET_BASE = 0xfed0_0000;
const HPET_LENGTH = 0x400;
/** The longest period that the specification allows, in femtoseconds. */
const HPET_MAX_PERIOD = 100_000_000;
const LAST_BUS = 0xff;
const DEBUG_PORT = 0x402;
const SMI_PORT = 0xb2;

/** DBUG writes its argument to the firmware's debug port, in hexadecimal. */
function debugMethod(): Aml {
  const [characters, length, position] = [local(0), local(1), local(2)];
  return scope('\\', [
    region('DBG', 'systemIO', DEBUG_PORT, 1),
    field('DBG', { access: 'byte', update: 'preserve' }, [['DBGB', 8]]),
    method('DBUG', 1, [
      toHexString(arg(0), characters),
      toBuffer(characters, characters),
      subtract(sizeOf(characters), 1, length),
      store(0, position),
      whileLoop(lLess(position, length), [store(derefOf(index(characters, position)), 'DBGB'), increment(position)]),
      store(0x0a, 'DBGB'),
    ]),
  ]);
}

function i440fxHost(facts: DsdtFacts): Body {
  const { root, bridges, base } = facts.pciHotplug;
  return [
    scope('_SB', [device('PCI0', [name('_HID', eisaId('PNP0A03')), name('_ADR', 0), name('_UID', facts.rootUid)])]),
    (root || bridges) && hotplugController(base),
    scope('_SB', [
      scope('PCI0', [rotatingRoutes(true)]),
      linkStatusMethod(),
      linkSettingsMethod(true),
      ['A', 'B', 'C', 'D'].map((letter, number) => pirqLink(`LNK${letter}`, number, `PRQ${number}`)),
      sciLink('LNKS', 4, 9),
    ]),
  ];
}

function q35Host(facts: DsdtFacts): Body {
  const letters = ['A', 'B', 'C', 'D', 'E', 'F', 'G', 'H'];
  const { bridges, base } = facts.pciHotplug;
  return [
    scope('_SB', [
      device('PCI0', [
        name('_HID', eisaId('PNP0A08')),
        name('_CID', eisaId('PNP0A03')),
        name('_ADR', 0),
        name('_UID', facts.rootUid),
        hostBridgeOsc(!bridges),
      ]),
      facts.mcfg !== undefined && configurationSpace(facts.mcfg),
      facts.cpuHotplug.smi !== undefined && smiPorts(),
    ]),
    bridges && hotplugController(base),
    // Which interrupt controller the system uses: 0 is the PIC, 1 the IOAPIC (5.8.1).
    name('PICF', 0),
    method('_PIC', 1, [store(arg(0), 'PICF')]),
    scope('_SB', [
      scope('PCI0', [
        name('PRTP', ich9Routes('LNK')),
        name('PRTA', ich9Routes('GSI')),
        method('_PRT', 0, [when(lEqual('PICF', 0), [ret('PRTP')]), otherwise([ret('PRTA')])]),
      ]),
      linkStatusMethod(),
      linkSettingsMethod(false),
      letters.map((letter, number) => pirqLink(`LNK${letter}`, number, `PRQ${letter}`)),
      letters.map((letter, number) => gsiLink(`GSI${letter}`, 0x10 + number)),
    ]),
  ];
}

/** The DRAM controller claims the memory-mapped configuration space. */
function configurationSpace(space: McfgFacts): Aml {
  const attributes = { cacheable: false, write: 'readWrite' } as const;
  const last = space.base + space.size - 1;
  const memory = last >= 2 ** 32 ? qwordMemory : dwordMemory;
  return device('DRAC', [
    name('_HID', text('PNP0C01')),
    name('_CRS', resourceTemplate([memory(space.base, last, attributes)])),
  ]);
}

function smiPorts(): Aml {
  return device('PCI0.SMI0', [
    name('_HID', eisaId('PNP0A06')),
    name('_UID', text('SMI resources')),
    name('_CRS', resourceTemplate([io(SMI_PORT, 2)])),
    region('SMIR', 'systemIO', SMI_PORT, 2),
    field('SMIR', { access: 'byte', update: 'writeAsZeros' }, [
      ['SMIC', 8],
      ['', 8],
    ]),
  ]);
}

/** The HPET, present where its registers say something sensible. */
function hpetDevice(): Aml {
  const [id, period] = [local(0), local(1)];
  return device('HPET', [
    name('_HID', eisaId('PNP0103')),
    name('_UID', 0),
    region('HPTM', 'systemMemory', HPET_BASE, HPET_LENGTH),
    field('HPTM', { access: 'dword', update: 'preserve', lock: true }, [
      ['VEND', 32],
      ['PRD', 32],
    ]),
    method('_STA', 0, [
      store('VEND', id),
      store('PRD', period),
      shiftRight(id, 16, id),
      when(lOr(lEqual(id, 0), lEqual(id, 0xffff)), [ret(0)]),
      when(lOr(lEqual(period, 0), lGreater(period, HPET_MAX_PERIOD)), [ret(0)]),
      ret(0xf),
    ]),
    name('_CRS', resourceTemplate([memory32Fixed(HPET_BASE, HPET_LENGTH, 'readOnly')])),
  ]);
}

/** `_CRS` of the host bridge: what of the address spaces it passes on to its buses. */
function hostBridgeResources(facts: DsdtFacts): Aml {
  const { expanders = [] } = facts;
  const takenMemory = expanders.flatMap(({ windows }) => windows.memory);
  if (facts.mcfg !== undefined) takenMemory.push({ min: facts.mcfg.base, max: facts.mcfg.base + facts.mcfg.size - 1 });
  // CXL's own addresses begin behind all memory, and QEMU gives the bridge what is free up to there, of the first 4 GiB.
  const hole = hasCxl(expanders) ? { ...facts.pciHole, max: 0xffff_ffff } : facts.pciHole;
  const takenPorts = expanders.flatMap(({ windows }) => windows.io);
  const takenWide = expanders.flatMap(({ windows }) => windows.memory64);
  return resourceTemplate([
    wordBusNumber(0, Math.min(LAST_BUS, ...expanders.map(({ number }) => number - 1))),
    io(0xcf8, 8),
    wordIo(0, 0xcf7),
    ...freeRanges({ min: 0xd00, max: 0xffff }, takenPorts).map(({ min, max }) => wordIo(min, max)),
    dwordMemory(0xa_0000, 0xb_ffff, { cacheable: true, write: 'readWrite' }),
    ...freeRanges(hole, takenMemory).map(range =>
      dwordMemory(range.min, range.max, { cacheable: false, write: 'readWrite' }),
    ),
    ...(facts.pciHole64 === undefined
      ? []
      : freeRanges(facts.pciHole64, takenWide).map(({ min, max }) =>
          qwordMemory(min, max, { cacheable: true, write: 'readWrite' }),
        )),
    ...(facts.tpm === undefined ? [] : tpmWindow(facts.tpm)),
  ]);
}

function hasCxl(expanders: readonly ExpanderFacts[]): boolean {
  return expanders.some(({ link }) => link === 'cxl');
}

/** A device that only keeps ports from being given to others. */
function reservedPorts(path: string, purpose: string, base: number, length: number): Aml {
  return device(path, [
    name('_HID', text('PNP0A06')),
    name('_UID', text(purpose)),
    name('_STA', HIDDEN),
    name('_CRS', resourceTemplate([io(base, length)])),
  ]);
}

/** `_Sx` (7.4.2): the SLP_TYP values for PM1a and PM1b. */
function sleepState(path: string, type: number): Aml {
  return name(path, pkg([type, type, 0, 0]));
}

export function dsdt(facts: DsdtFacts): TableContent {
  const { pciHotplug } = facts;
  const anyHotplug = pciHotplug.root || pciHotplug.bridges;
  const body = block([
    debugMethod(),
    facts.chipset === 'q35' ? q35Host(facts) : i440fxHost(facts),
    facts.hasHpet && scope('_SB', [hpetDevice()]),
    scope('_GPE', [name('_HID', text('ACPI0006')), facts.nvdimm && method('_E04', 0, [notify('\\_SB.NVDR', 0x80)])]),
    cpuHotplug(facts.cpuHotplug),
    facts.memoryHotplug !== undefined &&
      facts.memoryHotplug.slots > 0 &&
      memoryHotplug(facts.memoryHotplug.base, facts.memoryHotplug.slots),
    (facts.expanders ?? []).map(expanderHost),
    hasCxl(facts.expanders ?? []) && cxlRoot(),
    scope('\\_SB.PCI0', [
      name('_CRS', hostBridgeResources(facts)),
      reservedPorts('GPE0', 'GPE0 resources', facts.gpe0.base, facts.gpe0.length),
      anyHotplug && reservedPorts('PHPR', 'PCI Hotplug resources', pciHotplug.base, pciHotplug.length),
    ]),
    scope('\\', [
      facts.sleep.s3 && sleepState('_S3', 1),
      facts.sleep.s4 && sleepState('_S4', facts.sleep.s4Value),
      sleepState('_S5', 0),
    ]),
    scope('\\_SB.PCI0', [fwCfg(facts.fwCfg)]),
    scope('\\_SB', [
      scope('PCI0', busObjects(facts.rootBus, pciHotplug.bridges)),
      // One with a FIFO is on the ISA bus.
      facts.tpm?.model === 'tpm-crb' && tpmDevice(facts.tpm),
    ]),
    anyHotplug && hotplugEvent(),
  ]);
  return { signature: 'DSDT', revision: 1, body };
}
