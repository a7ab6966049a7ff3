import { readFile } from 'node:fs/promises';
import { type CpioEntry, cpio } from './cpio.ts';
import { GuestCache } from './guest-cache.ts';
import { kernelModules, modulesAlias, modulesDep } from './kernel-modules.ts';

export interface InitramfsOptions {
  /** Which of Debian's kernels it is for. */
  readonly kernel?: 'linux-i386' | 'linux-amd64';
  /** Kernel modules that are loaded before `init` runs, with all that they need; built-in ones are passed over. */
  readonly modules?: readonly string[];
  /** What the guest does: a shell script; when it ends the machine powers off. */
  readonly init: string;
  /** More files by their paths: text or bytes, executable where a text begins with `#!`. */
  readonly files?: Readonly<Record<string, string | Uint8Array>>;
  readonly cache?: GuestCache;
}

const APPLETS = [
  'ash',
  'awk',
  'basename',

  'blockdev',
  'cat',
  'chmod',
  'chroot',
  'clear',
  'cmp',
  'cp',
  'cut',
  'date',
  'dd',
  'devmem',
  'df',
  'dmesg',
  'echo',
  'env',
  'expr',
  'false',
  'fdisk',
  'find',
  'free',

  'grep',
  'gunzip',
  'gzip',
  'halt',
  'head',
  'hexdump',
  'hostname',
  'hwclock',
  'ifconfig',
  'insmod',
  'ip',
  'kill',
  'killall',
  'less',
  'ln',
  'ls',
  'lsmod',

  'md5sum',
  'mkdir',
  'mke2fs',
  'mkfifo',
  'mknod',
  'mkswap',
  'modprobe',
  'mount',

  'mv',
  'nc',
  'netstat',
  'nslookup',
  'od',
  'pidof',
  'ping',
  'poweroff',
  'printf',
  'ps',
  'reboot',
  'rm',
  'rmmod',
  'route',
  'sed',
  'seq',
  'setsid',
  'sh',
  'sha1sum',
  'sha256sum',
  'sleep',
  'sort',
  'stat',
  'stty',
  'sync',
  'tail',
  'tar',
  'tee',
  'telnet',
  'test',
  'time',
  'timeout',
  'touch',
  'tr',
  'true',
  'udhcpc',
  'umount',
  'uname',
  'uniq',
  'vi',
  'wc',
  'wget',
  'which',
  'xargs',
  'yes',
] as const;

const INIT = `#!/bin/sh
export PATH=/bin HOME=/ TERM=linux
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /tmp /run /mnt
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /tmp
while read -r module; do
  insmod "/lib/modules/$(uname -r)/$module" || echo "init: cannot load $module"
done < /etc/modules.order
hostname southbridge
setsid cttyhack /bin/sh /etc/init.script
sync
poweroff -f
`;

/**
 * An initramfs with BusyBox, the given kernel modules and a script to run, as an uncompressed cpio archive.
 *
 * @throws SouthbridgeError ERR_KERNEL_MODULE, ERR_CPIO_PATH, and the errors of the guest cache
 */
export async function initramfs(options: InitramfsOptions): Promise<Uint8Array> {
  const cache = options.cache ?? new GuestCache();
  const kernelName = options.kernel ?? 'linux-i386';
  const kernel = await cache.get(kernelName);
  const { busybox } = await cache.get(kernelName === 'linux-i386' ? 'busybox-i386' : 'busybox-amd64');
  const modules = await kernelModules(kernel.modules, options.modules ?? []);
  const release = await kernelRelease(kernel.vmlinuz);
  const directory = `lib/modules/${release}`;
  const text = (path: string, contents: string, mode = 0o644): CpioEntry => ({
    path,
    type: 'file',
    bytes: new TextEncoder().encode(contents),
    mode,
  });
  const entries: CpioEntry[] = [
    { path: 'dev/console', type: 'device', major: 5, minor: 1 },
    { path: 'dev/null', type: 'device', major: 1, minor: 3, mode: 0o666 },
    { path: 'proc', type: 'directory' },
    { path: 'sys', type: 'directory' },
    { path: 'bin/busybox', type: 'file', bytes: await readFile(busybox), mode: 0o755 },
    { path: 'bin/cttyhack', type: 'link', target: 'busybox' },
    ...APPLETS.map((applet): CpioEntry => ({ path: `bin/${applet}`, type: 'link', target: 'busybox' })),
    text('init', INIT, 0o755),
    text('etc/init.script', `${options.init}\n`, 0o755),
    text('etc/modules.order', modules.map(({ path }) => `${path}\n`).join('')),
    text(`${directory}/modules.dep`, modulesDep(modules)),
    text(`${directory}/modules.alias`, modulesAlias(modules)),
    ...modules.map((module): CpioEntry => ({ path: `${directory}/${module.path}`, type: 'file', bytes: module.bytes })),
  ];
  for (const [path, contents] of Object.entries(options.files ?? {})) {
    if (typeof contents === 'string') entries.push(text(path, contents, contents.startsWith('#!') ? 0o755 : 0o644));
    else entries.push({ path, type: 'file', bytes: contents, mode: 0o755 });
  }
  return cpio(entries);
}

/** The release that the kernel calls itself, such as `6.1.0-50-686`: boot protocol 2.00, kernel_version. */
async function kernelRelease(vmlinuz: string): Promise<string> {
  const image = await readFile(vmlinuz);
  const offset = image.readUInt16LE(0x20e) + 0x200;
  const banner = image.toString('latin1', offset, offset + 128);
  return /^[^ \0]*/.exec(banner)?.[0] ?? '';
}
