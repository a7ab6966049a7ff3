/** Advanced error reporting and access control: extended capabilities that every port of PCI Express has (PCI Express 5.0, 7.8.4 and 7.7.8). */
import type { ConfigSpace } from './config-space.ts';

const AER = { ID: 0x0001, VERSION: 2 } as const;
const UNCORRECTABLE = { STATUS: 0x04, SEVERITY: 0x0c, SUPPORTED: 0x03ff_f030, FATAL: 0x0046_2030 } as const;
const CORRECTABLE = { STATUS: 0x10, MASK: 0x14, SUPPORTED: 0xf1c1, MASKED: 0xe000 } as const;
/** ECRC may be made and checked; the headers of several errors may be recorded. */
const CONTROL = { AT: 0x18, ECRC: 0x00a0, ECRC_ENABLES: 0x0140, HEADERS: 0x0200, HEADERS_ENABLE: 0x0400 } as const;
const ROOT = { COMMAND: 0x2c, REPORTS: 0x7, STATUS: 0x30, RECEIVED: 0x7f } as const;
/** Bytes of the capability. */
export const AER_SIZE = 0x48;

const ACS = { ID: 0x000d, VERSION: 1, CAPABILITY: 4, CONTROL: 6 } as const;
/** Source validation, translation blocking, request and completion redirect, upstream forwarding, direct translated. */
const ACS_OF_PORTS = 0x5f;
export const ACS_SIZE = 8;

export interface ErrorReporting {
  /** Several headers, which parts of version 1.1 do not know of; default true. */
  readonly multipleHeaders?: boolean;
  /** A root port: collects what is below it. */
  readonly root?: boolean;
}

export function addErrorReporting(config: ConfigSpace, at: number, options: ErrorReporting = {}): void {
  const { multipleHeaders = true, root = false } = options;
  config.addExtendedCapability(AER.ID, AER.VERSION, at);
  config.mask32(config.writeOneToClear, at + UNCORRECTABLE.STATUS, UNCORRECTABLE.SUPPORTED);
  config.set32(at + UNCORRECTABLE.SEVERITY, UNCORRECTABLE.FATAL);
  config.mask32(config.writable, at + UNCORRECTABLE.SEVERITY, UNCORRECTABLE.SUPPORTED);
  config.mask32(config.writeOneToClear, at + CORRECTABLE.STATUS, CORRECTABLE.SUPPORTED);
  config.set32(at + CORRECTABLE.MASK, CORRECTABLE.MASKED);
  config.mask32(config.writable, at + CORRECTABLE.MASK, CORRECTABLE.SUPPORTED);
  config.set32(at + CONTROL.AT, CONTROL.ECRC | (multipleHeaders ? CONTROL.HEADERS : 0));
  const enables = CONTROL.ECRC_ENABLES | (multipleHeaders ? CONTROL.HEADERS_ENABLE : 0);
  config.mask32(config.writable, at + CONTROL.AT, enables);
  if (!root) return;
  config.mask32(config.writable, at + ROOT.COMMAND, ROOT.REPORTS);
  config.mask32(config.writeOneToClear, at + ROOT.STATUS, ROOT.RECEIVED);
}

/** After reset a root port reports nothing. */
export function resetErrorReporting(config: ConfigSpace, at: number): void {
  config.set32(at + ROOT.COMMAND, 0);
}

/** Access control services of a port that faces away from the root. */
export function addAccessControl(config: ConfigSpace, at: number): void {
  config.addExtendedCapability(ACS.ID, ACS.VERSION, at);
  config.set16(at + ACS.CAPABILITY, ACS_OF_PORTS);
  config.mask16(config.writable, at + ACS.CONTROL, ACS_OF_PORTS);
}

export function resetAccessControl(config: ConfigSpace, at: number): void {
  config.set16(at + ACS.CONTROL, 0);
}
