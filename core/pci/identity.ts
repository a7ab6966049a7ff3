import { prop } from '../device/property.ts';
import type { IoOptions } from '../memory/memory-region.ts';
import type { RegisterMap } from '../register/register.ts';

/** Who a PCI function says it is (PCI 3.0, section 6.2.1), and the capabilities that the PCI layer provides for it. */
export interface PciIdentity {
  readonly vendor: number;
  readonly device: number;
  readonly revision?: number;
  /** Class code: base class, sub-class and programming interface, 24 bits. */
  readonly class: number;
  /** Default: 0x1af4 (Red Hat), as QEMU's. */
  readonly subsystemVendor?: number;
  /** Default: 0x1100 (QEMU). */
  readonly subsystem?: number;
  /** Interrupt pin; none where absent. */
  readonly pin?: 'A' | 'B' | 'C' | 'D';
  readonly msi?: MsiDeclaration;
  readonly msix?: MsixDeclaration;
  /** Plugs into PCI Express as well: gets a PCI Express capability there. */
  readonly express?: 'endpoint' | 'root-integrated' | 'legacy-endpoint';
  /**
   * Of its PCI Express capability: version 1 where it is an older part, where it is, and whether it comes after MSI's or is the
   * device's to add.
   */
  readonly expressCapability?: { readonly version: 1 | 2; readonly offset: number; readonly after?: 'msi' | 'device' };
  /** Belongs on PCI Express only: has its configuration space wherever it is put. */
  readonly expressOnly?: boolean;
  /** Gets a power management capability (PCI Power Management 1.2) at this offset; true for anywhere. */
  readonly powerManagement?: boolean | number;
  /** A type 1 header: a bridge. */
  readonly bridge?: boolean;
  /** File name of the option ROM that QEMU gives the device, found in the cache. */
  readonly rom?: string;
}

export interface MsiDeclaration {
  /** 1, 2, 4, 8, 16 or 32. */
  readonly vectors: number;
  /** 64-bit message addresses; default true. */
  readonly wide?: boolean;
  /** Per-vector masking; default false. */
  readonly maskable?: boolean;
  /** Offset of the capability in configuration space; anywhere by default. */
  readonly offset?: number;
}

export interface MsixDeclaration {
  /** 1 to 2048. */
  readonly vectors: number;
  readonly bar: number;
  /** Offset of the vector table in its BAR; default 0. */
  readonly table?: number;
  readonly pbaBar?: number;
  /** Offset of the pending bit array; default after the table. */
  readonly pba?: number;
  readonly offset?: number;
}

/** A base address register (PCI 3.0, section 6.2.5.1). */
export interface BarDeclaration {
  /** Bytes, a power of two; at least 4 for I/O and 16 for memory. */
  readonly size: number;
  readonly space?: 'memory' | 'io';
  /** Takes this and the next register; default false. */
  readonly wide?: boolean;
  readonly prefetchable?: boolean;
  /** The registers that it shows. Without one, the device says in code what is there. */
  readonly map?: RegisterMap;
  /** The access sizes that the registers of {@link map} take. */
  readonly access?: IoOptions;
}

/** The properties that every PCI device has. */
export const pciProperties = {
  addr: prop.pciAddress({ default: -1 }),
  multifunction: prop.bit({ default: false }),
  romfile: prop.string({ help: 'file with the option ROM; empty for none' }),
  romsize: prop.u32({ default: 0xffff_ffff }),
  rombar: prop.u32({ default: 1, help: 'whether the option ROM is in a BAR' }),
  'x-pcie-lnksta-dllla': prop.bit({ default: true }),
  'x-pcie-extcap-init': prop.bit({ default: true }),
  failover_pair_id: prop.string(),
  'acpi-index': prop.u32({ default: 0 }),
} as const;
