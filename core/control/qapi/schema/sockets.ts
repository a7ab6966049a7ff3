import { bool, enumeration, opt, str, struct, uint16, union } from '../types.ts';
import { StringHolder } from './common.ts';

export const SocketAddressType = enumeration('SocketAddressType', ['inet', 'unix', 'fd']);
export const InetSocketAddressBase = struct('InetSocketAddressBase', { host: str, port: str });
export const InetSocketAddress = struct(
  'InetSocketAddress',
  { numeric: opt(bool), to: opt(uint16), ipv4: opt(bool), ipv6: opt(bool), 'keep-alive': opt(bool) },
  { base: InetSocketAddressBase },
);
export const InetSocketAddressWrapper = struct('InetSocketAddressWrapper', { data: InetSocketAddress });
export const UnixSocketAddress = struct('UnixSocketAddress', { path: str, abstract: opt(bool), tight: opt(bool) });
export const UnixSocketAddressWrapper = struct('UnixSocketAddressWrapper', { data: UnixSocketAddress });
export const StringWrapper = struct('StringWrapper', { data: StringHolder });
export const SocketAddressLegacy = union('SocketAddressLegacy', { type: SocketAddressType }, 'type', {
  inet: InetSocketAddressWrapper,
  unix: UnixSocketAddressWrapper,
  fd: StringWrapper,
});
export const NetworkAddressFamily = enumeration('NetworkAddressFamily', ['ipv4', 'ipv6', 'unix', 'vsock', 'unknown']);
export const SocketAddress = union('SocketAddress', { type: SocketAddressType }, 'type', {
  inet: InetSocketAddress,
  unix: UnixSocketAddress,
  fd: StringHolder,
});
