/** What stands behind `-object tls-creds-*` and `-object authz-*`, for those who speak TLS. Loaded with the first of them. */
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { type Authorizer, byRules, onlyFor, RulesFile } from '../../tls/authorization.ts';
import {
  AnonymousCredentials,
  PskCredentials,
  type TlsCredentials,
  type TlsEndpoint,
  X509Credentials,
} from '../../tls/credentials.ts';
import { parseJson } from '../json/stream.ts';
import { isObject } from '../json/value.ts';
import type { Program } from '../program.ts';
import { QmpError } from '../qapi/error.ts';
import { AuthZListProperties } from '../qapi/schema/authz.ts';
import { ROOT } from '../qapi/types.ts';
import { secretBytes, type UserObject, type UserObjects } from './objects.ts';

const credentials = new WeakMap<UserObject, TlsCredentials>();
const authorizers = new WeakMap<UserObject, Authorizer>();

/** Loads the files of a `tls-creds-*` object. @throws SouthbridgeError ERR_TLS where they cannot be used */
export function openCredentials(objects: UserObjects, object: UserObject): void {
  credentials.set(object, load(objects, object));
}

function load(objects: UserObjects, { spec }: UserObject): TlsCredentials {
  switch (spec['qom-type']) {
    case 'tls-creds-x509': {
      const { passwordid } = spec;
      const password = passwordid === undefined ? undefined : (): string => secretText(objects, passwordid);
      return new X509Credentials({ ...common(spec), sanityCheck: spec['sanity-check'] ?? true, password });
    }
    case 'tls-creds-psk':
      return new PskCredentials({ ...common(spec), username: spec.username });
    case 'tls-creds-anon':
      return new AnonymousCredentials(common(spec));
    default:
      throw new QmpError(`'${spec['qom-type']}' is no type of TLS credentials`);
  }
}

interface CommonSpec {
  readonly dir?: string | undefined;
  readonly endpoint?: TlsEndpoint | undefined;
  readonly 'verify-peer'?: boolean | undefined;
  readonly priority?: string | undefined;
}

const common = (spec: CommonSpec) => ({
  dir: spec.dir,
  endpoint: spec.endpoint ?? 'client',
  verifyPeer: spec['verify-peer'] ?? true,
  priority: spec.priority,
});

function secretText(objects: UserObjects, id: string): string {
  const object = objects.get(id);
  if (object === undefined) throw new QmpError(`No secret with id '${id}'`);
  return Buffer.from(secretBytes(object)).toString('utf8');
}

/** Prepares the decisions of an `authz-*` object. @throws SouthbridgeError ERR_AUTHZ, QmpError for a file that is wrong */
export function openAuthorizer(program: Program, object: UserObject): void {
  const { spec } = object;
  switch (spec['qom-type']) {
    case 'authz-simple':
      authorizers.set(object, onlyFor(spec.identity));
      return;
    case 'authz-list':
      authorizers.set(object, byRules(spec));
      return;
    case 'authz-listfile': {
      const { filename } = spec;
      const parse = (text: string) => {
        const json = parseJson(text);
        if (!isObject(json)) throw new QmpError(`File '${filename}' must contain a JSON object`);
        return AuthZListProperties.read(json, ROOT);
      };
      const file = new RulesFile(filename, spec.refresh ?? true, parse, error => program.report.error(error));
      authorizers.set(object, file);
      object.onDelete = () => file.dispose();
    }
  }
}

/**
 * The credentials that somebody refers to.
 * @throws QmpError with QEMU's words where there are none, or they are for the other side
 */
export async function tlsCredentials(program: Program, id: string, endpoint: TlsEndpoint): Promise<TlsCredentials> {
  const object = (await program.objects()).get(id);
  if (object === undefined) throw new QmpError(`No TLS credentials with id '${id}'`);
  const found = credentials.get(object);
  if (found === undefined) throw new QmpError(`Object with id '${id}' is not TLS credentials`);
  if (found.endpoint !== endpoint) throw new QmpError(`Expected TLS credentials for a ${endpoint} endpoint`);
  return found;
}

/** The decisions of an `authz-*` object, which is only looked for when there is one to take: it may come later. */
export async function tlsAuthorizer(program: Program, id: string): Promise<Authorizer> {
  const objects = await program.objects();
  return {
    allows: identity => {
      const object = objects.get(id);
      if (object === undefined) throw new QmpError(`Cannot find QAuthZ object ID ${id}`);
      const found = authorizers.get(object);
      if (found === undefined) throw new QmpError(`Object '${id}' is not a QAuthZ subclass`);
      return found.allows(identity);
    },
  };
}

/** Who wants a connection to be secured, and how. */
export type TlsRequest = { readonly creds: string } & (
  | { readonly endpoint: 'client'; readonly hostname?: string | undefined }
  | { readonly endpoint: 'server'; readonly authz?: string | undefined }
);

/**
 * What makes connections TLS sessions. The objects of the command line are made for it where that has not been done.
 * @throws QmpError where the credentials are missing or for the other side
 */
export async function tlsUpgrade(
  program: Program,
  request: TlsRequest,
): Promise<(stream: Duplex) => Promise<TLSSocket>> {
  await program.earlyObjects();
  const creds = await tlsCredentials(program, request.creds, request.endpoint);
  const { tlsClient, tlsServer } = await import('../../tls/session.ts');
  if (request.endpoint === 'client') return stream => tlsClient(stream, creds, request.hostname);
  const authz = request.authz === undefined ? undefined : await tlsAuthorizer(program, request.authz);
  return stream => tlsServer(stream, creds, authz);
}
