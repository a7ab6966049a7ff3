/** The DSDT of a hardware-reduced machine (ACPI 6.4 section 4.1): everything is in memory, events come from a GED. */
import { rotatedPin } from '../pci/intx.ts';
import type { TableContent } from './acpi-blob.ts';
import type { McfgFacts } from './acpi-tables.ts';
import {
  type Aml,
  and,
  arg,
  type Body,
  block,
  buffer,
  createDwordField,
  device,
  eisaId,
  field,
  lEqual,
  lNot,
  local,
  method,
  name,
  notify,
  or,
  otherwise,
  pkg,
  region,
  ret,
  scope,
  store,
  text,
  unicode,
  uuid,
  varPackage,
  when,
} from './aml.ts';
import {
  dwordMemory,
  interrupt,
  memory32Fixed,
  qwordMemory,
  resourceTemplate,
  wordBusNumber,
} from './aml-resources.ts';
import { fwCfg } from './dsdt-isa.ts';
import type { AddressRange } from './ranges.ts';

export interface VirtioMmioFacts {
  readonly index: number;
  readonly base: number;
  readonly gsi: number;
}

export interface PcieHostFacts {
  /** The configuration space. */
  readonly ecam: McfgFacts;
  readonly mmio32: AddressRange;
  readonly mmio64: AddressRange;
  /** GSI of the first of four interrupts. */
  readonly gsi: number;
}

export interface MicrovmDsdtFacts {
  readonly fwCfg: { readonly iobase: number; readonly dma: boolean };
  readonly isaDevices: Body;
  /** Generic Event Device: its event register and interrupt. */
  readonly ged: { readonly base: number; readonly gsi: number };
  readonly virtio: readonly VirtioMmioFacts[];
  readonly xhci?: { readonly base: number; readonly gsi: number };
  readonly pcie?: PcieHostFacts;
}

const VIRTIO_MMIO_SIZE = 0x200;
const XHCI_SIZE = 0x4000;
const POWER_BUTTON_EVENT = 1 << 1;
/** What SLEEP_CONTROL_REG takes for S5. */
const SLP_TYP_S5 = 5;
const SLOTS = 32;
const PINS = 4;
const PCI_HOST_OSC = '33db4d5b-1ff7-401c-9657-7441c03dd766';
const PCI_DSM = 'e5c937d0-3553-4d7a-9117-ea4d19c3434d';
/** Native hotplug, SHPC, PME, AER and the capability structure. */
const OSC_ALL = 0x1f;
const UNCACHED = { cacheable: false, write: 'readWrite' } as const;

/** Generic Event Device (5.6.9.3). */
function eventDevice(facts: MicrovmDsdtFacts['ged']): Aml {
  const events = local(0);
  return device('GED', [
    name('_HID', text('ACPI0013')),
    name('_UID', text('GED')),
    name('_CRS', resourceTemplate([interrupt([facts.gsi], { edge: true, exclusive: true })])),
    region('EREG', 'systemMemory', facts.base, 4),
    field('EREG', { access: 'dword', update: 'writeAsZeros' }, [['ESEL', 32]]),
    method(
      '_EVT',
      1,
      [
        store('ESEL', events),
        when(lEqual(and(events, POWER_BUTTON_EVENT), POWER_BUTTON_EVENT), [notify('PWRB', 0x80)]),
      ],
      'serialized',
    ),
  ]);
}

function virtioMmio(facts: VirtioMmioFacts): Aml {
  return device(`VR${String(facts.index).padStart(2, '0')}`, [
    name('_HID', text('LNRO0005')),
    name('_UID', facts.index),
    name('_CCA', 1),
    name(
      '_CRS',
      resourceTemplate([
        memory32Fixed(facts.base, VIRTIO_MMIO_SIZE, 'readWrite'),
        interrupt([facts.gsi], { exclusive: true }),
      ]),
    ),
  ]);
}

function xhci(facts: { readonly base: number; readonly gsi: number }): Aml {
  return device('XHCI', [
    name('_HID', eisaId('PNP0D10')),
    name(
      '_CRS',
      resourceTemplate([
        memory32Fixed(facts.base, XHCI_SIZE, 'readWrite'),
        interrupt([facts.gsi], { exclusive: true }),
      ]),
    ),
  ]);
}

function gsiLink(number: number, firstGsi: number): Aml {
  const resources = resourceTemplate([interrupt([firstGsi + number], { exclusive: true })]);
  return device(`GSI${number}`, [
    name('_HID', text('PNP0C0F')),
    name('_UID', number),
    name('_PRS', resources),
    name('_CRS', resources),
    method('_SRS', 1, []),
  ]);
}

function routes(): Aml {
  const entries: Aml[] = [];
  for (let slot = 0; slot < SLOTS; slot++) {
    for (let pin = 0; pin < PINS; pin++) {
      entries.push(pkg([slot * 0x1_0000 + 0xffff, pin, `GSI${rotatedPin(8 * slot, pin)}`, 0]));
    }
  }
  return varPackage(entries);
}

/** The generic PCI Express host: all control goes to the system. */
function pcieHost(facts: PcieHostFacts): Aml {
  const buses = facts.ecam.size / 2 ** 20;
  const { mmio32, mmio64, ecam } = facts;
  return device('PCI0', [
    name('_HID', text('PNP0A08')),
    name('_CID', text('PNP0A03')),
    name('_SEG', 0),
    name('_BBN', 0),
    name('_UID', 0),
    name('_STR', unicode('PCIe 0 Device')),
    name('_CCA', 1),
    name('_PRT', routes()),
    Array.from({ length: PINS }, (_, number) => gsiLink(number, facts.gsi)),
    method('_CBA', 0, [ret(ecam.base)]),
    name(
      '_CRS',
      resourceTemplate([
        wordBusNumber(0, buses - 1),
        dwordMemory(mmio32.min, mmio32.max, UNCACHED),
        qwordMemory(mmio64.min, mmio64.max, UNCACHED),
      ]),
    ),
    name('SUPP', 0),
    name('CTRL', 0),
    method('_OSC', 4, [
      createDwordField(arg(3), 0, 'CDW1'),
      when(lEqual(arg(0), uuid(PCI_HOST_OSC)), [
        createDwordField(arg(3), 4, 'CDW2'),
        createDwordField(arg(3), 8, 'CDW3'),
        store('CDW2', 'SUPP'),
        store('CDW3', 'CTRL'),
        and('CTRL', OSC_ALL, 'CTRL'),
        when(lNot(lEqual(arg(1), 1)), [or('CDW1', 0x08, 'CDW1')]),
        when(lNot(lEqual('CDW3', 'CTRL')), [or('CDW1', 0x10, 'CDW1')]),
        store('CTRL', 'CDW3'),
        ret(arg(3)),
      ]),
      otherwise([or('CDW1', 0x04, 'CDW1'), ret(arg(3))]),
    ]),
    method('_DSM', 4, [
      when(lEqual(arg(0), uuid(PCI_DSM)), [when(lEqual(arg(2), 0), [ret(buffer([1]))])]),
      ret(buffer([0])),
    ]),
    device('RES0', [
      name('_HID', text('PNP0C02')),
      name('_CRS', resourceTemplate([qwordMemory(ecam.base, ecam.base + ecam.size - 1, UNCACHED)])),
    ]),
  ]);
}

export function microvmDsdt(facts: MicrovmDsdtFacts): TableContent {
  const body = block([
    scope('_SB', [
      fwCfg(facts.fwCfg),
      facts.isaDevices,
      eventDevice(facts.ged),
      device('PWRB', [name('_HID', text('PNP0C0C')), name('_UID', 0)]),
      facts.virtio.map(virtioMmio),
      facts.xhci !== undefined && xhci(facts.xhci),
      facts.pcie !== undefined && pcieHost(facts.pcie),
    ]),
    scope('\\', [name('_S5', pkg([SLP_TYP_S5, 0, 0, 0]))]),
  ]);
  return { signature: 'DSDT', revision: 2, body };
}
