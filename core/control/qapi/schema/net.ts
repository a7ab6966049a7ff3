import { command, event } from '../declare.ts';
import { array, bool, enumeration, int, int32, opt, size, str, struct, uint32, union } from '../types.ts';
import { StringHolder } from './common.ts';
import { SocketAddress } from './sockets.ts';

export const NetClientDriver = enumeration('NetClientDriver', [
  'none',
  'nic',
  'user',
  'tap',
  'socket',
  'stream',
  'dgram',
  'bridge',
  'hubport',
  'vhost-user',
]);
export const NetLegacyNicOptions = struct('NetLegacyNicOptions', {
  netdev: opt(str),
  macaddr: opt(str),
  model: opt(str),
  addr: opt(str),
  vectors: opt(uint32),
});
export const NetdevUserOptions = struct('NetdevUserOptions', {
  hostname: opt(str),
  restrict: opt(bool),
  ipv4: opt(bool),
  ipv6: opt(bool),
  ip: opt(str),
  net: opt(str),
  host: opt(str),
  tftp: opt(str),
  bootfile: opt(str),
  dhcpstart: opt(str),
  dns: opt(str),
  dnssearch: opt(array(StringHolder)),
  domainname: opt(str),
  'ipv6-prefix': opt(str),
  'ipv6-prefixlen': opt(int),
  'ipv6-host': opt(str),
  'ipv6-dns': opt(str),
  smb: opt(str),
  smbserver: opt(str),
  hostfwd: opt(array(StringHolder)),
  guestfwd: opt(array(StringHolder)),
  'tftp-server-name': opt(str),
});
export const NetdevTapOptions = struct('NetdevTapOptions', {
  ifname: opt(str),
  fd: opt(str),
  fds: opt(str),
  script: opt(str),
  downscript: opt(str),
  br: opt(str),
  helper: opt(str),
  sndbuf: opt(size),
  vnet_hdr: opt(bool),
  vhost: opt(bool),
  vhostfd: opt(str),
  vhostfds: opt(str),
  vhostforce: opt(bool),
  queues: opt(uint32),
  'poll-us': opt(uint32),
});
export const NetdevSocketOptions = struct('NetdevSocketOptions', {
  fd: opt(str),
  listen: opt(str),
  connect: opt(str),
  mcast: opt(str),
  localaddr: opt(str),
  udp: opt(str),
});
export const NetdevStreamOptions = struct('NetdevStreamOptions', { addr: SocketAddress, server: opt(bool) });
export const NetdevDgramOptions = struct('NetdevDgramOptions', {
  local: opt(SocketAddress),
  remote: opt(SocketAddress),
});
export const NetdevBridgeOptions = struct('NetdevBridgeOptions', { br: opt(str), helper: opt(str) });
export const NetdevHubPortOptions = struct('NetdevHubPortOptions', { hubid: int32, netdev: opt(str) });
export const NetdevVhostUserOptions = struct('NetdevVhostUserOptions', {
  chardev: str,
  vhostforce: opt(bool),
  queues: opt(int),
});
export const Netdev = union('Netdev', { id: str, type: NetClientDriver }, 'type', {
  nic: NetLegacyNicOptions,
  user: NetdevUserOptions,
  tap: NetdevTapOptions,
  socket: NetdevSocketOptions,
  stream: NetdevStreamOptions,
  dgram: NetdevDgramOptions,
  bridge: NetdevBridgeOptions,
  hubport: NetdevHubPortOptions,
  'vhost-user': NetdevVhostUserOptions,
});
export const RxState = enumeration('RxState', ['normal', 'none', 'all']);
export const RxFilterInfo = struct('RxFilterInfo', {
  name: str,
  promiscuous: bool,
  multicast: RxState,
  unicast: RxState,
  vlan: RxState,
  'broadcast-allowed': bool,
  'multicast-overflow': bool,
  'unicast-overflow': bool,
  'main-mac': str,
  'vlan-table': array(int),
  'unicast-table': array(str),
  'multicast-table': array(str),
});
export const AnnounceParameters = struct('AnnounceParameters', {
  initial: int,
  max: int,
  rounds: int,
  step: int,
  interfaces: opt(array(str)),
  id: opt(str),
});

export const commands = {
  set_link: command('Plugs or pulls a network cable', { args: { name: str, up: bool } }),
  netdev_add: command('Creates a network backend', { args: Netdev, preconfig: true }),
  netdev_del: command('Removes a network backend', { args: { id: str }, preconfig: true }),
  'query-rx-filter': command('Receive filters of network cards', {
    args: { name: opt(str) },
    returns: array(RxFilterInfo),
  }),
  'announce-self': command('Sends announcement packets', { args: AnnounceParameters }),
};

export const events = {
  NIC_RX_FILTER_CHANGED: event({ name: opt(str), path: str }),
  NETDEV_STREAM_CONNECTED: event({ 'netdev-id': str, addr: SocketAddress }),
  NETDEV_STREAM_DISCONNECTED: event({ 'netdev-id': str }),
};
