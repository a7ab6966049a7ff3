import { alternate, enumeration, nil, str, struct } from '../types.ts';

export const NetFilterDirection = enumeration('NetFilterDirection', ['all', 'rx', 'tx']);
export const HostMemPolicy = enumeration('HostMemPolicy', ['default', 'preferred', 'bind', 'interleave']);
export const HumanReadableText = struct('HumanReadableText', { 'human-readable-text': str });
export const StringHolder = struct('String', { str: str });
export const StrOrNull = alternate('StrOrNull', { s: str, n: nil });
export const OnOffAuto = enumeration('OnOffAuto', ['auto', 'on', 'off']);
export const IoOperationType = enumeration('IoOperationType', ['read', 'write']);
