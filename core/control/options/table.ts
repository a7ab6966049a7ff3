import type { GroupName } from './groups.ts';

/** One option of the command line. */
export interface OptionSpec {
  /** How its argument is shown in the help; an option without takes none. */
  readonly arg?: string;
  readonly help: string;
  /** An option of QEMU for other architectures than x86, which refuses it here. */
  readonly foreign?: true;
  /** Its argument has parameters of this group. */
  readonly group?: GroupName;
  /** Its argument is of the stricter syntax whose dotted keys nest, or JSON. */
  readonly keyval?: 'type' | 'driver' | 'qom-type' | 'cpus' | true;
}

interface Section {
  readonly title: string;
  readonly options: { readonly [name: string]: OptionSpec };
}

/** The command line, in the order of the help. */
export const SECTIONS: readonly Section[] = [
  {
    title: 'Standard options',
    options: {
      h: { help: 'display this help and exit' },
      help: { help: 'display this help and exit' },
      version: { help: 'display version information and exit' },
      machine: {
        arg: '[type=]name[,prop[=value][,...]]',
        group: 'machine',
        keyval: 'type',
        help: "selects the machine type ('-machine help' for a list)",
      },
      M: { arg: '[type=]name[,...]', group: 'machine', keyval: 'type', help: 'the same as -machine' },
      cpu: { arg: 'model', help: "selects the CPU ('-cpu help' for a list)" },
      accel: {
        arg: '[accel=]name[,prop[=value][,...]]',
        group: 'accel',
        help: "selects the accelerator ('-accel help' for a list); given several times, the first that works",
      },
      smp: {
        arg: '[[cpus=]n][,maxcpus=n][,sockets=n][,dies=n][,cores=n][,threads=n]',
        group: 'smp-opts',
        keyval: 'cpus',
        help: 'sets the number of CPUs',
      },
      numa: { arg: 'node|dist|cpu|hmat-lb|hmat-cache[,...]', group: 'numa', help: 'describes NUMA nodes' },
      'add-fd': {
        arg: 'fd=fd,set=set[,opaque=opaque]',
        group: 'add-fd',
        help: 'adds an inherited file descriptor to a set',
      },
      set: { arg: 'group.id.arg=value', help: 'sets a parameter of an option that has an id' },
      global: { arg: 'driver.property=value', help: 'sets the default of a device property' },
      boot: {
        arg: '[order=drives][,once=drives][,menu=on|off][,splash=file][,splash-time=ms][,reboot-timeout=ms][,strict=on|off]',
        group: 'boot-opts',
        help: "'drives': floppy (a), hard disk (c), CD-ROM (d), network (n)",
      },
      m: { arg: '[size=]megs[,slots=n,maxmem=size]', group: 'memory', help: 'sets the guest RAM; default 128 MiB' },
      'mem-path': { arg: 'file', help: 'backs guest RAM by a file' },
      'mem-prealloc': { help: 'preallocates guest RAM' },
      k: { arg: 'language', help: "uses a keyboard layout ('en-us')" },
      audio: {
        arg: '[driver=]driver,model=card[,id=id][,...]',
        keyval: 'driver',
        help: "a sound card with its audio backend ('-audio model=help' for a list)",
      },
      'audio-help': { help: 'lists the audio backends' },
      audiodev: { arg: '[driver=]driver,id=id[,...]', group: 'audiodev', keyval: 'driver', help: 'an audio backend' },
      device: {
        arg: 'driver[,prop[=value][,...]]',
        group: 'device',
        help: "adds a device ('-device help' for a list, '-device driver,help' for its properties)",
      },
      name: { arg: 'string1[,process=string2][,debug-threads=on|off]', group: 'name', help: "the guest's name" },
      uuid: { arg: 'uuid', help: "the machine's UUID" },
      plugin: {
        arg: '[path=]path-or-package[,prefix=text]',
        group: 'plugin',
        help: "loads a plugin ('-plugin help' for what came from where); 'prefix' stands before the names of its types",
      },
      'watch-plugin': {
        arg: '[path=]path-or-package[,prefix=text]',
        group: 'watch-plugin',
        help: 'the same, and loads it again whenever its sources change, while the guest runs',
      },
    },
  },
  {
    title: 'Block device options',
    options: {
      fda: { arg: 'file', help: 'floppy disk 0' },
      fdb: { arg: 'file', help: 'floppy disk 1' },
      hda: { arg: 'file', help: 'hard disk 0' },
      hdb: { arg: 'file', help: 'hard disk 1' },
      hdc: { arg: 'file', help: 'hard disk 2' },
      hdd: { arg: 'file', help: 'hard disk 3' },
      cdrom: { arg: 'file', help: 'CD-ROM, on the second IDE channel' },
      blockdev: { arg: '[driver=]driver[,node-name=name][,...]', keyval: 'driver', help: 'a node of the block graph' },
      drive: {
        arg: '[file=file][,if=type][,media=type][,index=n][,bus=n][,unit=n][,id=name][,...]',
        group: 'drive',
        help: 'a drive',
      },
      mtdblock: { arg: 'file', help: 'flash memory' },
      sd: { arg: 'file', help: 'SecureDigital card' },
      pflash: { arg: 'file', help: 'parallel flash' },
      snapshot: { help: 'writes to temporary files instead of the disk images' },
      iscsi: { arg: '[user=user][,...]', help: 'not supported' },
    },
  },
  {
    title: 'File system options',
    options: {
      fsdev: {
        arg: 'local,id=id,path=path,security_model=model[,...]',
        group: 'fsdev',
        help: 'a folder of the host, for -device virtio-9p-pci',
      },
      virtfs: {
        arg: 'local,path=path,mount_tag=tag,security_model=model[,...]',
        group: 'virtfs',
        help: 'a folder of the host that the guest can mount',
      },
    },
  },
  {
    title: 'USB options',
    options: {
      usb: { help: 'enables the on-board USB controller' },
      usbdevice: { arg: 'name', help: 'adds a USB device' },
    },
  },
  {
    title: 'Display options',
    options: {
      display: { arg: 'type', help: "the display: 'none', 'vnc=host:d'" },
      nographic: { help: 'no screen; the serial port and the monitor share the terminal' },
      spice: { arg: 'args', help: 'not supported' },
      vga: { arg: 'std|none', help: 'the video card' },
      'full-screen': { help: 'starts in full screen' },
      portrait: { help: 'turns the picture of a window, of which there is none' },
      rotate: { arg: 'degrees', help: 'turns the picture of a window, of which there is none' },
      g: { arg: 'WxH[xDEPTH]', help: 'initial resolution; not on x86', foreign: true },
      vnc: { arg: 'display[,...]', group: 'vnc', help: 'a VNC server' },
    },
  },
  {
    title: 'i386 target only',
    options: {
      'win2k-hack': { help: 'works around a full disk bug of Windows 2000' },
      'no-fd-bootchk': { help: 'lets a floppy without boot signature boot' },
      'no-acpi': { help: 'no ACPI' },
      'no-hpet': { help: 'no HPET' },
      acpitable: { arg: '[sig=str][,...]', group: 'acpi', help: 'an extra ACPI table' },
      smbios: { arg: 'file=binary | type=n[,...]', group: 'smbios', help: 'SMBIOS fields' },
    },
  },
  {
    title: 'Network options',
    options: {
      netdev: { arg: 'type,id=str[,...]', group: 'netdev', keyval: 'type', help: 'a network backend' },
      nic: { arg: '[type][,model=model][,mac=addr][,...]', group: 'nic', help: 'a network card with its backend' },
      net: { arg: 'nic|type[,...]', group: 'net', help: 'the older form of -nic and -netdev' },
    },
  },
  {
    title: 'Character device options',
    options: {
      chardev: {
        arg: 'backend,id=id[,...]',
        group: 'chardev',
        help: "a character device ('-chardev help' for a list)",
      },
      tpmdev: { arg: 'type,id=id[,...]', group: 'tpmdev', help: 'a TPM backend' },
    },
  },
  {
    title: 'Boot image or kernel options',
    options: {
      bios: { arg: 'file', help: 'the firmware' },
      kernel: { arg: 'bzImage', help: 'the kernel image' },
      append: { arg: 'cmdline', help: "the kernel's command line" },
      initrd: { arg: 'file', help: 'the initial RAM disk' },
      dtb: { arg: 'file', help: 'the device tree' },
      'option-rom': { arg: 'rom', group: 'option-rom', help: 'loads an option ROM' },
      fw_cfg: { arg: '[name=]name,file=file|string=str', group: 'fw_cfg', help: 'adds an fw_cfg entry' },
    },
  },
  {
    title: 'Debug and expert options',
    options: {
      compat: {
        arg: '[deprecated-input=accept][,...]',
        keyval: true,
        help: 'policy for deprecated interfaces: they are accepted',
      },
      serial: { arg: 'dev', help: "connects a serial port to 'dev'" },
      parallel: { arg: 'dev', help: "connects a parallel port to 'dev'" },
      monitor: { arg: 'dev', help: "connects the monitor to 'dev'" },
      qmp: { arg: 'dev', help: 'like -monitor, with QMP' },
      'qmp-pretty': { arg: 'dev', help: 'like -qmp, with indentation' },
      mon: { arg: '[chardev=]name[,mode=readline|control]', group: 'mon', help: 'a monitor on a character device' },
      debugcon: { arg: 'dev', help: "connects the debug port to 'dev'" },
      pidfile: { arg: 'file', help: 'writes the process id' },
      singlestep: { help: 'runs one instruction at a time' },
      preconfig: { help: 'pauses before the machine is built' },
      S: { help: "does not start the CPUs ('cont' does)" },
      overcommit: { arg: '[mem-lock=on|off][cpu-pm=on|off]', group: 'overcommit', help: 'hints about host resources' },
      gdb: { arg: 'dev', help: "waits for gdb on 'dev'" },
      s: { help: 'short for -gdb tcp::1234' },
      d: { arg: 'item1,...', help: "logs items ('-d help' for a list)" },
      D: { arg: 'logfile', help: 'logs to a file' },
      dfilter: { arg: 'range,...', help: 'limits logs to addresses' },
      seed: { arg: 'number', help: 'seeds the random number generator' },
      L: { arg: 'path', help: 'where BIOS and option ROMs are' },
      'enable-kvm': { help: 'short for -accel kvm' },
      'no-reboot': { help: 'exits instead of rebooting' },
      'no-shutdown': { help: 'stops instead of exiting on shutdown' },
      action: { arg: 'event=action', group: 'action', help: 'what to do on guest events' },
      loadvm: { arg: 'tag', help: 'starts from a snapshot' },
      daemonize: { help: 'goes to the background once ready' },
      rtc: {
        arg: '[base=utc|localtime|datetime][,clock=host|rt|vm][,driftfix=none|slew]',
        group: 'rtc',
        help: "the guest's clock",
      },
      icount: {
        arg: '[shift=N|auto][,align=on|off][,sleep=on|off]',
        group: 'icount',
        help: 'virtual time by instruction count',
      },
      'watchdog-action': {
        arg: 'reset|shutdown|poweroff|inject-nmi|pause|debug|none',
        help: 'what an expired watchdog does',
      },
      echr: { arg: 'chr', help: 'the escape character of the terminal instead of Ctrl-A' },
      incoming: { arg: 'uri|defer', help: 'waits for a migration' },
      'only-migratable': { help: 'refuses devices that cannot migrate' },
      nodefaults: { help: 'no default devices' },
      chroot: { arg: 'dir', help: 'changes root before starting' },
      runas: { arg: 'user', help: 'changes user before starting' },
      sandbox: {
        arg: 'on[,obsolete=allow|deny][,elevateprivileges=allow|deny|children][,spawn=allow|deny][,resourcecontrol=allow|deny]',
        group: 'sandbox',
        help: 'gives up system calls that the machine does not need (seccomp)',
      },
      readconfig: { arg: 'file', help: 'reads options from a file' },
      'no-user-config': { help: 'reads no user configuration' },
      trace: { arg: '[[enable=]glob][,events=file][,file=file]', group: 'trace', help: 'enables trace events' },
      'trace-sink': {
        arg: '[sink=]name[,prop[=value][,...]]',
        group: 'trace-sink',
        help: "a log with guest addresses, waveforms, coverage, or a plugin's ('-trace-sink help' for a list)",
      },
      qtest: { arg: 'dev', help: 'a qtest server' },
      'qtest-log': { arg: 'file', help: 'where the qtest server logs' },
      msg: { arg: '[timestamp=on|off][,guest-name=on|off]', group: 'msg', help: 'the form of messages' },
      'async-teardown': { help: 'asynchronous teardown' },
      'enable-sync-profile': { help: 'profiles locks, of which there are none' },
      'xen-domid': { arg: 'id', help: 'not on this host', foreign: true },
      'xen-attach': { help: 'not on this host', foreign: true },
      'xen-domid-restrict': { help: 'not on this host', foreign: true },
      'prom-env': { arg: 'variable=value', help: 'not on x86', foreign: true },
      semihosting: { help: 'not on x86', foreign: true },
      'semihosting-config': { arg: '[enable=on|off][,...]', help: 'not on x86', foreign: true },
      'old-param': { help: 'not on x86', foreign: true },
      'dump-vmstate': { arg: 'file', help: 'writes a description of the migration state' },
      object: {
        arg: 'type,id=id[,...]',
        group: 'object',
        keyval: 'qom-type',
        help: "creates a user object ('-object help' for a list)",
      },
    },
  },
];

export const OPTIONS: ReadonlyMap<string, OptionSpec> = new Map(
  SECTIONS.flatMap(section => Object.entries(section.options)),
);

/** `-help`. */
export function helpText(program: string): string {
  const sections = SECTIONS.map(({ title, options }) => {
    const lines = Object.entries(options).map(([name, { arg, help }]) => {
      const left = `-${name}${arg === undefined ? '' : ` ${arg}`}`;
      return left.length < 16 ? `${left.padEnd(16)}${help}` : `${left}\n${' '.repeat(16)}${help}`;
    });
    return `${title}:\n${lines.join('\n')}\n`;
  });
  return `usage: ${program} [options] [disk_image]

'disk_image' is a raw hard disk image for IDE hard disk 0

${sections.join('\n')}
During emulation on the terminal (-nographic), Ctrl-A x ends the program, Ctrl-A c switches between console and
monitor, Ctrl-A h lists all keys.
`;
}
