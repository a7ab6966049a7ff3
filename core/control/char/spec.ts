import type { SocketAddress } from '../../char/socket.ts';
import { GROUPS } from '../options/groups.ts';
import { OptionError, type Opts, Opts as OptsClass, parseOpts } from '../options/opts.ts';
import type { Value } from '../qapi/declare.ts';
import type { ChardevBackend } from '../qapi/schema/char.ts';

/** What a character device is to be, however it was asked for. */
export type ChardevSpec = (
  | { readonly kind: 'null' | 'vc' | 'pty' | 'msmouse' | 'testdev' }
  | { readonly kind: 'stdio'; readonly signal: boolean }
  | { readonly kind: 'file'; readonly path: string; readonly append: boolean; readonly input?: string }
  | { readonly kind: 'pipe' | 'serial' | 'parallel'; readonly path: string }
  | { readonly kind: 'ringbuf'; readonly size: number }
  | {
      readonly kind: 'udp';
      readonly host: string;
      readonly port: number;
      readonly localHost: string;
      readonly localPort: number;
    }
  | { readonly kind: 'mux'; readonly base: string }
  | {
      readonly kind: 'socket';
      readonly address: SocketAddress;
      readonly server: boolean;
      readonly wait: boolean;
      readonly telnet: boolean;
      readonly websocket: boolean;
      readonly nodelay: boolean;
      readonly reconnect: number;
      readonly tls?: { readonly creds: string; readonly authz: string | undefined };
    }
) & { readonly log?: { readonly path: string; readonly append: boolean } };

/** Kinds that `-chardev help` lists, and their second names. */
export const CHARDEV_KINDS = [
  'ringbuf',
  'mux',
  'pipe',
  'null',
  'vc',
  'serial',
  'file',
  'stdio',
  'parallel',
  'udp',
  'pty',
  'socket',
  'memory',
  'msmouse',
  'testdev',
] as const;
/** Kinds of QEMU's that are not here, and what to take instead. */
const ABSENT: ReadonlyMap<string, string> = new Map([
  ['wctablet', 'take -device usb-tablet or virtio-tablet-pci'],
  ['braille', 'put the display driver on the host, behind a socket or a pty'],
  ['console', 'it is for Windows hosts: take stdio'],
  ['dbus', 'take socket'],
  ['qemu-vdagent', 'there is no SPICE agent'],
  ['spicevmc', 'there is no SPICE server'],
  ['spiceport', 'there is no SPICE server'],
]);
const SYNONYMS: ReadonlyMap<string, string> = new Map([
  ['tty', 'serial'],
  ['parport', 'parallel'],
  ['memory', 'ringbuf'],
]);

/** The values of `-chardev`, without those of the mux that may stand before it. Throws OptionError. */
export function specFromOpts(opts: Opts): ChardevSpec {
  const given = opts.string('backend');
  if (given === undefined) throw new OptionError(`chardev: "${opts.id}" missing backend`);
  const logfile = opts.string('logfile');
  const log = logfile === undefined ? {} : { log: { path: logfile, append: opts.bool('logappend') ?? false } };
  return { ...kindFromOpts(SYNONYMS.get(given) ?? given, opts), ...log };
}

function kindFromOpts(kind: string, opts: Opts): ChardevSpec {
  switch (kind) {
    case 'null':
    case 'vc':
    case 'pty':
    case 'msmouse':
    case 'testdev':
      return { kind };
    case 'stdio':
      return { kind, signal: opts.bool('signal') ?? true };
    case 'file': {
      const input = opts.string('input-path');
      return {
        kind,
        path: required(opts, kind, 'path', 'no filename given'),
        append: opts.bool('append') ?? false,
        ...(input !== undefined && { input }),
      };
    }
    case 'pipe':
      return { kind, path: required(opts, kind, 'path', 'no device path given') };
    case 'serial':
    case 'parallel':
      return { kind, path: required(opts, `${kind}/tty`, 'path', 'no device path given') };
    case 'ringbuf':
      return { kind, size: opts.size('size') ?? 65536 };
    case 'mux':
      return { kind, base: required(opts, kind, 'chardev', 'no chardev given') };
    case 'udp':
      return {
        kind,
        host: opts.string('host') || 'localhost',
        port: Number(required(opts, kind, 'port', 'remote port not specified')),
        localHost: opts.string('localaddr') ?? '',
        localPort: opts.number('localport') ?? 0,
      };
    case 'socket':
      return socketFromOpts(opts);
    default:
      throw new OptionError(`'${kind}' is not a valid char driver name`, ABSENT.get(kind));
  }
}

function required(opts: Opts, kind: string, key: string, complaint: string): string {
  const value = opts.string(key);
  if (value === undefined) throw new OptionError(`chardev: ${kind}: ${complaint}`);
  return value;
}

function socketFromOpts(opts: Opts): ChardevSpec {
  const path = opts.string('path');
  const host = opts.string('host');
  const port = opts.string('port');
  const fd = opts.string('fd');
  if ([path, host, fd].filter(value => value !== undefined).length > 1) {
    throw new OptionError("None or one of 'path', 'fd' or 'host' option required.");
  }
  if (host !== undefined && port === undefined) throw new OptionError('chardev: socket: no port given');
  if (opts.has('delay') && opts.has('nodelay')) throw new OptionError("'delay' and 'nodelay' are mutually exclusive");
  const server = opts.bool('server') ?? false;
  const address = ((): SocketAddress => {
    if (path !== undefined) {
      return { type: 'unix', path, abstract: opts.bool('abstract') ?? false, tight: opts.bool('tight') ?? true };
    }
    if (host !== undefined) {
      const to = opts.number('to');
      return {
        type: 'inet',
        host,
        port: port ?? '',
        ...(to !== undefined && { to }),
        ipv6: opts.bool('ipv6') ?? false,
      };
    }
    return { type: 'fd', fd: fdNumber(fd ?? '') };
  })();
  return checkSocket(
    {
      kind: 'socket',
      address,
      server,
      wait: server && (opts.bool('wait') ?? true),
      telnet: opts.bool('telnet') ?? false,
      websocket: opts.bool('websocket') ?? false,
      nodelay: opts.bool('delay') === false || (opts.bool('nodelay') ?? false),
      reconnect: opts.number('reconnect') ?? 0,
    },
    {
      wait: opts.has('wait'),
      reconnect: opts.has('reconnect'),
      creds: opts.string('tls-creds'),
      authz: opts.string('tls-authz'),
    },
  );
}

function fdNumber(text: string): number {
  if (!/^[0-9]+$/.test(text))
    throw new OptionError(`Unable to parse fd '${text}'`, 'give the number of an inherited file descriptor');
  return Number(text);
}

interface SocketGiven {
  readonly wait: boolean;
  readonly reconnect: boolean;
  readonly creds: string | undefined;
  readonly authz: string | undefined;
}

function checkSocket(spec: Extract<ChardevSpec, { kind: 'socket' }>, given: SocketGiven): ChardevSpec {
  if (spec.address.type === 'fd' && given.reconnect) {
    throw new OptionError("'reconnect' option is incompatible with 'fd' address type");
  }
  checkTls(spec, given);
  if (spec.server && given.reconnect) {
    throw new OptionError("'reconnect' option is incompatible with socket in server listen mode");
  }
  if (!spec.server && spec.websocket) throw new OptionError('Websocket client is not implemented');
  if (!spec.server && given.wait) {
    throw new OptionError("'wait' option is incompatible with socket in client connect mode");
  }
  return given.creds === undefined ? spec : { ...spec, tls: { creds: given.creds, authz: given.authz } };
}

function checkTls({ address, server }: Extract<ChardevSpec, { kind: 'socket' }>, given: SocketGiven): void {
  if (given.creds === undefined) {
    if (given.authz !== undefined) throw new OptionError("'tls_authz' option requires 'tls_creds' option");
    return;
  }
  if (address.type === 'unix') throw new OptionError("'tls_creds' option is incompatible with 'unix' address type");
  if (address.type === 'fd' && !server)
    throw new OptionError("'tls_creds' option is incompatible with 'fd' address type as client");
}

/** The older form, `tcp:host:port,server=on`, `unix:path`, `stdio`, `file:path`; undefined where it is none. */
export function optsFromCompat(label: string, text: string): Opts | undefined {
  const opts = new OptsClass(GROUPS.chardev, label);
  const set = (key: string, value: string | undefined): void => {
    if (value !== undefined) opts.set(key, value);
  };
  const monitor = text.startsWith('mon:');
  const device = monitor ? text.slice(4) : text;
  if (monitor) {
    set('mux', 'on');
    // Ctrl-C is the guest's where Ctrl-A x ends the program.
    if (device === 'stdio') set('signal', 'off');
  }
  const [prefix = '', rest = ''] = splitOnce(device, ':');
  if (['null', 'pty', 'msmouse', 'wctablet', 'braille', 'testdev', 'stdio'].includes(device)) set('backend', device);
  else if (prefix === 'vc') set('backend', 'vc');
  else if (prefix === 'file' || prefix === 'pipe') {
    set('backend', prefix);
    set('path', rest);
  } else if (['tcp', 'telnet', 'tn3270', 'websocket'].includes(prefix)) {
    const match = /^([^:]{0,64}):([^,]{1,32})(?:,(.*))?$/s.exec(rest);
    if (match === null) return undefined;
    set('backend', 'socket');
    set('host', match[1]);
    set('port', match[2]);
    if (match[3] !== undefined) opts.parse(match[3]);
    if (prefix !== 'tcp') set(prefix, 'on');
  } else if (prefix === 'udp') {
    const match = /^([^:]{0,64}):([^@,]{1,32})(?:@([^:]{0,64}):([^,]{1,32}))?$/.exec(rest);
    if (match === null) return undefined;
    set('backend', 'udp');
    set('host', match[1]);
    set('port', match[2]);
    set('localaddr', match[3]);
    set('localport', match[4]);
  } else if (prefix === 'unix') {
    set('backend', 'socket');
    for (const { key, value } of parseOpts({ ...GROUPS.chardev, impliedKey: 'path' }, rest).values) set(key, value);
  } else if (device.startsWith('/dev/parport') || device.startsWith('/dev/ppi')) {
    set('backend', 'parallel');
    set('path', device);
  } else if (device.startsWith('/dev/')) {
    set('backend', 'serial');
    set('path', device);
  } else return undefined;
  return opts;
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + separator.length)];
}

/**
 * The backend of `chardev-add`; its defaults differ from the command line's.
 * @param named takes over a file descriptor that the client passed under a name
 */
export function specFromQapi(
  backend: Value<typeof ChardevBackend>,
  named: (name: string) => number | undefined,
): ChardevSpec {
  const log = (data: {
    readonly logfile?: string | undefined;
    readonly logappend?: boolean | undefined;
  }): Partial<ChardevSpec> =>
    data.logfile === undefined ? {} : { log: { path: data.logfile, append: data.logappend ?? false } };
  switch (backend.type) {
    case 'null':
    case 'vc':
    case 'pty':
    case 'msmouse':
    case 'testdev':
      return { kind: backend.type };
    case 'stdio':
      return { kind: 'stdio', signal: backend.data.signal ?? true };
    case 'file': {
      const { in: input, out, append } = backend.data;
      return {
        ...log(backend.data),
        kind: 'file',
        path: out,
        append: append ?? false,
        ...(input !== undefined && { input }),
      };
    }
    case 'pipe':
    case 'serial':
    case 'parallel':
      return { kind: backend.type, path: backend.data.device };
    case 'ringbuf':
    case 'memory':
      return { kind: 'ringbuf', size: Number(backend.data.size ?? 65536) };
    case 'mux':
      return { kind: 'mux', base: backend.data.chardev };
    case 'udp': {
      const { remote, local } = backend.data;
      if (remote.type !== 'inet') throw new OptionError('udp chardevs need an inet address');
      const near = local?.type === 'inet' ? local.data : undefined;
      return {
        kind: 'udp',
        host: remote.data.host,
        port: Number(remote.data.port),
        localHost: near?.host ?? '',
        localPort: Number(near?.port ?? 0),
      };
    }
    case 'socket': {
      const { addr, server = true, wait, telnet, nodelay, reconnect, websocket } = backend.data;
      return checkSocket(
        {
          ...log(backend.data),
          kind: 'socket',
          address: addressFromQapi(addr, named),
          server,
          wait: server && (wait ?? false),
          telnet: telnet ?? false,
          websocket: websocket ?? false,
          nodelay: nodelay ?? false,
          reconnect: Number(reconnect ?? 0),
        },
        {
          wait: wait !== undefined,
          reconnect: reconnect !== undefined,
          creds: backend.data['tls-creds'],
          authz: backend.data['tls-authz'],
        },
      );
    }
    default:
      throw new OptionError(`chardev backend is not supported by this program`);
  }
}

type QapiSocket = Extract<Value<typeof ChardevBackend>, { type: 'socket' }>['data']['addr'];

function addressFromQapi(address: QapiSocket, named: (name: string) => number | undefined): SocketAddress {
  switch (address.type) {
    case 'unix':
      return {
        type: 'unix',
        path: address.data.path,
        abstract: address.data.abstract ?? false,
        tight: address.data.tight ?? true,
      };
    case 'inet':
      return {
        type: 'inet',
        host: address.data.host,
        port: address.data.port,
        ...(address.data.to !== undefined && { to: address.data.to }),
        ipv6: address.data.ipv6 ?? false,
      };
    case 'fd':
      return { type: 'fd', fd: named(address.data.str) ?? fdNumber(address.data.str) };
    default:
      throw new OptionError('socket address type is not supported by this program');
  }
}
