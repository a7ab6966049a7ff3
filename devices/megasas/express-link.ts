import type { ConfigSpace } from '../../core/pci/config-space.ts';

/** Where the PCI Express capability is. */
export const EXPRESS_AT = 0xa0;

/** Registers of the capability (PCI Express 3.0, section 7.8), and what they say. */
const EXPRESS = {
  DEVCAP: EXPRESS_AT + 0x04,
  ROLE_BASED_ERRORS: 0x8000,
  LNKCAP: EXPRESS_AT + 0x0c,
  GEN1_X1_L0S: 0x411,
  LNKSTA: EXPRESS_AT + 0x12,
  GEN1_X1: 0x11,
  DEVCAP2: EXPRESS_AT + 0x24,
  TLP_PREFIXES: 0x30_0000,
  DEVCTL2: EXPRESS_AT + 0x28,
  TLP_PREFIX_BLOCKING: 0x8000,
} as const;

/** 2.5 GT/s on one lane, as QEMU's. */
export function describeLink(config: ConfigSpace): void {
  config.set32(EXPRESS.DEVCAP, EXPRESS.ROLE_BASED_ERRORS);
  config.set32(EXPRESS.LNKCAP, EXPRESS.GEN1_X1_L0S);
  config.set16(EXPRESS.LNKSTA, EXPRESS.GEN1_X1);
  config.set32(EXPRESS.DEVCAP2, EXPRESS.TLP_PREFIXES);
  config.mask16(config.writable, EXPRESS.DEVCTL2, EXPRESS.TLP_PREFIX_BLOCKING);
}
