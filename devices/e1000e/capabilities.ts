import { CFG, type ConfigSpace, EXPRESS_CONFIG_SIZE } from '../../core/pci/config-space.ts';

/** Where the 82574 has its power management capability (82574 datasheet, section 9.1). */
const POWER_MANAGEMENT = 0xc8;
/** Version 1.1, and device-specific initialisation. */
const PMC = 0x0022;
const PMCSR = 4;
const PMCSR_WRITABLE = 0x1f03;
/** Advanced error reporting (PCI Express 3.0, section 7.10), version 2. */
const AER = { ID: 0x0001, VERSION: 2, AT: 0x100 } as const;
const UNCORRECTABLE = { STATUS: 0x04, SEVERITY: 0x0c, SUPPORTED: 0x03ff_f030, FATAL: 0x0046_2030 } as const;
const CORRECTABLE = { STATUS: 0x10, MASK: 0x14, SUPPORTED: 0xf1c1, MASKED: 0xe000 } as const;
/** ECRC may be made and checked; headers of several errors are not recorded, which version 1.1 parts do not know of. */
const AER_CONTROL = { AT: 0x18, CAPABLE: 0x00a0, WRITABLE: 0x0140 } as const;
/** The device serial number. */
const SERIAL_AT = 0x140;

/** What the 82574 says of itself in configuration space beyond what every function has. */
export function addCapabilities(
  config: ConfigSpace,
  mac: Uint8Array,
  subsystem: { readonly vendor: number; readonly device: number },
): void {
  config.set16(CFG.SUBSYSTEM_VENDOR_ID, subsystem.vendor);
  config.set16(CFG.SUBSYSTEM_ID, subsystem.device);
  config.set16(POWER_MANAGEMENT + 2, PMC);
  config.mask16(config.writable, POWER_MANAGEMENT + PMCSR, PMCSR_WRITABLE);
  if (config.size < EXPRESS_CONFIG_SIZE) return;
  config.addExtendedCapability(AER.ID, AER.VERSION, AER.AT);
  config.mask32(config.writeOneToClear, AER.AT + UNCORRECTABLE.STATUS, UNCORRECTABLE.SUPPORTED);
  config.set32(AER.AT + UNCORRECTABLE.SEVERITY, UNCORRECTABLE.FATAL);
  config.mask32(config.writable, AER.AT + UNCORRECTABLE.SEVERITY, UNCORRECTABLE.SUPPORTED);
  config.mask32(config.writeOneToClear, AER.AT + CORRECTABLE.STATUS, CORRECTABLE.SUPPORTED);
  config.set32(AER.AT + CORRECTABLE.MASK, CORRECTABLE.MASKED);
  config.mask32(config.writable, AER.AT + CORRECTABLE.MASK, CORRECTABLE.SUPPORTED);
  config.set32(AER.AT + AER_CONTROL.AT, AER_CONTROL.CAPABLE);
  config.mask32(config.writable, AER.AT + AER_CONTROL.AT, AER_CONTROL.WRITABLE);
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = mac;
  // An address of 64 bits, made from one of 48 (EUI-64).
  config.addSerialNumber(SERIAL_AT, [f, e, d, 0xff, 0xff, c, b, a]);
}
