/** DMA remapping reporting (VT-d 3.4, chapter 8): where the remapping hardware is, and for whom it translates. */
import type { TableContent } from './acpi-blob.ts';
import { concat, u8, u16, u64 } from './aml.ts';

const STRUCTURE = { DRHD: 0, ATSR: 2 } as const;
const SCOPE = { ENDPOINT: 1, BRIDGE: 2, IO_APIC: 3 } as const;
const SCOPE_SIZE = 8;
const DRHD_SIZE = 16;
const ATSR_SIZE = 8;
const INTERRUPT_REMAPPING = 1;
const ALL_PORTS = 1;

export interface DmarFacts {
  /** Bits of an address. */
  readonly addressWidth: number;
  readonly interruptRemapping: boolean;
  /** Whether functions may keep translations of their own. */
  readonly deviceTlb: boolean;
  readonly base: number;
  readonly ioApic: { readonly id: number; readonly bus: number; readonly devfn: number };
  /** What is on the root buses. */
  readonly functions: readonly { readonly bus: number; readonly devfn: number; readonly bridge: boolean }[];
}

export function dmar(facts: DmarFacts): TableContent {
  const { ioApic, functions } = facts;
  const scopes = [
    scope(SCOPE.IO_APIC, ioApic.id, ioApic.bus, ioApic.devfn),
    ...functions.map(({ bus, devfn, bridge }) => scope(bridge ? SCOPE.BRIDGE : SCOPE.ENDPOINT, 0, bus, devfn)),
  ];
  const body = concat(
    concat(u8(facts.addressWidth - 1), u8(facts.interruptRemapping ? INTERRUPT_REMAPPING : 0), new Uint8Array(10)),
    // Flags, size of the register set, segment.
    concat(u16(STRUCTURE.DRHD), u16(DRHD_SIZE + SCOPE_SIZE * scopes.length), u8(0), u8(0), u16(0), u64(facts.base)),
    ...scopes,
    facts.deviceTlb ? concat(u16(STRUCTURE.ATSR), u16(ATSR_SIZE), u8(ALL_PORTS), u8(0), u16(0)) : [],
  );
  return { signature: 'DMAR', revision: 1, body };
}

function scope(type: number, id: number, bus: number, devfn: number): Uint8Array {
  return concat(u8(type), u8(SCOPE_SIZE), u16(0), u8(id), u8(bus), u8(devfn >> 3), u8(devfn & 7));
}
