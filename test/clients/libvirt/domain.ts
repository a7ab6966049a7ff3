/** The machine of the test, and what is plugged into it while it runs; shaped like virt-manager's default PC. */

export interface DomainFacts {
  readonly emulator: string;
  readonly disk: string;
  readonly rawDisk: string;
  readonly stick: string;
}

export const MAC = '52:54:00:00:00:02';

export function domainXml({ emulator, disk, rawDisk, stick }: DomainFacts): string {
  return `<domain type='qemu'>
  <name>lab</name>
  <memory unit='MiB'>64</memory><maxMemory slots='2' unit='MiB'>256</maxMemory>
  <vcpu placement='static' current='1'>2</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/><apic/></features>
  <cpu mode='custom' match='exact'><model fallback='allow'>qemu64</model>
    <numa><cell id='0' cpus='0-1' memory='64' unit='MiB'/></numa></cpu>
  <clock offset='utc'><timer name='rtc' tickpolicy='catchup'/><timer name='hpet' present='no'/></clock>
  <pm><suspend-to-mem enabled='no'/></pm>
  <devices>
    <emulator>${emulator}</emulator><controller type='usb' model='qemu-xhci'/>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='${rawDisk}'/>
      <target dev='hda' bus='ide'/><boot order='1'/></disk>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${disk}'/>
      <target dev='vda' bus='virtio'/></disk>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='${stick}'/>
      <target dev='sda' bus='usb'/></disk>
    <disk type='file' device='cdrom'><target dev='hdc' bus='ide'/><readonly/></disk>
    <interface type='user'><model type='e1000'/></interface>
    <interface type='user'><mac address='${MAC}'/><model type='virtio'/></interface>
    <serial type='pty'/><console type='pty'/>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <memballoon model='virtio'/>
    <input type='tablet' bus='usb'/>
    <graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'/>
    <video><model type='cirrus'/></video>
  </devices>
</domain>`;
}

export const dimmXml = `<memory model='dimm'><target><size unit='MiB'>64</size><node>0</node></target></memory>`;
export const networkXml = `<interface type='user'><mac address='52:54:00:00:00:09'/><model type='virtio'/></interface>`;
export const rngXml = `<rng model='virtio'><backend model='builtin'/></rng>`;
export const mouseXml = `<input type='mouse' bus='usb'/>`;
export const channelXml = `<channel type='unix'><target type='virtio' name='lab.0'/></channel>`;
export const diskXml = (path: string): string =>
  `<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='${path}'/><target dev='vdb' bus='virtio'/></disk>`;

/** The CPU model is one that software emulates in part. */
export const cpuXml = `<cpu mode='custom' match='exact'><model fallback='forbid'>Haswell</model></cpu>`;
/** A backup that a client reads over NBD while the guest goes on. */
export const pullXml = (socket: string, scratch: string): string =>
  `<domainbackup mode='pull'><server transport='unix' socket='${socket}'/><disks>
    <disk name='vda' type='file' exportname='vda'><scratch file='${scratch}'/></disk></disks></domainbackup>`;
