import type { SharePolicy } from '../../display/vnc/server.ts';
import { OptionError, type Opts } from '../options/opts.ts';

const VNC_PORTS = 5900;
const WEBSOCKET_PORTS = 5700;
const MAX_PORT = 65_535;
const SHARE_POLICIES: readonly SharePolicy[] = ['allow-exclusive', 'force-shared', 'ignore'];

/** Where a server listens, or, in reverse, a client waits. */
export type VncPlace =
  | { readonly type: 'unix'; readonly path: string }
  | {
      readonly type: 'inet';
      readonly host: string;
      readonly port: number;
      /** The last port to try. */
      readonly to: number | undefined;
      readonly family: 'ipv4' | 'ipv6' | undefined;
    };

/** What one `-vnc` asks for. */
export interface VncRequest {
  readonly id: string;
  readonly places: readonly VncPlace[];
  readonly webSockets: readonly VncPlace[];
  readonly reverse: boolean;
  /** The user wants to know which port it has become. */
  readonly announce: boolean;
  readonly password: boolean;
  /** The id of a secret object with the password. */
  readonly passwordSecret: string | undefined;
  /** The ids of TLS credentials, and of who decides over certificates. */
  readonly tls: { readonly creds: string; readonly authz: string | undefined } | undefined;
  readonly share: SharePolicy;
  readonly connections: number;
  readonly lockKeySync: boolean;
  readonly keyDelayMs: number;
  readonly powerControl: boolean;
  readonly audiodev: string | undefined;
  readonly screen: { readonly device: string; readonly head: number } | undefined;
}

/**
 * The parameters of `-vnc`, checked, with QEMU's errors.
 * @param id where the user gave none
 * @throws OptionError
 */
export function vncRequest(opts: Opts, id: string): VncRequest {
  const reverse = opts.bool('reverse') ?? false;
  const { places, webSockets } = addresses(opts, reverse);
  if (opts.has('password-secret') && opts.has('password'))
    throw new OptionError("'password' flag is redundant with 'password-secret'");
  if (opts.bool('sasl')) throw new OptionError('VNC SASL auth requires cyrus-sasl support');
  const creds = opts.string('tls-creds');
  const authz = opts.string('tls-authz');
  if (creds === undefined && authz !== undefined) throw new OptionError("'tls-authz' provided but TLS is not enabled");
  if (opts.has('sasl-authz')) throw new OptionError("'sasl-authz' provided but SASL auth is not enabled");
  const policy = opts.string('share') ?? 'allow-exclusive';
  const share = SHARE_POLICIES.find(candidate => candidate === policy);
  if (share === undefined) throw new OptionError('unknown vnc share= option');
  if (reverse && webSockets.length > 0) throw new OptionError('Cannot use websockets in reverse mode');
  if (reverse && places.length !== 1) throw new OptionError('Expected a single address in reverse mode');
  const device = opts.string('display');
  return {
    id: opts.id ?? id,
    places,
    webSockets,
    reverse,
    announce: opts.has('to'),
    password: opts.has('password-secret') || (opts.bool('password') ?? false),
    passwordSecret: opts.string('password-secret'),
    tls: creds === undefined ? undefined : { creds, authz },
    share,
    connections: opts.number('connections') ?? 32,
    lockKeySync: opts.bool('lock-key-sync') ?? true,
    keyDelayMs: opts.number('key-delay-ms') ?? 10,
    powerControl: opts.bool('power-control') ?? false,
    audiodev: opts.string('audiodev'),
    screen: device === undefined ? undefined : { device, head: opts.number('head') ?? 0 },
  };
}

function addresses(opts: Opts, reverse: boolean): { places: VncPlace[]; webSockets: VncPlace[] } {
  const given = opts.all('vnc');
  const first = opts.string('vnc');
  if (first === undefined || first === 'none') return { places: [], webSockets: [] };
  const places = given.map(text => vncPlace(text, opts, reverse));
  const [only] = places;
  // The only address gives websockets their default host and port.
  const display = places.length === 1 && only?.type === 'inet' ? only.port - (reverse ? 0 : VNC_PORTS) : undefined;
  const host = places.length === 1 && only?.type === 'inet' ? only.host : '';
  const webSockets = opts.all('websocket').map(text => webSocketPlace(text, opts, display, host));
  return { places, webSockets };
}

function vncPlace(text: string, opts: Opts, reverse: boolean): VncPlace {
  const to = opts.number('to');
  if (text.startsWith('unix:')) {
    if (to) throw new OptionError('Port range not support with UNIX socket');
    return { type: 'unix', path: text.slice('unix:'.length) };
  }
  const colon = text.lastIndexOf(':');
  if (colon < 0) throw new OptionError('no vnc port specified');
  const digits = text.slice(colon + 1);
  if (digits === '') throw new OptionError('vnc port cannot be empty');
  if (!/^\d+$/.test(digits)) throw new OptionError(`can't convert to a number: ${digits}`);
  const offset = reverse ? 0 : VNC_PORTS;
  const port = Number(digits) + offset;
  if (port > MAX_PORT) throw new OptionError(`port ${digits} out of range`);
  const last = to ? to + offset : undefined;
  return { type: 'inet', host: unbracketed(text.slice(0, colon)), port, to: last, family: family(opts) };
}

/** `on`, a port, or a host with a port: a websocket's port is not counted from 5900. */
function webSocketPlace(text: string, opts: Opts, display: number | undefined, defaultHost: string): VncPlace {
  if (text.startsWith('unix:')) throw new OptionError('UNIX sockets not supported with websock');
  const to = opts.number('to');
  if (text === '' || text === 'on') {
    if (display === undefined) throw new OptionError('explicit websocket port is required');
    const last = to ? to + WEBSOCKET_PORTS : undefined;
    return { type: 'inet', host: defaultHost, port: display + WEBSOCKET_PORTS, to: last, family: family(opts) };
  }
  const colon = text.lastIndexOf(':');
  const host = unbracketed(colon < 0 ? '' : text.slice(0, colon));
  const port = Number(text.slice(colon + 1));
  if (!Number.isInteger(port) || port > MAX_PORT) throw new OptionError(`can't convert to a number: ${text}`);
  return { type: 'inet', host: host === '' ? defaultHost : host, port, to: undefined, family: family(opts) };
}

const unbracketed = (host: string): string => (host.startsWith('[') && host.endsWith(']') ? host.slice(1, -1) : host);

const family = (opts: Opts): 'ipv4' | 'ipv6' | undefined =>
  opts.bool('ipv4') ? 'ipv4' : opts.bool('ipv6') ? 'ipv6' : undefined;
