/**
 * What `node:crypto`'s X509Certificate does not tell of a certificate: which extensions are there and whether they are
 * critical (RFC 5280 4.2), what it is signed with, and its owner's distinguished name as GnuTLS writes it.
 */
import { X509Certificate } from 'node:crypto';
import { SouthbridgeError } from '../errors.ts';

/** Universal and context-specific tags (X.690 8.1.2). */
const BOOLEAN = 0x01;
const BIT_STRING = 0x03;
const UTF8_STRING = 0x0c;
const BMP_STRING = 0x1e;
const VERSION = 0xa0;
const EXTENSIONS = 0xa3;
/** PrintableString, TeletexString, IA5String, VisibleString: a byte a character. */
const BYTE_STRINGS: readonly number[] = [0x13, 0x14, 0x16, 0x1a];

const BASIC_CONSTRAINTS = '2.5.29.19';
const KEY_USAGE = '2.5.29.15';
const EXTENDED_KEY_USAGE = '2.5.29.37';

/** Extended key usages (RFC 5280 4.2.1.12). */
export const keyPurpose = {
  SERVER: '1.3.6.1.5.5.7.3.1',
  CLIENT: '1.3.6.1.5.5.7.3.2',
  ANY: '2.5.29.37.0',
} as const;

/** Signatures over MD2, MD5 and SHA-1, which GnuTLS takes for insecure in certificates. */
const WEAK_SIGNATURES: ReadonlySet<string> = new Set([
  '1.2.840.113549.1.1.2',
  '1.2.840.113549.1.1.4',
  '1.2.840.113549.1.1.5',
  '1.2.840.10040.4.3',
  '1.2.840.10045.4.1',
]);

/** Attributes of names, as GnuTLS abbreviates them (RFC 4519 2). */
const ATTRIBUTES: ReadonlyMap<string, string> = new Map([
  ['2.5.4.3', 'CN'],
  ['2.5.4.4', 'surName'],
  ['2.5.4.5', 'serialNumber'],
  ['2.5.4.6', 'C'],
  ['2.5.4.7', 'L'],
  ['2.5.4.8', 'ST'],
  ['2.5.4.9', 'street'],
  ['2.5.4.10', 'O'],
  ['2.5.4.11', 'OU'],
  ['2.5.4.12', 'title'],
  ['2.5.4.13', 'description'],
  ['2.5.4.15', 'businessCategory'],
  ['2.5.4.17', 'postalCode'],
  ['2.5.4.20', 'telephoneNumber'],
  ['2.5.4.41', 'name'],
  ['2.5.4.42', 'givenName'],
  ['2.5.4.43', 'initials'],
  ['2.5.4.44', 'generationQualifier'],
  ['2.5.4.46', 'dnQualifier'],
  ['2.5.4.65', 'pseudonym'],
  ['0.9.2342.19200300.100.1.1', 'UID'],
  ['0.9.2342.19200300.100.1.25', 'DC'],
  ['1.2.840.113549.1.9.1', 'EMAIL'],
]);

/** One value of DER (X.690 8.1): its tag, its contents, and all its bytes. */
interface Element {
  readonly tag: number;
  readonly contents: Buffer;
  readonly whole: Buffer;
}

interface Extension {
  readonly critical: boolean;
  readonly value: Buffer;
}

export interface KeyUsage {
  readonly critical: boolean;
  readonly digitalSignature: boolean;
  readonly certificateSigning: boolean;
}

export interface KeyPurposes {
  readonly critical: boolean;
  readonly identifiers: readonly string[];
}

/** A certificate, read once. */
export class Certificate {
  readonly x509: X509Certificate;
  readonly notBefore: number;
  readonly notAfter: number;
  /** Whether it may be an authority; undefined where it does not say. */
  readonly authority: boolean | undefined;
  readonly keyUsage: KeyUsage | undefined;
  readonly purposes: KeyPurposes | undefined;
  readonly weaklySigned: boolean;
  /** Its owner, `C=GB,O=Example,CN=host`: in the order of the certificate, escaped as RFC 4514 2.4 has it. */
  readonly subject: string;

  /** @throws Error of `node:crypto` where this is no certificate, SouthbridgeError ERR_TLS where its DER is malformed */
  constructor(source: string | Buffer | X509Certificate) {
    this.x509 = source instanceof X509Certificate ? source : new X509Certificate(source);
    this.notBefore = Date.parse(this.x509.validFrom);
    this.notAfter = Date.parse(this.x509.validTo);
    const [certificate] = elements(this.x509.raw);
    const [body, algorithm] = elements(certificate?.contents);
    const fields = elements(body?.contents).filter(({ tag }) => tag !== VERSION);
    // After the version: serialNumber, signature, issuer, validity, subject (RFC 5280 4.1).
    this.subject = distinguishedName(fields[4]?.contents);
    this.weaklySigned = WEAK_SIGNATURES.has(identifier(elements(algorithm?.contents)[0]?.contents));
    const extensions = extensionsOf(fields.find(({ tag }) => tag === EXTENSIONS)?.contents);
    this.authority = authorityOf(extensions.get(BASIC_CONSTRAINTS));
    this.keyUsage = keyUsageOf(extensions.get(KEY_USAGE));
    this.purposes = purposesOf(extensions.get(EXTENDED_KEY_USAGE));
  }
}

const PEM = /-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----[\s\S]+?-----END (?:X509 |TRUSTED )?CERTIFICATE-----/g;

/** The certificates of a PEM file, in its order. */
export const certificatesOf = (pem: string): Certificate[] =>
  [...pem.matchAll(PEM)].map(([text]) => new Certificate(text));

const malformed = (): SouthbridgeError => new SouthbridgeError('ERR_TLS', 'the certificate is malformed');

/** The values that follow each other in `bytes`. */
function elements(bytes: Buffer | undefined): Element[] {
  if (bytes === undefined) throw malformed();
  const found: Element[] = [];
  for (let at = 0; at < bytes.length; ) {
    const tag = bytes[at] ?? 0;
    let length = bytes[at + 1] ?? 0;
    let start = at + 2;
    if (length >= 0x80) {
      const size = length & 0x7f;
      if (size === 0 || size > 4 || start + size > bytes.length) throw malformed();
      length = bytes.readUIntBE(start, size);
      start += size;
    }
    const end = start + length;
    if (end > bytes.length) throw malformed();
    found.push({ tag, contents: bytes.subarray(start, end), whole: bytes.subarray(at, end) });
    at = end;
  }
  return found;
}

/** An object identifier in dotted form (X.690 8.19). */
function identifier(bytes: Buffer | undefined): string {
  if (bytes === undefined) throw malformed();
  const arcs: number[] = [];
  let value = 0;
  for (const byte of bytes) {
    value = value * 128 + (byte & 0x7f);
    if ((byte & 0x80) !== 0) continue;
    if (arcs.length > 0) arcs.push(value);
    else {
      const first = Math.min(2, Math.floor(value / 40));
      arcs.push(first, value - first * 40);
    }
    value = 0;
  }
  return arcs.join('.');
}

function extensionsOf(bytes: Buffer | undefined): Map<string, Extension> {
  const found = new Map<string, Extension>();
  if (bytes === undefined) return found;
  for (const { contents } of elements(elements(bytes)[0]?.contents)) {
    const parts = elements(contents);
    const critical = parts[1]?.tag === BOOLEAN && parts[1].contents[0] !== 0;
    const value = parts.at(-1)?.contents;
    if (value !== undefined) found.set(identifier(parts[0]?.contents), { critical, value });
  }
  return found;
}

function authorityOf(extension: Extension | undefined): boolean | undefined {
  if (extension === undefined) return undefined;
  const [first] = elements(elements(extension.value)[0]?.contents);
  return first?.tag === BOOLEAN && first.contents[0] !== 0;
}

/** Bits are numbered from the most significant one, behind the count of those that are not used (RFC 5280 4.2.1.3). */
function keyUsageOf(extension: Extension | undefined): KeyUsage | undefined {
  if (extension === undefined) return undefined;
  const [bits] = elements(extension.value);
  if (bits?.tag !== BIT_STRING) throw malformed();
  const first = bits.contents[1] ?? 0;
  return {
    critical: extension.critical,
    digitalSignature: (first & 0x80) !== 0,
    certificateSigning: (first & 0x04) !== 0,
  };
}

function purposesOf(extension: Extension | undefined): KeyPurposes | undefined {
  if (extension === undefined) return undefined;
  const identifiers = elements(elements(extension.value)[0]?.contents).map(({ contents }) => identifier(contents));
  return { critical: extension.critical, identifiers };
}

/** Sets of attributes apart by commas, attributes of one set by plus signs (RFC 4514 2). */
function distinguishedName(name: Buffer | undefined): string {
  return elements(name)
    .map(set =>
      elements(set.contents)
        .map(({ contents }) => {
          const [type, value] = elements(contents);
          const oid = identifier(type?.contents);
          const attribute = ATTRIBUTES.get(oid);
          if (value === undefined) throw malformed();
          const text = attribute === undefined ? undefined : textOf(value);
          return text === undefined
            ? `${attribute ?? oid}=#${value.whole.toString('hex')}`
            : `${attribute}=${escaped(text)}`;
        })
        .join('+'),
    )
    .join(',');
}

function textOf({ tag, contents }: Element): string | undefined {
  if (tag === UTF8_STRING) return contents.toString('utf8');
  if (BYTE_STRINGS.includes(tag)) return contents.toString('latin1');
  return tag === BMP_STRING && contents.length % 2 === 0
    ? Buffer.from(contents).swap16().toString('utf16le')
    : undefined;
}

const escaped = (text: string): string => text.replace(/[,+"\\<>;]|^[# ]| $/g, character => `\\${character}`);
