import { command, event } from '../declare.ts';
import { any, array, bool, enumeration, int, opt, size, str, struct, uint16, uint32, union } from '../types.ts';
import { AuthZListFileProperties, AuthZListProperties, AuthZSimpleProperties } from './authz.ts';
import { ThrottleGroupProperties } from './block-jobs.ts';
import { HostMemPolicy, NetFilterDirection } from './common.ts';
import { SecretProperties, TlsCredsAnonProperties, TlsCredsPskProperties, TlsCredsX509Properties } from './crypto.ts';

export const ObjectPropertyInfo = struct('ObjectPropertyInfo', {
  name: str,
  type: str,
  description: opt(str),
  'default-value': opt(any),
});
export const ObjectTypeInfo = struct('ObjectTypeInfo', { name: str, abstract: opt(bool), parent: opt(str) });
export const ObjectType = enumeration('ObjectType', [
  'authz-list',
  'authz-listfile',
  'authz-simple',
  'cryptodev-backend-builtin',
  'filter-buffer',
  'filter-dump',
  'filter-mirror',
  'filter-redirector',
  'iothread',
  'memory-backend-file',
  'memory-backend-memfd',
  'memory-backend-ram',
  'qtest',
  'rng-builtin',
  'rng-egd',
  'rng-random',
  'secret',
  'throttle-group',
  'tls-creds-anon',
  'tls-creds-psk',
  'tls-creds-x509',
]);
export const CryptodevBackendProperties = struct('CryptodevBackendProperties', { queues: opt(uint32) });
export const NetfilterInsert = enumeration('NetfilterInsert', ['before', 'behind']);
export const NetfilterProperties = struct('NetfilterProperties', {
  netdev: str,
  queue: opt(NetFilterDirection),
  status: opt(str),
  position: opt(str),
  insert: opt(NetfilterInsert),
});
export const FilterBufferProperties = struct(
  'FilterBufferProperties',
  { interval: uint32 },
  { base: NetfilterProperties },
);
export const FilterDumpProperties = struct(
  'FilterDumpProperties',
  { file: str, maxlen: opt(uint32) },
  { base: NetfilterProperties },
);
export const FilterMirrorProperties = struct(
  'FilterMirrorProperties',
  { outdev: str, vnet_hdr_support: opt(bool) },
  { base: NetfilterProperties },
);
export const FilterRedirectorProperties = struct(
  'FilterRedirectorProperties',
  { indev: opt(str), outdev: opt(str), vnet_hdr_support: opt(bool) },
  { base: NetfilterProperties },
);
export const EventLoopBaseProperties = struct('EventLoopBaseProperties', {
  'aio-max-batch': opt(int),
  'thread-pool-min': opt(int),
  'thread-pool-max': opt(int),
});
export const IothreadProperties = struct(
  'IothreadProperties',
  { 'poll-max-ns': opt(int), 'poll-grow': opt(int), 'poll-shrink': opt(int) },
  { base: EventLoopBaseProperties },
);
export const MemoryBackendProperties = struct('MemoryBackendProperties', {
  dump: opt(bool),
  'host-nodes': opt(array(uint16)),
  merge: opt(bool),
  policy: opt(HostMemPolicy),
  prealloc: opt(bool),
  'prealloc-threads': opt(uint32),
  'prealloc-context': opt(str),
  share: opt(bool),
  reserve: opt(bool),
  size: size,
  'x-use-canonical-path-for-ramblock-id': opt(bool),
});
export const MemoryBackendFileProperties = struct(
  'MemoryBackendFileProperties',
  { align: opt(size), 'discard-data': opt(bool), 'mem-path': str, readonly: opt(bool) },
  { base: MemoryBackendProperties },
);
export const MemoryBackendMemfdProperties = struct(
  'MemoryBackendMemfdProperties',
  { hugetlb: opt(bool), hugetlbsize: opt(size), seal: opt(bool) },
  { base: MemoryBackendProperties },
);
export const QtestProperties = struct('QtestProperties', { chardev: str, log: opt(str) });
export const RngProperties = struct('RngProperties', { opened: opt(bool, 'deprecated') });
export const RngEgdProperties = struct('RngEgdProperties', { chardev: str }, { base: RngProperties });
export const RngRandomProperties = struct('RngRandomProperties', { filename: opt(str) }, { base: RngProperties });
export const ObjectOptions = union('ObjectOptions', { 'qom-type': ObjectType, id: str }, 'qom-type', {
  'authz-list': AuthZListProperties,
  'authz-listfile': AuthZListFileProperties,
  'authz-simple': AuthZSimpleProperties,
  'cryptodev-backend-builtin': CryptodevBackendProperties,
  'filter-buffer': FilterBufferProperties,
  'filter-dump': FilterDumpProperties,
  'filter-mirror': FilterMirrorProperties,
  'filter-redirector': FilterRedirectorProperties,
  iothread: IothreadProperties,
  'memory-backend-file': MemoryBackendFileProperties,
  'memory-backend-memfd': MemoryBackendMemfdProperties,
  'memory-backend-ram': MemoryBackendProperties,
  qtest: QtestProperties,
  'rng-builtin': RngProperties,
  'rng-egd': RngEgdProperties,
  'rng-random': RngRandomProperties,
  secret: SecretProperties,
  'throttle-group': ThrottleGroupProperties,
  'tls-creds-anon': TlsCredsAnonProperties,
  'tls-creds-psk': TlsCredsPskProperties,
  'tls-creds-x509': TlsCredsX509Properties,
});

export const commands = {
  'qom-list': command('Properties of an object', {
    args: { path: str },
    returns: array(ObjectPropertyInfo),
    preconfig: true,
  }),
  'qom-get': command('Value of one property', { args: { path: str, property: str }, returns: any, preconfig: true }),
  'qom-set': command('Changes one property', { args: { path: str, property: str, value: any }, preconfig: true }),
  'qom-list-types': command('Object types, optionally those that implement another', {
    args: { implements: opt(str), abstract: opt(bool) },
    returns: array(ObjectTypeInfo),
    preconfig: true,
  }),
  'qom-list-properties': command('Properties of an object type', {
    args: { typename: str },
    returns: array(ObjectPropertyInfo),
    preconfig: true,
  }),
  'device-list-properties': command('Properties of a device type', {
    args: { typename: str },
    returns: array(ObjectPropertyInfo),
  }),
  'object-add': command('Creates a user object', { args: ObjectOptions, preconfig: true }),
  'object-del': command('Removes a user object', { args: { id: str }, preconfig: true }),
  device_add: command('Plugs in a device', {
    args: struct('q_obj_device_add-arg', { driver: str, bus: opt(str), id: opt(str) }, { open: true }),
    features: ['json-cli', 'json-cli-hotplug'],
  }),
  device_del: command('Asks for a device to be unplugged; DEVICE_DELETED follows', { args: { id: str } }),
};

export const events = {
  DEVICE_DELETED: event({ device: opt(str), path: str }),
  DEVICE_UNPLUG_GUEST_ERROR: event({ device: opt(str), path: str }),
};
