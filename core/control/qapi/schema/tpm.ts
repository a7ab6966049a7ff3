import { command } from '../declare.ts';
import { array, enumeration, str, struct, union } from '../types.ts';

export const TpmModel = enumeration('TpmModel', ['tpm-tis', 'tpm-crb', 'tpm-spapr']);
export const TpmType = enumeration('TpmType', []);
export const TpmTypeOptions = union('TpmTypeOptions', { type: TpmType }, 'type', {});
export const TPMInfo = struct('TPMInfo', { id: str, model: TpmModel, options: TpmTypeOptions });

export const commands = {
  'query-tpm-models': command('TPM models', { returns: array(TpmModel) }),
  'query-tpm-types': command('TPM backends', { returns: array(TpmType) }),
  'query-tpm': command('The TPM devices', { returns: array(TPMInfo) }),
};
