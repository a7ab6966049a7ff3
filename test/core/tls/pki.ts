/** Certificates, keys and revocation lists for tests (RFC 5280), so that none that is kept can expire. */
import { generateKeyPairSync, getDiffieHellman, type KeyObject, randomBytes, sign } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const DAY = 86_400_000;

const der = (tag: number, ...contents: readonly Uint8Array[]): Buffer => {
  const body = Buffer.concat(contents);
  if (body.length < 128) return Buffer.concat([Buffer.from([tag, body.length]), body]);
  const length = Buffer.from(body.length.toString(16).padStart(4, '0'), 'hex');
  return Buffer.concat([Buffer.from([tag, 0x80 | length.length]), length, body]);
};
const sequence = (...contents: readonly Uint8Array[]): Buffer => der(0x30, ...contents);
const set = (...contents: readonly Uint8Array[]): Buffer => der(0x31, ...contents);
const integer = (value: Uint8Array): Buffer => der(0x02, value);
const boolean = (value: boolean): Buffer => der(0x01, Buffer.from([value ? 0xff : 0]));
const bits = (bytes: Uint8Array): Buffer => der(0x03, Buffer.from([0]), bytes);
const time = (at: number): Buffer =>
  der(0x18, Buffer.from(`${new Date(at).toISOString().replace(/[-:T]/g, '').slice(0, 14)}Z`));

function oid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  const bytes = [first * 40 + second];
  for (const arc of rest) {
    const digits = [arc & 0x7f];
    for (let left = arc >>> 7; left > 0; left >>>= 7) digits.unshift((left & 0x7f) | 0x80);
    bytes.push(...digits);
  }
  return der(0x06, Buffer.from(bytes));
}

const ECDSA_SHA256 = sequence(oid('1.2.840.10045.4.3.2'));

/** Attributes that are not UTF-8: countries are PrintableString, mail addresses and domains IA5String (RFC 5280 appendix A.1). */
const STRING_TAGS: ReadonlyMap<string, number> = new Map([
  ['2.5.4.6', 0x13],
  ['1.2.840.113549.1.9.1', 0x16],
  ['0.9.2342.19200300.100.1.25', 0x16],
]);

/** Each part of a name is a set of one attribute or more. */
export type Name = readonly (readonly (readonly [oid: string, value: string])[])[];
export const commonName = (value: string): Name => [[['2.5.4.3', value]]];

const nameOf = (name: Name): Buffer =>
  sequence(
    ...name.map(attributes =>
      set(
        ...attributes.map(([type, value]) =>
          sequence(oid(type), der(STRING_TAGS.get(type) ?? 0x0c, Buffer.from(value))),
        ),
      ),
    ),
  );

export interface Extension {
  readonly oid: string;
  readonly critical?: boolean;
  readonly value: Uint8Array;
}

export const basicConstraints = (authority: boolean): Extension => ({
  oid: '2.5.29.19',
  critical: true,
  value: authority ? sequence(boolean(true)) : sequence(),
});
/** @param usage the first octet: 0x80 digital signatures, 0x04 certificates */
export const keyUsage = (usage: number, critical = true): Extension => ({
  oid: '2.5.29.15',
  critical,
  value: bits(Buffer.from([usage])),
});
export const purposes = (identifiers: readonly string[], critical = true): Extension => ({
  oid: '2.5.29.37',
  critical,
  value: sequence(...identifiers.map(oid)),
});
const alternativeNames = (names: readonly string[]): Extension => ({
  oid: '2.5.29.17',
  value: sequence(
    ...names.map(name =>
      /^[\d.]+$/.test(name) ? der(0x87, Buffer.from(name.split('.').map(Number))) : der(0x82, Buffer.from(name)),
    ),
  ),
});

export interface CertificateOptions {
  readonly subject: Name;
  readonly hosts?: readonly string[];
  readonly extensions?: readonly Extension[];
  /** In days from now. */
  readonly from?: number;
  readonly until?: number;
}

/** A certificate with its key. */
export class Identity {
  readonly subject: Name;
  readonly key: KeyObject;
  readonly pem: string;
  readonly serial = Buffer.concat([Buffer.from([1]), randomBytes(7)]);

  constructor(options: CertificateOptions, issuer?: Identity) {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    this.subject = options.subject;
    this.key = privateKey;
    const now = Date.now();
    const extensions = [
      ...(options.extensions ?? []),
      ...(options.hosts === undefined ? [] : [alternativeNames(options.hosts)]),
    ];
    const body = sequence(
      der(0xa0, integer(Buffer.from([2]))),
      integer(this.serial),
      ECDSA_SHA256,
      nameOf((issuer ?? this).subject),
      sequence(time(now + (options.from ?? -1) * DAY), time(now + (options.until ?? 30) * DAY)),
      nameOf(this.subject),
      publicKey.export({ type: 'spki', format: 'der' }),
      ...(extensions.length === 0 ? [] : [der(0xa3, sequence(...extensions.map(encoded)))]),
    );
    this.pem = pem('CERTIFICATE', signed(body, (issuer ?? this).key));
  }

  get keyPem(): string {
    return String(this.key.export({ type: 'pkcs8', format: 'pem' }));
  }

  encryptedKeyPem(passphrase: string): string {
    return String(this.key.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-128-cbc', passphrase }));
  }

  /** What this authority no longer vouches for. */
  revoke(...revoked: readonly Identity[]): string {
    const now = Date.now();
    const list = revoked.map(({ serial }) => sequence(integer(serial), time(now - DAY)));
    const body = sequence(
      integer(Buffer.from([1])),
      ECDSA_SHA256,
      nameOf(this.subject),
      time(now - DAY),
      time(now + 30 * DAY),
      ...(list.length === 0 ? [] : [sequence(...list)]),
    );
    return pem('X509 CRL', signed(body, this.key));
  }
}

const encoded = ({ oid: type, critical = false, value }: Extension): Buffer =>
  sequence(oid(type), ...(critical ? [boolean(true)] : []), der(0x04, value));

const signed = (body: Buffer, key: KeyObject): Buffer => sequence(body, ECDSA_SHA256, bits(sign('sha256', body, key)));

const pem = (label: string, bytes: Buffer): string =>
  `-----BEGIN ${label}-----\n${(bytes.toString('base64').match(/.{1,64}/g) ?? []).join('\n')}\n-----END ${label}-----\n`;

export const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';
export const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';

export const authority = (name = 'test CA', options: Partial<CertificateOptions> = {}): Identity =>
  new Identity({ subject: commonName(name), extensions: [basicConstraints(true), keyUsage(0x06)], ...options });

export const serverIdentity = (ca: Identity, options: Partial<CertificateOptions> = {}): Identity =>
  new Identity(
    {
      subject: commonName('localhost'),
      hosts: ['localhost', '127.0.0.1'],
      extensions: [basicConstraints(false), keyUsage(0x80), purposes([SERVER_AUTH])],
      ...options,
    },
    ca,
  );

export const clientIdentity = (ca: Identity, options: Partial<CertificateOptions> = {}): Identity =>
  new Identity(
    {
      subject: commonName('client'),
      extensions: [basicConstraints(false), keyUsage(0x80), purposes([CLIENT_AUTH])],
      ...options,
    },
    ca,
  );

/** The group of 2048 bits (RFC 3526 3): a QEMU that has to find one of its own takes its time. */
export function diffieHellman(): string {
  const group = getDiffieHellman('modp14');
  const prime = Buffer.concat([Buffer.from([0]), group.getPrime()]);
  return pem('DH PARAMETERS', sequence(integer(prime), integer(Buffer.from([2]))));
}

/** Writes files into a new folder. */
export function folder(path: string, files: Readonly<Record<string, string>>): string {
  mkdirSync(path, { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), text, { mode: 0o600 });
  return path;
}

/** The files of both sides in one folder, as QEMU looks for them. */
export function credentialsFolder(
  path: string,
  ca = authority(),
  client: Identity | undefined = clientIdentity(ca),
): string {
  const server = serverIdentity(ca);
  return folder(path, {
    'ca-cert.pem': ca.pem,
    'dh-params.pem': diffieHellman(),
    'server-cert.pem': server.pem,
    'server-key.pem': server.keyPem,
    ...(client !== undefined && { 'client-cert.pem': client.pem, 'client-key.pem': client.keyPem }),
  });
}
