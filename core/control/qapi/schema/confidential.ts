import { command } from '../declare.ts';
import { array, bool, enumeration, featured, int, opt, str, struct, uint8, uint32, uint64 } from '../types.ts';

export const SevState = enumeration('SevState', [
  'uninit',
  'launch-update',
  'launch-secret',
  'running',
  'send-update',
  'receive-update',
]);
export const SevInfo = struct('SevInfo', {
  enabled: bool,
  'api-major': uint8,
  'api-minor': uint8,
  'build-id': uint8,
  policy: uint32,
  state: SevState,
  handle: uint32,
});
export const SevCapability = struct('SevCapability', {
  pdh: str,
  'cert-chain': str,
  'cpu0-id': str,
  cbitpos: int,
  'reduced-phys-bits': int,
});
export const SevLaunchMeasureInfo = struct('SevLaunchMeasureInfo', { data: str });
export const SevAttestationReport = struct('SevAttestationReport', { data: str });
export const SGXEPCSection = struct('SGXEPCSection', { node: int, size: uint64 });
export const SGXInfo = struct('SGXInfo', {
  sgx: bool,
  sgx1: bool,
  sgx2: bool,
  flc: bool,
  'section-size': featured(uint64, 'deprecated'),
  sections: array(SGXEPCSection),
});

export const commands = {
  'rtc-reset-reinjection': command('Forgets missed ticks of the real-time clock', {}),
  'query-sev': command('State of AMD SEV', { returns: SevInfo }),
  'query-sev-capabilities': command('AMD SEV of the host', { returns: SevCapability }),
  'query-sev-launch-measure': command('Measurement of an SEV launch', { returns: SevLaunchMeasureInfo }),
  'sev-inject-launch-secret': command('Puts a secret into an encrypted guest', {
    args: { 'packet-header': str, secret: str, gpa: opt(uint64) },
  }),
  'query-sev-attestation-report': command('Attestation report of an encrypted guest', {
    args: { mnonce: str },
    returns: SevAttestationReport,
  }),
  'query-sgx': command('State of Intel SGX', { returns: SGXInfo }),
  'query-sgx-capabilities': command('Intel SGX of the host', { returns: SGXInfo }),
};
