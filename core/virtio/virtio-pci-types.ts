import { type DeviceCategory, type DeviceContext, type DeviceType, deviceType } from '../device/device-type.ts';
import type { PropSet } from '../device/property.ts';
import { MODERN_DEVICE_BASE, VirtioPci, type VirtioPciKind, virtioPciProperties } from './virtio-pci.ts';

type Properties = typeof virtioPciProperties;

/** What there is to say of the PCI functions of one kind of device. */
export interface VirtioPciDefinition extends Omit<VirtioPciKind, 'flavour'> {
  /** The name without `-pci`: `virtio-blk`. */
  readonly name: string;
  readonly summary: string;
  /** Other names of the generic type. */
  readonly aliases?: readonly string[];
  readonly category: DeviceCategory;
  /** Properties of the function that other kinds have not, or have otherwise. */
  readonly properties?: PropSet;
}

const ANCESTORS = ['virtio-pci', 'pci-device', 'device'];

/** The three types of a kind: `NAME-pci`, whose modes properties choose, `NAME-pci-transitional` and `NAME-pci-non-transitional`. */
export function virtioPciTypes(
  definition: VirtioPciDefinition & { readonly legacyId: number },
): readonly [DeviceType, DeviceType, DeviceType] {
  return [
    functionType(definition, 'generic'),
    functionType(definition, 'transitional'),
    functionType(definition, 'non-transitional'),
  ];
}

/** The one type, `NAME-pci`, of a kind that came with version 1: there is nothing to be transitional to. */
export function virtioPciType(definition: Omit<VirtioPciDefinition, 'legacyId'>): DeviceType {
  return functionType(definition, 'generic');
}

function functionType(definition: VirtioPciDefinition, flavour: VirtioPciKind['flavour']): DeviceType {
  const { name, summary, category, backend, legacyId, virtioId } = definition;
  const { 'disable-legacy': _legacy, 'disable-modern': _modern, ...fixed } = virtioPciProperties;
  const kind: VirtioPciKind = { ...definition, flavour };
  class VirtioFunction extends VirtioPci {
    constructor(context: DeviceContext<Properties>) {
      super(context, kind);
    }
  }
  const own = flavour === 'generic' ? virtioPciProperties : fixed;
  return deviceType({
    type: flavour === 'generic' ? `${name}-pci` : `${name}-pci-${flavour}`,
    // On the command line of a PC the name alone means the PCI function.
    aliases: flavour === 'generic' ? [name] : [],
    summary,
    ...(flavour === 'generic' && definition.aliases !== undefined && { aliases: definition.aliases }),
    category,
    parents: [`${name}-pci-base`, ...ANCESTORS],
    properties: { ...backend.properties, ...own, ...definition.properties } as Properties,
    pci: { vendor: 0x1af4, device: legacyId ?? MODERN_DEVICE_BASE + virtioId, class: definition.class, pin: 'A' },
    create: VirtioFunction,
  });
}
