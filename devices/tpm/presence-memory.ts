/**
 * Where operating system and firmware leave each other word about the TPM (TCG PC Client Physical Presence Interface
 * Specification 1.30; QEMU docs/specs/tpm): the ACPI tables write here, the firmware acts on it after the next reset.
 */
import { PPI_BASE, PPI_MOVV, PPI_SIZE } from '../../core/firmware/tpm.ts';
import type { AddressSpace } from '../../core/memory/address-space.ts';
import type { MemoryRegion } from '../../core/memory/memory-region.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import { smallMemory } from './small-memory.ts';

export { PPI_BASE };

export const presenceFields = { contents: field.bytes(PPI_SIZE) };

export class PresenceMemory {
  readonly region: MemoryRegion;
  readonly #state: StateValues<typeof presenceFields>;

  constructor(state: StateValues<typeof presenceFields>) {
    this.#state = state;
    this.region = smallMemory('tpm-ppi', PPI_SIZE, () => this.#state.contents);
  }

  /** Platform Reset Attack Mitigation Specification 1.10, section 4: where the system asked for it, no secret outlives a reset. */
  reset(memory: AddressSpace): void {
    if (((this.#state.contents[PPI_MOVV] ?? 0) & 1) === 0) return;
    for (const { start, end, offset, region, readonly } of memory.flat.ranges) {
      if (region.kind !== 'ram' || region.ram === undefined || readonly) continue;
      region.ram.bytes.fill(0, offset, offset + end - start);
      memory.ramWritten?.(start, end - start);
    }
  }
}
