import { CFG, type ConfigSpace, EXPRESS_CONFIG_SIZE } from '../../core/pci/config-space.ts';
import { addErrorReporting } from '../../core/pci/error-reporting.ts';

/** Where the 82574 has its power management capability (82574 datasheet, section 9.1). */
const POWER_MANAGEMENT = 0xc8;
/** Version 1.1, and device-specific initialisation. */
const PMC = 0x0022;
const PMCSR = 4;
const PMCSR_WRITABLE = 0x1f03;
/** Advanced error reporting, as version 1.1 of PCI Express has it. */
const AER_AT = 0x100;
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
  addErrorReporting(config, AER_AT, { multipleHeaders: false });
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = mac;
  // An address of 64 bits, made from one of 48 (EUI-64).
  config.addSerialNumber(SERIAL_AT, [f, e, d, 0xff, 0xff, c, b, a]);
}
