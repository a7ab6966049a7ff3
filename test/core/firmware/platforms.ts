/** Machines as the table builders see them: QEMU's defaults with 128 MiB and one CPU, and variations. */

import type { FadtFacts, GenericAddress } from '../../../core/firmware/acpi-tables.ts';
import type { Body } from '../../../core/firmware/aml.ts';
import type { DsdtFacts } from '../../../core/firmware/dsdt.ts';
import {
  floppyController,
  keyboardAndMouse,
  parallelPort,
  realTimeClock,
  serialPort,
} from '../../../core/firmware/dsdt-isa.ts';
import {
  type AcpiPciBus,
  type AcpiPciDevice,
  ich9Bridge,
  piix3Bridge,
  vgaSleepStates,
} from '../../../core/firmware/dsdt-pci.ts';

export const MIB = 2 ** 20;
export const GIB = 2 ** 30;

const keyboard = keyboardAndMouse({ kbdIrq: 1, mouseIrq: 12 });
const lpt1 = parallelPort({ index: 0, iobase: 0x378, irq: 7 });
const com1 = serialPort({ index: 0, iobase: 0x3f8, irq: 4 });
const rtc = realTimeClock({ iobase: 0x70, irq: 8 });
const floppy = floppyController({ iobase: 0x3f0, irq: 6, dma: 2, drives: ['288', undefined] });

const common = {
  rootUid: 0,
  hasHpet: true,
  nvdimm: false,
  sleep: { s3: true, s4: true, s4Value: 2 },
  fwCfg: { iobase: 0x510, dma: true },
} as const;

export const emptyBus = (bsel: number, express = false): AcpiPciBus => ({ bsel, express, devices: [] });

/** Everything the pc machine always has on its root bus, and then `more`. */
export function pcBus(bsel: number | undefined, more: readonly AcpiPciDevice[] = [], isa: Body = []): AcpiPciBus {
  return {
    ...(bsel === undefined ? {} : { bsel }),
    express: false,
    devices: [
      { devfn: 0x00, hotpluggable: false },
      { devfn: 0x08, hotpluggable: false, aml: piix3Bridge([isa, keyboard, floppy, lpt1, com1, rtc]) },
      { devfn: 0x09, hotpluggable: false },
      { devfn: 0x0b, hotpluggable: false },
      { devfn: 0x10, hotpluggable: false, aml: vgaSleepStates() },
      ...more,
    ],
  };
}

export function pc(changes: Partial<DsdtFacts> = {}): DsdtFacts {
  return {
    ...common,
    chipset: 'i440fx',
    cpuHotplug: { cpus: [{ apicId: 0, present: true }], base: 0xaf00 },
    pciHotplug: { base: 0xae00, length: 0x18, root: true, bridges: true },
    rootBus: pcBus(0),
    pciHole: { min: 128 * MIB, max: 0xfebf_ffff },
    pciHole64: { min: 4 * GIB, max: 6 * GIB - 1 },
    gpe0: { base: 0xafe0, length: 4 },
    ...changes,
  };
}

export function q35Bus(more: readonly AcpiPciDevice[] = [], isa: Body = []): AcpiPciBus {
  return {
    express: true,
    devices: [
      { devfn: 0x00, hotpluggable: false },
      { devfn: 0x08, hotpluggable: true, aml: vgaSleepStates() },
      { devfn: 0xf8, hotpluggable: false, aml: ich9Bridge([isa, keyboard, lpt1, com1, rtc]) },
      { devfn: 0xfa, hotpluggable: false },
      { devfn: 0xfb, hotpluggable: false, aml: [] },
      ...more,
    ],
  };
}

export function q35(changes: Partial<DsdtFacts> = {}): DsdtFacts {
  return {
    ...common,
    chipset: 'q35',
    cpuHotplug: { cpus: [{ apicId: 0, present: true }], base: 0xcd8 },
    pciHotplug: { base: 0xcc0, length: 0x18, root: false, bridges: true },
    rootBus: q35Bus(),
    pciHole: { min: 128 * MIB, max: 0xfebf_ffff },
    pciHole64: { min: 4 * GIB, max: 36 * GIB - 1 },
    mcfg: { base: 0xb000_0000, size: 256 * MIB },
    gpe0: { base: 0x620, length: 0x10 },
    ...changes,
  };
}

export const pcFadt: FadtFacts = {
  revision: 1,
  flags: 0x80a5,
  iapcBootArch: 2,
  intModel: 1,
  sciInt: 9,
  smi: { port: 0xb2, enable: 0xf1, disable: 0xf0 },
  pm: { base: 0x600, gpe0: 0xafe0, gpe0Length: 4 },
  lvl2Latency: 0xfff,
  lvl3Latency: 0xfff,
  century: 0x32,
};

export const q35Fadt: FadtFacts = {
  ...pcFadt,
  revision: 3,
  flags: 0x84a5,
  smi: { port: 0xb2, enable: 2, disable: 3 },
  pm: { base: 0x600, gpe0: 0x620, gpe0Length: 16 },
  reset: { register: { space: 'io', bits: 8, address: 0xcf9 }, value: 0xf },
};

const gedRegister = (offset: number): GenericAddress => ({ space: 'memory', bits: 8, address: 0xfea0_0200 + offset });

export const microvmFadt: FadtFacts = {
  revision: 5,
  flags: (1 << 20) | (1 << 10),
  iapcBootArch: 0,
  intModel: 0,
  sciInt: 0,
  lvl2Latency: 0,
  lvl3Latency: 0,
  century: 0,
  reset: { register: gedRegister(2), value: 0x42 },
  sleepControl: gedRegister(0),
  sleepStatus: gedRegister(1),
};
