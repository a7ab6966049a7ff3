/** What of a GnuTLS priority string can be said to OpenSSL, which does the work here. */
import type { SecureVersion } from 'node:tls';
import { SouthbridgeError } from '../errors.ts';

export interface TlsPriority {
  readonly minVersion: SecureVersion;
  readonly maxVersion: SecureVersion;
  /** Of OpenSSL's cipher list language; undefined: Node's own list. */
  readonly ciphers: string | undefined;
}

/** Initial keywords, with the lists that come closest. `@NAME` stands for the system's own choice. */
const BASES: Readonly<Record<string, string | undefined>> = {
  NORMAL: undefined,
  SYSTEM: undefined,
  PERFORMANCE: undefined,
  LEGACY: 'DEFAULT:@SECLEVEL=0',
  PFS: 'ECDHE:DHE:!kRSA:!aNULL:!eNULL',
  SECURE128: 'DEFAULT:@SECLEVEL=2',
  SECURE192: 'AES256:CHACHA20:!aNULL:!eNULL:@SECLEVEL=4',
  SECURE256: 'AES256:CHACHA20:!aNULL:!eNULL:@SECLEVEL=5',
};

const VERSIONS: readonly SecureVersion[] = ['TLSv1', 'TLSv1.1', 'TLSv1.2', 'TLSv1.3'];
const NAMES: Readonly<Record<string, SecureVersion>> = {
  'VERS-TLS1.0': 'TLSv1',
  'VERS-TLS1.1': 'TLSv1.1',
  'VERS-TLS1.2': 'TLSv1.2',
  'VERS-TLS1.3': 'TLSv1.3',
};

/** @throws SouthbridgeError ERR_TLS_PRIORITY where the string says what cannot be done */
export function parsePriority(text: string | undefined): TlsPriority {
  const versions = new Set<SecureVersion>(['TLSv1.2', 'TLSv1.3']);
  let ciphers: string | undefined;
  for (const [index, token] of (text ?? 'NORMAL').split(':').entries()) {
    const name = token.startsWith('@') ? 'SYSTEM' : token;
    if (index === 0) {
      if (!Object.hasOwn(BASES, name)) throw unknown(text, token);
      ciphers = BASES[name];
    } else applyVersion(versions, token, text);
  }
  const chosen = VERSIONS.filter(version => versions.has(version));
  const [minVersion] = chosen;
  const maxVersion = chosen.at(-1);
  if (minVersion === undefined || maxVersion === undefined)
    throw new SouthbridgeError(
      'ERR_TLS_PRIORITY',
      `Unable to set TLS session priority ${text}: no TLS version is left`,
    );
  return { minVersion, maxVersion, ciphers };
}

function applyVersion(versions: Set<SecureVersion>, token: string, text: string | undefined): void {
  // Flags change how GnuTLS itself works around others' mistakes.
  if (token.startsWith('%')) return;
  const add = token.startsWith('+');
  if (!add && !/^[-!]/.test(token)) throw unknown(text, token);
  const name = token.slice(1);
  const named = NAMES[name];
  const meant = name === 'VERS-ALL' || name === 'VERS-TLS-ALL' ? VERSIONS : named === undefined ? undefined : [named];
  if (meant === undefined) throw unknown(text, token);
  for (const version of meant) {
    if (add) versions.add(version);
    else versions.delete(version);
  }
}

const unknown = (text: string | undefined, token: string): SouthbridgeError =>
  new SouthbridgeError(
    'ERR_TLS_PRIORITY',
    `Unable to set TLS session priority ${text}: '${token}' is not supported`,
    'an initial keyword such as NORMAL or SECURE128, and versions such as -VERS-TLS1.2, can be given',
  );
