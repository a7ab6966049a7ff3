import { SouthbridgeError } from '../errors.ts';
import { mayStartPrograms } from '../host/sandbox.ts';
import { Slirp, type SlirpConfig } from '../host/slirp.ts';
import { formatIpv4, parseIpv4 } from './ipv4.ts';
import { type NetBackend, NetClient, type NetReceiver } from './net-client.ts';

/** `-netdev user`: QEMU's NetdevUserOptions (QAPI). */
export interface UserNetOptions {
  readonly hostname?: string | undefined;
  readonly restrict?: boolean | undefined;
  readonly ipv4?: boolean | undefined;
  readonly ipv6?: boolean | undefined;
  /** The older spelling of `net`. */
  readonly ip?: string | undefined;
  readonly net?: string | undefined;
  readonly host?: string | undefined;
  readonly tftp?: string | undefined;
  readonly bootfile?: string | undefined;
  readonly dhcpstart?: string | undefined;
  readonly dns?: string | undefined;
  readonly dnssearch?: readonly string[] | undefined;
  readonly domainname?: string | undefined;
  readonly 'ipv6-prefix'?: string | undefined;
  readonly 'ipv6-prefixlen'?: number | undefined;
  readonly 'ipv6-host'?: string | undefined;
  readonly 'ipv6-dns'?: string | undefined;
  readonly 'tftp-server-name'?: string | undefined;
  readonly hostfwd?: readonly string[] | undefined;
  readonly guestfwd?: readonly string[] | undefined;
}

const DEFAULT_NET = '10.0.2.0/24';
/** The hosts of the network by their last two bytes: gateway, name server, first guest. */
const GATEWAY = 0x0202;
const NAME_SERVER = 0x0203;
const FIRST_GUEST = 0x020f;
const NAME_LIMIT = 255;
/** Without the checksum (IEEE 802.3, section 3.2.7): cards expect at least this. */
const SHORTEST_FRAME = 60;

const refuse = (message: string): never => {
  throw new SouthbridgeError('ERR_NETDEV', message);
};

/** A network of the guest's own behind this process, which makes its connections: no privilege needed. */
export class UserNet implements NetBackend, NetReceiver {
  readonly id: string;
  readonly client: NetClient;
  readonly #slirp: Slirp;
  readonly #padded = new Uint8Array(SHORTEST_FRAME);

  /** @throws SouthbridgeError ERR_NETDEV with QEMU's text, ERR_SLIRP_MISSING where the host has no libslirp */
  constructor(id: string, options: UserNetOptions) {
    this.id = id;
    this.client = new NetClient(id, 'user', this);
    const config = userNetConfig(options);
    this.client.description = `net=${config.network},restrict=${options.restrict ? 'on' : 'off'}`;
    this.#slirp = new Slirp(config, { frame: (frame, length) => this.#toGuest(frame, length) });
    try {
      for (const rule of options.hostfwd ?? []) this.addHostForward(rule);
      for (const rule of options.guestfwd ?? []) this.#addGuestForward(rule);
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  canReceive(): boolean {
    return true;
  }

  receive(frame: Uint8Array, length: number): boolean {
    this.#slirp.input(frame, length);
    return true;
  }

  /** `hostfwd`: `[tcp|udp]:[host address]:host port-[guest address]:guest port`. */
  addHostForward(rule: string): void {
    const { protocol, address, port, rest } = splitForward(rule);
    const separator = rest.indexOf(':');
    if (separator < 0) refuseHostForward(rule, 'Missing guest address');
    const guest = rest.slice(0, separator);
    if (guest !== '' && parseIpv4(guest) === undefined) refuseHostForward(rule, 'Bad guest address');
    const guestPort = portNumber(rest.slice(separator + 1));
    if (guestPort === undefined || guestPort === 0) refuseHostForward(rule, 'Bad guest port');
    else if (!this.#slirp.addHostForward(protocol, address, port, guest, guestPort)) {
      refuse(`Could not set up host forwarding rule '${rule}'`);
    }
  }

  /** `hostfwd_remove`: `[tcp|udp]:[host address]:host port`. False where there is no such rule. */
  removeHostForward(rule: string): boolean {
    const match = /^(tcp|udp|):([^:]*):(\d+)$/.exec(rule);
    if (match === null) throw new SouthbridgeError('ERR_NETDEV', 'invalid format');
    return this.#slirp.removeHostForward(match[1] === 'udp' ? 'udp' : 'tcp', match[2] ?? '', Number(match[3]));
  }

  /** The table of `info usernet`. */
  connectionInfo(): string {
    return this.#slirp.connectionInfo();
  }

  dispose(): void {
    this.#slirp.close();
    this.client.disconnect();
  }

  /** `guestfwd`: `[tcp]:server:port-cmd:command`, or a unix socket's path in place of a character device. */
  #addGuestForward(rule: string): void {
    const match = /^(?:tcp)?:([^:]*):(\d+)-(cmd:|unix:)(.+)$/.exec(rule);
    const port = Number(match?.[2]);
    if (match === null || port < 1 || port > 0xffff) refuse(`Invalid guest forwarding rule '${rule}'`);
    const [, server = '', , kind, target = ''] = match ?? [];
    if (kind === 'cmd:') mayStartPrograms(`guest forwarding rule '${rule}'`);
    if (!this.#slirp.addGuestForward(kind === 'cmd:' ? 'command' : 'unix', target, server || '0.0.0.0', port)) {
      refuse(`Conflicting/invalid host:port in guest forwarding rule '${rule}'`);
    }
  }

  #toGuest(frame: Uint8Array, length: number): void {
    if (length >= SHORTEST_FRAME) {
      this.client.send(frame, length);
      return;
    }
    this.#padded.fill(0);
    for (let index = 0; index < length; index++) this.#padded[index] = frame[index] ?? 0;
    this.client.send(this.#padded, SHORTEST_FRAME);
  }
}

/** The addresses that follow from the options. @throws SouthbridgeError ERR_NETDEV with QEMU's text */
export function userNetConfig(options: UserNetOptions): SlirpConfig & { readonly network: string } {
  const net = options.net ?? options.ip;
  const { ipv4 = true, ipv6 = true, restrict = false } = options;
  if (options.ipv4 === false && (net ?? options.host ?? options.dns) !== undefined) {
    refuse('IPv4 disabled but netmask/host/dns provided');
  }
  if (options.ipv6 === false && (options['ipv6-prefix'] ?? options['ipv6-host'] ?? options['ipv6-dns']) !== undefined) {
    refuse('IPv6 disabled but prefix/host6/dns6 provided');
  }
  if (!ipv4 && !ipv6) refuse('IPv4 and IPv6 disabled');

  const { network, mask } = parseNetwork(net ?? DEFAULT_NET);
  const inside = (address: number): boolean => (address & mask) >>> 0 === network;
  const place = (text: string | undefined, low: number, failure: string): number =>
    text === undefined ? (network | (low & ~mask)) >>> 0 : (parseIpv4(text) ?? refuse(failure));
  const host = place(options.host, GATEWAY, 'Failed to parse host');
  if (!inside(host)) refuse("Host doesn't belong to network");
  const nameServer = place(options.dns, NAME_SERVER, 'Failed to parse DNS');
  if (restrict && !inside(nameServer)) refuse("DNS doesn't belong to network");
  if (nameServer === host) refuse('DNS must be different from host');
  const dhcpStart = place(options.dhcpstart, FIRST_GUEST, 'Failed to parse DHCP start address');
  if (!inside(dhcpStart)) refuse("DHCP doesn't belong to network");
  if (dhcpStart === host || dhcpStart === nameServer) refuse('DHCP must be different from host and DNS');

  const prefix6Length = options['ipv6-prefixlen'] ?? 64;
  if (prefix6Length < 0 || prefix6Length > 126) {
    refuse('Invalid IPv6 prefix provided (IPv6 prefix length must be between 0 and 126)');
  }
  if (options.domainname === '') refuse("'domainname' parameter cannot be empty");
  for (const [name, text] of [
    ['domainname', options.domainname],
    ['vhostname', options.hostname],
    ['tftp-server-name', options['tftp-server-name']],
  ] as const) {
    if (text !== undefined && text.length > NAME_LIMIT) refuse(`'${name}' parameter cannot exceed 255 bytes`);
  }
  const prefix6 = options['ipv6-prefix'] ?? 'fec0::';
  const addressIn6 = (last: string): string => (prefix6.endsWith('::') ? prefix6 + last : prefix6);
  return {
    restricted: restrict,
    ipv4,
    network: formatIpv4(network),
    mask: formatIpv4(mask),
    host: formatIpv4(host),
    dhcpStart: formatIpv4(dhcpStart),
    nameServer: formatIpv4(nameServer),
    ipv6,
    prefix6,
    prefix6Length: prefix6Length === 0 ? 64 : prefix6Length,
    host6: options['ipv6-host'] ?? addressIn6('2'),
    nameServer6: options['ipv6-dns'] ?? addressIn6('3'),
    ...(options.hostname !== undefined && { hostName: options.hostname }),
    ...(options.tftp !== undefined && { tftpPath: options.tftp }),
    ...(options.bootfile !== undefined && { bootFile: options.bootfile }),
    ...(options['tftp-server-name'] !== undefined && { tftpServerName: options['tftp-server-name'] }),
    ...(options.dnssearch !== undefined && { dnsSearch: options.dnssearch }),
    ...(options.domainname !== undefined && { domainName: options.domainname }),
  };
}

/** `address`, `address/bits` or `address/mask`; an address alone has the mask of its class or of its private block. */
function parseNetwork(text: string): { network: number; mask: number } {
  const [address = '', suffix] = text.split('/', 2);
  const value = parseIpv4(address) ?? refuse('Failed to parse netmask');
  let mask: number;
  if (suffix === undefined) mask = classMask(value);
  else if (/^\d+$/.test(suffix)) {
    const bits = Number(suffix);
    if (bits < 4 || bits > 32) refuse('Invalid netmask provided (must be in range 4-32)');
    mask = (0xffff_ffff << (32 - bits)) >>> 0;
  } else {
    mask = parseIpv4(suffix) ?? refuse('Failed to parse netmask (trailing chars)');
  }
  return { network: (value & mask) >>> 0, mask };
}

function classMask(address: number): number {
  const starts = (bits: number, value: number): boolean => (address & bits) >>> 0 === value;
  if (address < 0x8000_0000) return 0xff00_0000;
  if (starts(0xfff0_0000, 0xac10_0000)) return 0xfff0_0000;
  if (starts(0xc000_0000, 0x8000_0000) || starts(0xffff_0000, 0xc0a8_0000)) return 0xffff_0000;
  if (starts(0xffff_0000, 0xc612_0000)) return 0xfffe_0000;
  return starts(0xe000_0000, 0xe000_0000) ? 0xffff_ff00 : 0xffff_fff0;
}

function refuseHostForward(rule: string, why: string): never {
  throw new SouthbridgeError('ERR_NETDEV', `Invalid host forwarding rule '${rule}' (${why})`);
}

function splitForward(rule: string): { protocol: 'tcp' | 'udp'; address: string; port: number; rest: string } {
  const [name, address, ...others] = rule.split(':');
  if (address === undefined) refuseHostForward(rule, 'No : separators');
  if (name !== 'tcp' && name !== 'udp' && name !== '') refuseHostForward(rule, 'Bad protocol name');
  if (others.length === 0) refuseHostForward(rule, 'Missing : separator');
  if (address !== '' && parseIpv4(address) === undefined) refuseHostForward(rule, 'Bad host address');
  const tail = others.join(':');
  const dash = tail.indexOf('-');
  if (dash < 0) refuseHostForward(rule, 'Bad host port separator');
  const port = portNumber(tail.slice(0, dash));
  if (port === undefined) refuseHostForward(rule, 'Bad host port');
  return { protocol: name === 'udp' ? 'udp' : 'tcp', address, port, rest: tail.slice(dash + 1) };
}

function portNumber(text: string): number | undefined {
  return /^\d+$/.test(text) && Number(text) <= 0xffff ? Number(text) : undefined;
}
