import { type DeviceCategory, type DeviceContext, type DeviceType, deviceType } from '../device/device-type.ts';
import type { PropSet } from '../device/property.ts';
import { VirtioPci, type VirtioPciKind, virtioPciProperties } from './virtio-pci.ts';

/** What there is to say of the PCI functions of one kind of device. */
export interface VirtioPciDefinition extends Omit<VirtioPciKind, 'flavour'> {
  /** The name without `-pci`: `virtio-blk`. */
  readonly name: string;
  readonly summary: string;
  readonly category: DeviceCategory;
  /** Defaults or properties that this kind's function has beside the common ones. */
  readonly properties?: PropSet;
}

const FLAVOURS = ['generic', 'transitional', 'non-transitional'] as const;
const ANCESTORS = ['virtio-pci', 'pci-device', 'device'];

/** The three types of a kind: `NAME-pci`, whose modes properties choose, `NAME-pci-transitional` and `NAME-pci-non-transitional`. */
export function virtioPciTypes(definition: VirtioPciDefinition): readonly DeviceType[] {
  const { name, summary, category, backend, legacyId } = definition;
  const { 'disable-legacy': _legacy, 'disable-modern': _modern, ...fixed } = virtioPciProperties;
  return FLAVOURS.filter(flavour => flavour !== 'transitional' || legacyId !== undefined).map(flavour => {
    const kind: VirtioPciKind = { ...definition, flavour };
    class VirtioFunction extends VirtioPci {
      constructor(context: DeviceContext<typeof virtioPciProperties>) {
        super(context, kind);
      }
    }
    const own = flavour === 'generic' ? virtioPciProperties : fixed;
    return deviceType({
      type: flavour === 'generic' ? `${name}-pci` : `${name}-pci-${flavour}`,
      summary,
      category,
      parents: [`${name}-pci-base`, ...ANCESTORS],
      properties: { ...backend.properties, ...own, ...definition.properties } as typeof virtioPciProperties,
      pci: { vendor: 0x1af4, device: legacyId ?? 0x1040 + definition.virtioId, class: definition.class, pin: 'A' },
      create: VirtioFunction,
    });
  });
}
