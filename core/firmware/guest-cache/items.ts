/** One thing the cache can hold: which packages it comes from and which of their files are of use. */
export interface ItemRecipe {
  readonly summary: string;
  /** Debian package names, with `:architecture` where it is not the host's choice. */
  readonly packages: readonly string[];
  /** A meta package and the prefix of the package it is to be resolved to; with `steps`, of that one's dependency, and so on. */
  readonly meta?: { readonly name: string; readonly prefix: string; readonly steps?: number };
  /** Kernels: `vmlinuz` and `modules` get names without a version, and `vmlinux` is decompressed from the former. */
  readonly kernel?: true;
  /** Kernel headers: `flavour` and `common` lead to the folders whose names have the version. */
  readonly headers?: true;
  /** Files by the names our code uses, relative to where the packages are unpacked. */
  readonly files: Readonly<Record<string, string>>;
  /** True where the same files may be taken from the host's own file system. */
  readonly host?: true;
}

const KERNEL_FILES = { vmlinuz: 'vmlinuz', vmlinux: 'vmlinux', modules: 'modules' } as const;

export const ITEMS = {
  seabios: {
    summary: 'SeaBIOS and its VGA option ROMs',
    packages: ['seabios'],
    host: true,
    files: {
      directory: 'usr/share/seabios',
      bios256k: 'usr/share/seabios/bios-256k.bin',
      biosMicrovm: 'usr/share/seabios/bios-microvm.bin',
      vgabiosStdvga: 'usr/share/seabios/vgabios-stdvga.bin',
    },
  },
  ipxe: {
    summary: 'iPXE boot ROMs for network cards',
    packages: ['ipxe-qemu'],
    host: true,
    files: {
      directory: 'usr/lib/ipxe/qemu',
      e1000: 'usr/lib/ipxe/qemu/pxe-e1000.rom',
      e1000e: 'usr/lib/ipxe/qemu/pxe-e1000e.rom',
      ne2k: 'usr/lib/ipxe/qemu/pxe-ne2k_pci.rom',
      pcnet: 'usr/lib/ipxe/qemu/pxe-pcnet.rom',
      rtl8139: 'usr/lib/ipxe/qemu/pxe-rtl8139.rom',
      virtio: 'usr/lib/ipxe/qemu/pxe-virtio.rom',
    },
  },
  'linux-i386': {
    summary: 'Debian Linux 6.1 for i686 without PAE, with all its modules',
    packages: [],
    meta: { name: 'linux-image-686:i386', prefix: 'linux-image-6' },
    kernel: true,
    files: KERNEL_FILES,
  },
  'linux-headers-i386': {
    summary: 'what modules for linux-i386 are built with',
    packages: ['linux-kbuild-6.1:amd64'],
    meta: { name: 'linux-headers-686:i386', prefix: 'linux-headers-6', steps: 2 },
    headers: true,
    files: { flavour: 'flavour', common: 'common' },
  },
  'linux-amd64': {
    summary: 'Debian Linux 6.1 for x86-64, with all its modules',
    packages: [],
    meta: { name: 'linux-image-amd64:amd64', prefix: 'linux-image-6' },
    kernel: true,
    files: KERNEL_FILES,
  },
  'busybox-i386': {
    summary: 'BusyBox for i386, statically linked',
    packages: ['busybox-static:i386'],
    files: { busybox: 'bin/busybox' },
  },
  'busybox-amd64': {
    summary: 'BusyBox for x86-64, statically linked',
    packages: ['busybox-static:amd64'],
    files: { busybox: 'bin/busybox' },
  },
  'e2fsprogs-i386': {
    summary: 'what makes and checks ext4 file systems, for i386, with the libraries it needs',
    packages: [
      'e2fsprogs:i386',
      'libext2fs2:i386',
      'libcom-err2:i386',
      'libblkid1:i386',
      'libuuid1:i386',
      'libc6:i386',
    ],
    files: { directory: '.', mke2fs: 'sbin/mke2fs', e2fsck: 'sbin/e2fsck' },
  },
  grub: {
    summary: 'GRUB 2 for PC BIOS: boot sectors, modules and grub-mkimage with the libraries it needs',
    packages: [
      'grub-pc-bin:amd64',
      'grub-common:amd64',
      'liblzma5:amd64',
      'libdevmapper1.02.1:amd64',
      'libselinux1:amd64',
      'libudev1:amd64',
      'libpcre2-8-0:amd64',
    ],
    files: { modules: 'usr/lib/grub/i386-pc', mkimage: 'usr/bin/grub-mkimage', libraries: '.' },
  },
  'memtest86+': {
    summary: 'Memtest86+, a bootable memory tester',
    packages: ['memtest86+:amd64'],
    host: true,
    files: { ia32: 'boot/memtest86+ia32.bin', x64: 'boot/memtest86+x64.bin' },
  },
} as const satisfies Readonly<Record<string, ItemRecipe>>;

export type ItemName = keyof typeof ITEMS;

/** The absolute paths of one item's files. */
export type ItemFiles<Name extends ItemName> = { readonly [File in keyof (typeof ITEMS)[Name]['files']]: string };
