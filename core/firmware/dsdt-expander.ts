/** AML of root buses beside PCI0: one host bridge each, whose resources are what firmware has given to its devices. */
import { type Aml, type Body, device, eisaId, name, scope } from './aml.ts';
import { dwordIo, dwordMemory, qwordMemory, resourceTemplate, wordBusNumber } from './aml-resources.ts';
import { cxlHost } from './dsdt-cxl.ts';
import { hostBridgeOsc, rotatingRoutes } from './dsdt-pci.ts';
import type { AddressRange } from './ranges.ts';

export interface ExpanderFacts {
  readonly number: number;
  /** Of the buses below it. */
  readonly lastBus: number;
  readonly link: 'pci' | 'express' | 'cxl';
  readonly numaNode?: number;
  /** What its devices have, in ascending order. */
  readonly windows: Readonly<Record<'io' | 'memory' | 'memory64', readonly AddressRange[]>>;
}

export function expanderHost({ number, lastBus, link, numaNode, windows }: ExpanderFacts): Aml {
  const attributes = { cacheable: false, write: 'readWrite' } as const;
  return scope('\\_SB', [
    device(`${link === 'cxl' ? 'CL' : 'PC'}${number.toString(16).toUpperCase().padStart(2, '0')}`, [
      name('_UID', number),
      name('_BBN', number),
      identity(number, link),
      numaNode !== undefined && name('_PXM', numaNode),
      rotatingRoutes(false),
      name(
        '_CRS',
        resourceTemplate([
          ...windows.io.map(({ min, max }) => dwordIo(min, max)),
          ...windows.memory.map(({ min, max }) => dwordMemory(min, max, attributes)),
          ...windows.memory64.map(({ min, max }) => qwordMemory(min, max, attributes)),
          wordBusNumber(number, lastBus),
        ]),
      ),
    ]),
  ]);
}

function identity(number: number, link: ExpanderFacts['link']): Body {
  if (link === 'cxl') return cxlHost(number);
  if (link === 'pci') return [name('_HID', eisaId('PNP0A03'))];
  // There is no ACPI hotplug behind expanders.
  return [name('_HID', eisaId('PNP0A08')), name('_CID', eisaId('PNP0A03')), hostBridgeOsc(true)];
}
