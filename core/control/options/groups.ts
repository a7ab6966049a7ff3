import type { OptionGroup, ParameterSpec, ParameterType } from './opts.ts';

/** `'path host port*number'`: names with their type behind `*` where it is not `string`. */
function parameters(list: string): { readonly [name: string]: ParameterSpec } {
  const result: Record<string, ParameterSpec> = {};
  for (const word of list.split(/\s+/).filter(Boolean)) {
    const [name = '', type = 's'] = word.split('*');
    result[name] = { type: TYPES[type] ?? 'string' };
  }
  return result;
}
const TYPES: Readonly<Record<string, ParameterType>> = { s: 'string', b: 'boolean', n: 'number', z: 'size' };

const THROTTLING = ['iops', 'bps']
  .flatMap(what =>
    ['total', 'read', 'write'].flatMap(way => [`${what}-${way}`, `${what}-${way}-max`, `${what}-${way}-max-length`]),
  )
  .concat('iops-size')
  .map(name => `throttling.${name}*n`)
  .join(' ');

/** The options with parameters, as `query-command-line-options`, `-readconfig` and `-set` know them. */
export const GROUPS = {
  machine: {
    name: 'machine',
    impliedKey: 'type',
    merge: true,
  },
  chardev: {
    name: 'chardev',
    impliedKey: 'backend',
    parameters: parameters(`backend path host port fd localaddr localport to*n ipv4*b ipv6*b wait*b server*b delay*b
      nodelay*b reconnect*n telnet*b tn3270*b tls-creds tls-authz websocket*b width*n height*n cols*n rows*n mux*b
      signal*b name debug*n size*z chardev append*b logfile logappend*b mouse*b clipboard*b tight*b abstract*b input-path`),
  },
  device: { name: 'device', impliedKey: 'driver' },
  netdev: { name: 'netdev', impliedKey: 'type' },
  nic: { name: 'nic', impliedKey: 'type' },
  net: { name: 'net', impliedKey: 'type' },
  drive: {
    name: 'drive',
    open: true,
    parameters:
      parameters(`bus*n unit*n index*n media if file read-only*b rerror werror copy-on-read*b id node-name driver
      cache.direct*b cache.no-flush*b cache.writeback*b cache auto-read-only*b readonly*b discard force-share*b snapshot*b
      aio format detect-zeroes stats-account-invalid*b stats-account-failed*b serial throttling.group cyls*n heads*n secs*n
      trans ${THROTTLING}`),
  },
  object: { name: 'object', impliedKey: 'qom-type' },
  mon: { name: 'mon', impliedKey: 'chardev', parameters: parameters('mode chardev pretty*b') },
  'smp-opts': {
    name: 'smp-opts',
    impliedKey: 'cpus',
    merge: true,
    parameters: parameters('cpus*n sockets*n dies*n clusters*n cores*n threads*n maxcpus*n'),
  },
  'boot-opts': {
    name: 'boot-opts',
    impliedKey: 'order',
    merge: true,
    parameters: parameters('order once menu*b splash splash-time*n reboot-timeout*n strict*b'),
  },
  memory: { name: 'memory', impliedKey: 'size', merge: true, parameters: parameters('size*z slots*n maxmem*z') },
  accel: { name: 'accel', impliedKey: 'accel' },
  rtc: { name: 'rtc', merge: true, parameters: parameters('base clock driftfix') },
  global: { name: 'global', parameters: parameters('driver property value') },
  name: { name: 'name', impliedKey: 'guest', merge: true, parameters: parameters('guest process debug-threads*b') },
  msg: { name: 'msg', parameters: parameters('timestamp*b guest-name*b') },
  overcommit: { name: 'overcommit', parameters: parameters('mem-lock*b cpu-pm*b') },
  sandbox: {
    name: 'sandbox',
    impliedKey: 'enable',
    parameters: parameters('enable*b obsolete elevateprivileges spawn resourcecontrol'),
  },
  action: { name: 'action', merge: true, parameters: parameters('shutdown reboot panic watchdog') },
  'add-fd': { name: 'add-fd', parameters: parameters('fd*n set*n opaque') },
  fw_cfg: { name: 'fw_cfg', impliedKey: 'name', parameters: parameters('name file string gen_id') },
  'option-rom': { name: 'option-rom', impliedKey: 'romfile', parameters: parameters('romfile bootindex*n') },
  icount: {
    name: 'icount',
    impliedKey: 'shift',
    merge: true,
    parameters: parameters('shift align*b sleep*b rr rrfile rrsnapshot'),
  },
  numa: { name: 'numa', impliedKey: 'type' },
  trace: { name: 'trace', impliedKey: 'enable', parameters: parameters('enable events file') },
  acpi: { name: 'acpi', impliedKey: 'data' },
  smbios: { name: 'smbios' },
  tpmdev: { name: 'tpmdev', impliedKey: 'type' },
  plugin: { name: 'plugin', impliedKey: 'path', parameters: parameters('path prefix') },
  'watch-plugin': { name: 'watch-plugin', impliedKey: 'path', parameters: parameters('path prefix') },
  'trace-sink': { name: 'trace-sink', impliedKey: 'sink' },
  audiodev: { name: 'audiodev', impliedKey: 'driver' },
  fsdev: {
    name: 'fsdev',
    impliedKey: 'fsdriver',
    parameters: parameters(`fsdriver path security_model writeout readonly*b multidevs socket sock_fd*n fmode*n dmode*n
      ${THROTTLING}`),
  },
  virtfs: {
    name: 'virtfs',
    impliedKey: 'fsdriver',
    parameters: parameters(`fsdriver path mount_tag security_model writeout readonly*b multidevs socket sock_fd*n
      fmode*n dmode*n`),
  },
  vnc: {
    name: 'vnc',
    impliedKey: 'vnc',
    parameters: parameters(`vnc websocket tls-creds share display head*n connections*n to*n ipv4*b ipv6*b password*b
      password-secret reverse*b lock-key-sync*b key-delay-ms*n sasl*b tls-authz sasl-authz lossy*b non-adaptive*b audiodev
      power-control*b`),
  },
} as const satisfies Record<string, OptionGroup>;

export type GroupName = keyof typeof GROUPS;

/** What `-machine` takes beside the machine type's own properties; for `query-command-line-options`. */
export const MACHINE_PARAMETERS =
  parameters(`type accel kernel_irqchip*b kvm_shadow_mem*z kernel initrd append dtb dumpdtb
  phandle_start*n dt_compatible dump-guest-core*b mem-merge*b usb*b firmware iommu*b suppress-vmdesc*b aes-key-wrap*b
  dea-key-wrap*b loadparm`);
