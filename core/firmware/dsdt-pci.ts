/** AML of a PCI host bridge: slots and their hotplug, interrupt links and routing. */
import {
  type Aml,
  acquire,
  add,
  and,
  arg,
  type Body,
  block,
  buffer,
  call,
  createDwordField,
  derefOf,
  device,
  eisaId,
  field,
  increment,
  index,
  lEqual,
  lLess,
  lNot,
  local,
  method,
  mutex,
  name,
  notify,
  or,
  otherwise,
  pkg,
  region,
  release,
  ret,
  scope,
  shiftLeft,
  shiftRight,
  store,
  text,
  uuid,
  when,
  whileLoop,
} from './aml.ts';
import { interrupt, resourceTemplate } from './aml-resources.ts';

/** A device as the DSDT describes it. */
export interface AcpiPciDevice {
  /** Device number times 8, plus the function. */
  readonly devfn: number;
  /** The type can be plugged and unplugged while the machine runs. */
  readonly hotpluggable: boolean;
  /** The bus behind a bridge. */
  readonly secondary?: AcpiPciBus;
  /** The device was itself plugged in while the machine ran. */
  readonly hotplugged?: boolean;
  /** What the device itself has to say, and then even as a function other than 0. */
  readonly aml?: Body;
}

export interface AcpiPciBus {
  /** The number by which the hotplug controller knows the bus; absent where nothing can be plugged through ACPI. */
  readonly bsel?: number;
  readonly express: boolean;
  readonly devices: readonly AcpiPciDevice[];
}

const SLOTS = 32;
const DEVICE_CHECK = 1;
const EJECT_REQUEST = 3;

function slotName(devfn: number): string {
  return `S${devfn.toString(16).toUpperCase().padStart(2, '0')}`;
}

// PCI Firmware Specification 3.1, 4.6: _DSM definitions for PCI

const PCI_DSM = 'e5c937d0-3553-4d7a-9117-ea4d19c3434d';
/** 4.6.7: the name of a device under operating systems. */
const DSM_LABEL = 7;
const NO_ACPI_INDEX_REGISTER = 0xffff_ffff;

/** `_DSM` of a slot hands the slot's place to PDSM, which all of them share. */
function slotDsm(): Aml {
  return method(
    '_DSM',
    4,
    [store(pkg(['BSEL', 'ASUN']), local(0)), ret(call('PDSM', arg(0), arg(1), arg(2), arg(3), local(0)))],
    'serialized',
  );
}

function sharedDsm(): Aml {
  const [dsmUuid, revision, dsmFunction, place] = [arg(0), arg(1), arg(2), arg(4)];
  const [result, supported, acpiIndex] = [local(0), local(1), local(2)];
  const readIndex = store(call('AIDX', derefOf(index(place, 0)), derefOf(index(place, 1))), acpiIndex);
  return method(
    'PDSM',
    5,
    [
      when(lEqual(dsmFunction, 0), [
        store(buffer([0]), result),
        store(0, supported),
        when(lNot(lEqual(dsmUuid, uuid(PCI_DSM))), [ret(result)]),
        when(lLess(revision, 2), [ret(result)]),
        readIndex,
        when(lNot(or(lEqual(acpiIndex, 0), lEqual(acpiIndex, NO_ACPI_INDEX_REGISTER))), [
          or(supported, 1, supported),
          or(supported, shiftLeft(1, DSM_LABEL), supported),
        ]),
        store(supported, index(result, 0)),
        ret(result),
      ]),
      when(lEqual(dsmFunction, DSM_LABEL), [
        store(pkg([0, text('')]), result),
        readIndex,
        store(acpiIndex, index(result, 0)),
        ret(result),
      ]),
    ],
    'serialized',
  );
}

/** The hotplug controller at `base` in I/O space: pending events (PCIU, PCID), eject (B0EJ), bus select (BNUM). */
export function hotplugController(base: number): Aml {
  const registers = { access: 'dword', update: 'writeAsZeros' } as const;
  return scope('_SB.PCI0', [
    region('PCST', 'systemIO', base, 8),
    field('PCST', registers, [
      ['PCIU', 32],
      ['PCID', 32],
    ]),
    region('SEJ', 'systemIO', base + 8, 4),
    field('SEJ', registers, [['B0EJ', 32]]),
    region('BNMR', 'systemIO', base + 0x10, 8),
    field('BNMR', registers, [
      ['BNUM', 32],
      ['PIDX', 32],
    ]),
    mutex('BLCK'),
    method('PCEJ', 2, [
      acquire('BLCK'),
      store(arg(0), 'BNUM'),
      store(shiftLeft(1, arg(1)), 'B0EJ'),
      release('BLCK'),
      ret(0),
    ]),
    method('AIDX', 2, [
      acquire('BLCK'),
      store(arg(0), 'BNUM'),
      store(shiftLeft(1, arg(1)), 'PIDX'),
      store('PIDX', local(0)),
      release('BLCK'),
      ret(local(0)),
    ]),
    sharedDsm(),
  ]);
}

/** GPE 1: a slot has something to say. */
export function hotplugEvent(): Aml {
  return scope('_GPE', [
    method('_E01', 0, [acquire('\\_SB.PCI0.BLCK'), call('\\_SB.PCI0.PCNT'), release('\\_SB.PCI0.BLCK')]),
  ]);
}

/** A device or an empty slot; undefined where the DSDT says nothing of the function. */
function slotObject(
  bus: AcpiPciBus,
  devfn: number,
  present: AcpiPciDevice | undefined,
  describeBridges: boolean,
): { readonly aml: Aml; readonly ejectable: boolean } | undefined {
  const slot = devfn >>> 3;
  const hotplugBus = bus.bsel !== undefined;
  const coldBridge = present?.secondary !== undefined && present.hotplugged !== true;
  const described = coldBridge && describeBridges ? present.secondary : undefined;
  if (present === undefined && !(hotplugBus && devfn % 8 === 0)) return undefined;
  if (present !== undefined && devfn % 8 !== 0 && described === undefined && present.aml === undefined)
    return undefined;

  const ejectable = hotplugBus && (present === undefined || (present.hotpluggable && !coldBridge));
  const aml = device(slotName(devfn), [
    name('_ADR', slot * 0x1_0000 + (devfn % 8)),
    // Not _SUN, which changes the order in which Linux counts slots.
    hotplugBus && [name('ASUN', slot), slotDsm()],
    present?.aml,
    described !== undefined && busObjects(described, describeBridges),
    ejectable && [name('_SUN', slot), method('_EJ0', 1, [call('PCEJ', 'BSEL', '_SUN')])],
  ]);
  return { aml, ejectable };
}

/**
 * What stands in the scope of a bus: its slots, DVNT that notifies them, and PCNT that looks for events on it and below.
 *
 * @param describeBridges whether hotplug reaches the buses behind bridges that were there at power-on
 */
export function busObjects(bus: AcpiPciBus, describeBridges: boolean): Body {
  const byDevfn = new Map(bus.devices.map(present => [present.devfn, present]));
  const slots: Aml[] = [];
  const notifications: Aml[] = [];
  for (let devfn = 0; devfn < SLOTS * 8; devfn++) {
    const present = byDevfn.get(devfn);
    // An express bus has one slot, so that an empty one ends the search.
    if (present === undefined && bus.express && bus.bsel !== undefined && devfn % 8 === 0 && devfn > 0) break;
    const slot = slotObject(bus, devfn, present, describeBridges);
    if (slot === undefined) continue;
    slots.push(slot.aml);
    if (slot.ejectable) {
      notifications.push(when(and(arg(0), 2 ** (devfn >>> 3)), [notify(slotName(devfn), arg(1))]));
    }
  }
  const bridges = bus.devices.filter(present => present.secondary !== undefined).reverse();
  return [
    bus.bsel !== undefined && name('BSEL', bus.bsel),
    slots,
    bus.bsel !== undefined && method('DVNT', 2, notifications),
    (bus.bsel !== undefined || describeBridges) &&
      method('PCNT', 0, [
        bus.bsel !== undefined && [
          store(bus.bsel, 'BNUM'),
          call('DVNT', 'PCIU', DEVICE_CHECK),
          call('DVNT', 'PCID', EJECT_REQUEST),
        ],
        describeBridges && bridges.map(bridge => call(`^${slotName(bridge.devfn)}.PCNT`)),
      ]),
  ];
}

// Interrupt links (6.2.13) and routing

const LINK_IRQS = [5, 10, 11];
const LINK_DISABLED = 0x80;
/** Offset of the interrupt number in a template of one Interrupt descriptor. */
const INTERRUPT_NUMBER = 5;

/** IQST, which tells from a routing register whether the link is in use. */
export function linkStatusMethod(): Aml {
  return method('IQST', 1, [when(and(LINK_DISABLED, arg(0)), [ret(0x9)]), ret(0xb)]);
}

/** IQCR, which makes a resource template of a routing register. */
export function linkSettingsMethod(disabledIsZero: boolean): Aml {
  return method(
    'IQCR',
    1,
    [
      name('PRR0', resourceTemplate([interrupt([0])])),
      createDwordField('PRR0', INTERRUPT_NUMBER, 'PRRI'),
      disabledIsZero ? when(lLess(arg(0), LINK_DISABLED), [store(arg(0), 'PRRI')]) : store(and(arg(0), 0xf), 'PRRI'),
      ret('PRR0'),
    ],
    'serialized',
  );
}

/** A link that a PIRQ routing register of the chipset steers. */
export function pirqLink(path: string, uid: number, register: string): Aml {
  return device(path, [
    name('_HID', eisaId('PNP0C0F')),
    name('_UID', uid),
    name('_PRS', resourceTemplate([interrupt(LINK_IRQS)])),
    method('_STA', 0, [ret(call('IQST', register))]),
    method('_DIS', 0, [or(register, LINK_DISABLED, register)]),
    method('_CRS', 0, [ret(call('IQCR', register))]),
    method('_SRS', 1, [createDwordField(arg(0), INTERRUPT_NUMBER, 'PRRI'), store('PRRI', register)]),
  ]);
}

/** A link that is wired to one IOAPIC input. */
export function gsiLink(path: string, gsi: number): Aml {
  const resources = resourceTemplate([interrupt([gsi])]);
  return device(path, [
    name('_HID', eisaId('PNP0C0F')),
    name('_UID', gsi),
    name('_PRS', resources),
    name('_CRS', resources),
    method('_DIS', 0, []),
    method('_SRS', 1, []),
  ]);
}

/** PIIX4's SCI: a link so that its polarity agrees with the MADT; it cannot be moved. */
export function sciLink(path: string, uid: number, gsi: number): Aml {
  return device(path, [
    name('_HID', eisaId('PNP0C0F')),
    name('_UID', uid),
    name('_PRS', resourceTemplate([interrupt([gsi])])),
    method('_STA', 0, [ret(0xb)]),
    method('_DIS', 0, []),
    method('_CRS', 0, [ret('_PRS')]),
    method('_SRS', 1, []),
  ]);
}

/**
 * `_PRT` as a method: pin p of device d goes to link (d + p) & 3 of D, A, B, C, computed so that the table stays small.
 *
 * @param sciDevice the power-management device's first pin is the SCI's own link (PIIX4 in slot 1)
 */
export function rotatingRoutes(sciDevice: boolean): Aml {
  const [routes, pin, slot, link, route] = [local(0), local(1), local(2), local(3), local(4)];
  const through = (target: string): Aml => store(pkg([0, 0, target, 0]), route);
  return method('_PRT', 0, [
    store(pkg([], SLOTS * 4), routes),
    store(0, pin),
    whileLoop(lLess(pin, SLOTS * 4), [
      store(shiftRight(pin, 2), slot),
      store(and(add(pin, slot), 3), link),
      when(lEqual(link, 0), [through('LNKD')]),
      when(
        lEqual(link, 1),
        sciDevice ? [when(lEqual(pin, 4), [through('LNKS')]), otherwise([through('LNKA')])] : [through('LNKA')],
      ),
      when(lEqual(link, 2), [through('LNKB')]),
      when(lEqual(link, 3), [through('LNKC')]),
      store(or(shiftLeft(slot, 16), 0xffff), index(route, 0)),
      store(and(pin, 3), index(route, 1)),
      store(route, index(routes, pin)),
      increment(pin),
    ]),
    ret(routes),
  ]);
}

/** ICH9's routing table through links `LNKx` or `GSIx`: slots 0 to 24 and 30 to E-H by turns, 25 to 29 and 31 to A-D. */
export function ich9Routes(links: 'LNK' | 'GSI'): Aml {
  const entries: Aml[] = [];
  for (let slot = 0; slot < SLOTS; slot++) {
    const group = slot < 0x19 || slot === 0x1e ? 'EFGH' : 'ABCD';
    const first = slot < 0x18 ? slot & 3 : 0;
    for (let pin = 0; pin < 4; pin++) {
      entries.push(pkg([slot * 0x1_0000 + 0xffff, pin, `${links}${group.charAt((first + pin) & 3)}`, 0]));
    }
  }
  return pkg(entries);
}

export const PCI_HOST_OSC = '33db4d5b-1ff7-401c-9657-7441c03dd766';
/** PCI Firmware Specification 3.1, table 4-5: SHPC hotplug, PME, AER and the capability structure. */
const OSC_CONTROL = 0x1e;
const OSC_NATIVE_HOTPLUG = 0x01;

/** `_OSC` of a PCI Express host bridge (6.2.11.3). */
export function hostBridgeOsc(nativeHotplug: boolean): Aml {
  const granted = local(0);
  return method('_OSC', 4, [
    createDwordField(arg(3), 0, 'CDW1'),
    when(lEqual(arg(0), uuid(PCI_HOST_OSC)), [
      createDwordField(arg(3), 4, 'CDW2'),
      createDwordField(arg(3), 8, 'CDW3'),
      store('CDW3', granted),
      and(granted, OSC_CONTROL | (nativeHotplug ? OSC_NATIVE_HOTPLUG : 0), granted),
      when(lNot(lEqual(arg(1), 1)), [or('CDW1', 0x08, 'CDW1')]),
      when(lNot(lEqual('CDW3', granted)), [or('CDW1', 0x10, 'CDW1')]),
      store(granted, 'CDW3'),
    ]),
    otherwise([or('CDW1', 0x04, 'CDW1')]),
    ret(arg(3)),
  ]);
}

/** What a VGA function says of its sleep states: powered in all of them, or in `d3` in S3. */
export function vgaSleepStates(s3State: 0 | 3 = 0): Body {
  return [block([method('_S1D', 0, [ret(0)]), method('_S2D', 0, [ret(0)]), method('_S3D', 0, [ret(s3State)])])];
}

/** PIIX3's PIRQ routing registers and the ISA devices behind the bridge. */
export function piix3Bridge(isaDevices: Body): Body {
  return [
    region('P40C', 'pciConfig', 0x60, 4),
    scope('\\_SB', [
      field('PCI0.S08.P40C', { access: 'byte', update: 'preserve' }, [
        ['PRQ0', 8],
        ['PRQ1', 8],
        ['PRQ2', 8],
        ['PRQ3', 8],
      ]),
    ]),
    isaDevices,
  ];
}

/** ICH9's PIRQ routing registers and the ISA devices behind the LPC bridge. */
export function ich9Bridge(isaDevices: Body): Body {
  return [
    region('PIRQ', 'pciConfig', 0x60, 0xc),
    scope('\\_SB', [
      field('PCI0.SF8.PIRQ', { access: 'byte', update: 'preserve' }, [
        ['PRQA', 8],
        ['PRQB', 8],
        ['PRQC', 8],
        ['PRQD', 8],
        ['', 32],
        ['PRQE', 8],
        ['PRQF', 8],
        ['PRQG', 8],
        ['PRQH', 8],
      ]),
    ]),
    isaDevices,
  ];
}
