/** The ACPI tables of a microvm: hardware-reduced (ACPI 6.4, section 4.1), and the same for as long as the machine runs. */
import type { IsaBus } from '../../core/bus/isa.ts';
import type { AcpiOem } from '../../core/firmware/acpi-blob.ts';
import { type AcpiFiles, microvmAcpi } from '../../core/firmware/acpi-build.ts';
import { type AcpiIoApic, FADT_FLAGS, type FadtFacts, IAPC_8042 } from '../../core/firmware/acpi-tables.ts';
import type { PcieHostFacts } from '../../core/firmware/dsdt-microvm.ts';
import type { Machine } from '../../core/machine/machine.ts';
import type { VirtioMmio } from '../../core/virtio/virtio-mmio.ts';
import { GED_REGISTERS, GED_RESET_VALUE } from '../../devices/acpi-ged.ts';
import { IOAPIC_BASE, IOAPIC_PINS, IOAPIC2_BASE } from '../../devices/ioapic.ts';
import { isaBody, possibleCpus } from './acpi-description.ts';

const IO_APICS: readonly AcpiIoApic[] = [
  { id: 0, address: IOAPIC_BASE, gsiBase: 0 },
  { id: 1, address: IOAPIC2_BASE, gsiBase: IOAPIC_PINS },
];

export interface MicrovmAcpiParts {
  readonly machine: Machine;
  readonly oem: AcpiOem;
  readonly fwCfg: { readonly iobase: number; readonly dma: boolean };
  readonly isa: IsaBus;
  /** Its two register blocks and its interrupt. */
  readonly ged: { readonly events: number; readonly registers: number; readonly gsi: number };
  readonly virtio: readonly { readonly transport: VirtioMmio; readonly base: number; readonly gsi: number }[];
  /** A USB controller of the machine's own. */
  readonly xhci?: { readonly base: number; readonly gsi: number };
  readonly pcie?: PcieHostFacts;
  readonly ioApics: 1 | 2;
}

/** The tables of the machine as it is now. */
export function describeMicrovm(parts: MicrovmAcpiParts): AcpiFiles {
  const { machine, oem, ged, xhci, pcie } = parts;
  return microvmAcpi({
    oem,
    dsdt: {
      fwCfg: parts.fwCfg,
      isaDevices: isaBody(parts.isa),
      ged: { base: ged.events, gsi: ged.gsi },
      virtio: parts.virtio
        .map(({ transport, base, gsi }, index) => ({ index, base, gsi, used: transport.device !== undefined }))
        .filter(({ used }) => used)
        .reverse(),
      ...(xhci !== undefined && { xhci }),
      ...(pcie !== undefined && { pcie }),
    },
    fadt: fadtFacts(machine, ged.registers),
    madt: {
      cpus: possibleCpus(machine),
      ioApics: IO_APICS.slice(0, parts.ioApics),
      timerOnGsi2: false,
      pciIrqMask: pcie === undefined ? 0 : 0xf << pcie.gsi,
    },
  });
}

function fadtFacts(machine: Machine, registers: number): FadtFacts {
  const register = (offset: number) => ({ space: 'memory', bits: 8, address: registers + offset }) as const;
  const hasKeyboard = [...machine.devices()].some(device => device.type.type === 'i8042');
  return {
    revision: 5,
    flags: FADT_FLAGS.HW_REDUCED_ACPI | FADT_FLAGS.RESET_REG_SUP,
    iapcBootArch: hasKeyboard ? IAPC_8042 : 0,
    intModel: 0,
    sciInt: 0,
    lvl2Latency: 0,
    lvl3Latency: 0,
    century: 0,
    reset: { register: register(GED_REGISTERS.RESET), value: GED_RESET_VALUE },
    sleepControl: register(GED_REGISTERS.SLEEP_CONTROL),
    sleepStatus: register(GED_REGISTERS.SLEEP_STATUS),
  };
}
