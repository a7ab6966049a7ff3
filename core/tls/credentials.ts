/** TLS credentials of the three kinds of QEMU's `-object tls-creds-*`, read from the files of a folder. */
import { createPrivateKey } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { createSecureContext, type SecureContextOptions } from 'node:tls';
import { SouthbridgeError } from '../errors.ts';
import { certificatesOf } from './certificate.ts';
import { checkFiles } from './sanity.ts';

export type TlsEndpoint = 'client' | 'server';

/** What all kinds of credentials are made of. */
export interface TlsCredentialsOptions {
  readonly endpoint: TlsEndpoint;
  /** Where the files are. */
  readonly dir: string | undefined;
  /** Whether the other side's certificate is checked, and a client's asked for. */
  readonly verifyPeer: boolean;
  /** A priority string of GnuTLS's. */
  readonly priority: string | undefined;
}

export interface X509Options extends TlsCredentialsOptions {
  readonly sanityCheck: boolean;
  /** Finds the password of the private key; asked only where there is a key. */
  readonly password?: (() => string) | undefined;
}

export interface PskOptions extends TlsCredentialsOptions {
  /** Of a client; QEMU's default is `qemu`. */
  readonly username: string | undefined;
}

/** What a pre-shared key is found by: GnuTLS's own default name for it. */
const DEFAULT_USERNAME = 'qemu';

const fail = (message: string, cause?: unknown): SouthbridgeError =>
  new SouthbridgeError('ERR_TLS', message, undefined, cause === undefined ? {} : { cause });

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** The texts of C's strerror for what can be wrong with a path. */
const REASONS: Readonly<Record<string, string>> = {
  EACCES: 'Permission denied',
  ELOOP: 'Too many levels of symbolic links',
  ENAMETOOLONG: 'File name too long',
  ENOENT: 'No such file or directory',
  ENOTDIR: 'Not a directory',
  EISDIR: 'Is a directory',
};

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : '';
}

const reasonOf = (error: unknown): string => REASONS[codeOf(error)] ?? messageOf(error);

/** Credentials of any kind. */
export type TlsCredentials = X509Credentials | PskCredentials | AnonymousCredentials;

abstract class Credentials {
  readonly endpoint: TlsEndpoint;
  readonly verifyPeer: boolean;
  readonly priority: string | undefined;
  readonly #dir: string | undefined;

  constructor({ endpoint, dir, verifyPeer, priority }: TlsCredentialsOptions) {
    this.endpoint = endpoint;
    this.verifyPeer = verifyPeer;
    this.priority = priority;
    this.#dir = dir;
  }

  /** The path of a file that has to be there. */
  protected required(name: string): string {
    if (this.#dir === undefined) throw fail("Missing 'dir' property value");
    const path = `${this.#dir}/${name}`;
    try {
      statSync(path);
    } catch (error) {
      throw fail(`Unable to access credentials ${path}: ${reasonOf(error)}`, error);
    }
    return path;
  }

  /** The path of a file that need not be there. */
  protected optional(name: string): string | undefined {
    if (this.#dir === undefined) return undefined;
    try {
      return this.required(name);
    } catch (error) {
      if (error instanceof Error && codeOf(error.cause) === 'ENOENT') return undefined;
      throw error;
    }
  }

  /** What a server agrees on keys with: the file's, or those of RFC 7919 and 3526 that suit the cipher. */
  protected diffieHellman(): string {
    const path = this.optional('dh-params.pem');
    if (path === undefined) return 'auto';
    const pem = read(path);
    // Node takes parameters that it cannot read for none.
    if (!pem.includes('-----BEGIN DH PARAMETERS-----'))
      throw fail(`Unable to load DH parameters from ${path}: Base64 unexpected header error.`);
    try {
      createSecureContext({ dhparam: pem });
    } catch (error) {
      throw fail(`Unable to load DH parameters from ${path}: ${messageOf(error)}`, error);
    }
    return pem;
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch (error) {
    throw fail(`Failed to open file “${path}”: ${reasonOf(error)}`, error);
  }
}

/** A certificate and its private key, and the authorities that the other side's is measured by. */
export class X509Credentials extends Credentials {
  readonly kind = 'x509';
  readonly #options: X509Options;
  #context: SecureContextOptions;

  /** @throws SouthbridgeError ERR_TLS, with QEMU's words, where a file is missing, unusable or makes no sense */
  constructor(options: X509Options) {
    super(options);
    this.#options = options;
    this.#context = this.#load();
  }

  get context(): SecureContextOptions {
    return this.#context;
  }

  /** Reads the files anew; where one is wrong, what was there before stays. */
  reload(): void {
    this.#context = this.#load();
  }

  #load(): SecureContextOptions {
    const { endpoint, sanityCheck } = this.#options;
    const server = endpoint === 'server';
    const authorities = this.required('ca-cert.pem');
    const revoked = server ? this.optional('ca-crl.pem') : undefined;
    const find = (name: string): string | undefined => (server ? this.required(name) : this.optional(name));
    const certificate = find(`${endpoint}-cert.pem`);
    const key = find(`${endpoint}-key.pem`);
    if (sanityCheck) {
      const own = certificate === undefined ? undefined : { path: certificate, pem: read(certificate) };
      checkFiles(endpoint, { path: authorities, pem: read(authorities) }, own);
    }
    const own = certificate === undefined || key === undefined ? {} : this.#ownPair(certificate, key);
    return {
      ...this.#trust(authorities),
      ...own,
      ...(revoked !== undefined && this.#revocations(revoked)),
      ...(server && { dhparam: this.diffieHellman() }),
    };
  }

  #trust(path: string): SecureContextOptions {
    const ca = read(path);
    try {
      if (certificatesOf(ca).length === 0) throw new Error('there is no certificate in it');
      createSecureContext({ ca });
    } catch (error) {
      throw fail(`Cannot load CA certificate '${path}': ${messageOf(error)}`, error);
    }
    // A certificate in the list is trusted even where it is not the root of its chain, as by GnuTLS.
    return { ca, allowPartialTrustChain: true };
  }

  #ownPair(certificate: string, key: string): SecureContextOptions {
    const passphrase = this.#options.password?.();
    const cert = read(certificate);
    try {
      const pem = createPrivateKey({ key: read(key), ...(passphrase !== undefined && { passphrase }) }).export({
        type: 'pkcs8',
        format: 'pem',
      });
      createSecureContext({ cert, key: pem });
      return { cert, key: pem };
    } catch (error) {
      throw fail(`Cannot load certificate '${certificate}' & key '${key}': ${messageOf(error)}`, error);
    }
  }

  #revocations(path: string): SecureContextOptions {
    const crl = read(path);
    try {
      createSecureContext({ crl });
    } catch (error) {
      throw fail(`Cannot load CRL '${path}': ${messageOf(error)}`, error);
    }
    return { crl };
  }
}

/** A secret that both sides know (RFC 4279). */
export class PskCredentials extends Credentials {
  readonly kind = 'psk';
  readonly #path: string;
  /** The name that a client gives. */
  readonly username: string;
  readonly context: SecureContextOptions;

  /** @throws SouthbridgeError ERR_TLS, with QEMU's words, where the file is missing or the name is not in it */
  constructor(options: PskOptions) {
    super(options);
    const server = options.endpoint === 'server';
    if (server && options.username !== undefined) throw fail('username should not be set when endpoint=server');
    this.context = server ? { dhparam: this.diffieHellman() } : {};
    this.#path = this.required('keys.psk');
    this.username = options.username ?? DEFAULT_USERNAME;
    if (server) return;
    if (this.keyOf(this.username) === undefined)
      throw fail(`Username ${this.username} not found in PSK file ${this.#path}`);
  }

  /** The key that belongs to a name; the file is read anew, as it may have changed. */
  keyOf(username: string): Buffer | undefined {
    const prefix = `${username}:`;
    const line = readPsk(this.#path).find(one => one.startsWith(prefix));
    if (line === undefined) return undefined;
    const digits = line.slice(prefix.length).trimEnd();
    if (!/^(?:[0-9a-fA-F]{2})+$/.test(digits))
      throw fail(`Cannot set PSK client credentials: the key of ${username} in ${this.#path} is not hexadecimal`);
    return Buffer.from(digits, 'hex');
  }
}

function readPsk(path: string): string[] {
  try {
    return readFileSync(path, 'utf8').split('\n');
  } catch (error) {
    throw fail(`Cannot read PSK file ${path}: Failed to open file “${path}”: ${reasonOf(error)}`, error);
  }
}

/** No credentials at all: what is said is secret, but nobody knows to whom it is said. */
export class AnonymousCredentials extends Credentials {
  readonly kind = 'anon';
  readonly context: SecureContextOptions;

  constructor(options: TlsCredentialsOptions) {
    super(options);
    this.context = options.endpoint === 'server' ? { dhparam: this.diffieHellman() } : {};
  }
}
