/** `sanity-check=on`: certificates that no peer would accept are refused before there is one. */
import { SouthbridgeError } from '../errors.ts';
import { type Certificate, certificatesOf, keyPurpose } from './certificate.ts';
import type { TlsEndpoint } from './credentials.ts';

interface PemFile {
  readonly path: string;
  readonly pem: string;
}

/** How many authorities are looked at. */
const MAX_AUTHORITIES = 16;

const fail = (message: string): SouthbridgeError => new SouthbridgeError('ERR_TLS', message);

/** @throws SouthbridgeError ERR_TLS, with QEMU's words, at the first thing that is wrong */
export function checkFiles(endpoint: TlsEndpoint, trusted: PemFile, own: PemFile | undefined): void {
  const certificate = own === undefined ? undefined : readOwn(endpoint, own);
  const authorities = readAuthorities(trusted);
  if (certificate !== undefined && own !== undefined) check(certificate, own.path, endpoint);
  for (const authority of authorities) check(authority, trusted.path, 'CA');
  if (certificate === undefined || own === undefined) return;
  const reason = distrust(certificate, authorities);
  if (reason !== undefined)
    throw fail(`Our own certificate ${own.path} failed validation against ${trusted.path}: ${reason}`);
}

function readOwn(endpoint: TlsEndpoint, { path, pem }: PemFile): Certificate {
  const unusable = (reason: string): SouthbridgeError =>
    fail(`Unable to import ${endpoint} certificate ${path}: ${reason}`);
  try {
    const [first] = certificatesOf(pem);
    if (first !== undefined) return first;
  } catch (error) {
    throw unusable(error instanceof Error ? error.message : String(error));
  }
  throw unusable('Base64 unexpected header error.');
}

function readAuthorities({ path, pem }: PemFile): Certificate[] {
  let found: Certificate[] = [];
  try {
    found = certificatesOf(pem);
  } catch {
    // As where there is none.
  }
  if (found.length === 0 || found.length > MAX_AUTHORITIES) throw fail(`Unable to import CA certificate list ${path}`);
  return found;
}

function check(certificate: Certificate, path: string, role: TlsEndpoint | 'CA'): void {
  const now = Date.now();
  if (certificate.notAfter < now) throw fail(`The ${role} certificate ${path} has expired`);
  if (certificate.notBefore > now) throw fail(`The ${role} certificate ${path} is not yet active`);
  checkConstraints(certificate, path, role);
  checkUsage(certificate, path, role);
  if (role !== 'CA') checkPurposes(certificate, path, role);
}

function checkConstraints({ authority }: Certificate, path: string, role: TlsEndpoint | 'CA'): void {
  if (role !== 'CA') {
    if (authority) throw fail(`The certificate ${path} basic constraints show a CA, but we need one for a ${role}`);
    return;
  }
  if (authority === undefined) throw fail(`The certificate ${path} is missing basic constraints for a CA`);
  if (!authority) throw fail(`The certificate ${path} basic constraints do not show a CA`);
}

/** A usage that is not critical is advice only. */
function checkUsage({ keyUsage }: Certificate, path: string, role: TlsEndpoint | 'CA'): void {
  if (!keyUsage?.critical) return;
  if (role === 'CA' && !keyUsage.certificateSigning)
    throw fail(`Certificate ${path} usage does not permit certificate signing`);
  if (role !== 'CA' && !keyUsage.digitalSignature)
    throw fail(`Certificate ${path} usage does not permit digital signature`);
}

function checkPurposes({ purposes }: Certificate, path: string, role: TlsEndpoint): void {
  if (!purposes?.critical) return;
  const wanted = role === 'server' ? keyPurpose.SERVER : keyPurpose.CLIENT;
  if (purposes.identifiers.some(one => one === wanted || one === keyPurpose.ANY)) return;
  throw fail(`Certificate ${path} purpose does not allow use with a TLS ${role}`);
}

/** Why the authorities do not vouch for a certificate; undefined where one does. */
function distrust(certificate: Certificate, authorities: readonly Certificate[]): string | undefined {
  const issuer = authorities.find(({ x509 }) => certificate.x509.checkIssued(x509));
  if (issuer === undefined) return "The certificate hasn't got a known issuer";
  if (certificate.weaklySigned) return 'The certificate uses an insecure algorithm';
  return certificate.x509.verify(issuer.x509.publicKey) ? undefined : 'The certificate is not trusted';
}
