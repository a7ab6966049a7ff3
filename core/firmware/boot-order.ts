/** Boot order: the device paths in `bootorder`, in the style of IEEE 1275, and the geometries in `bios-geometry`. */

export const BOOT_ORDER_FILE = 'bootorder';
export const BIOS_GEOMETRY_FILE = 'bios-geometry';

/** A device that can be booted from. */
export interface BootDevice {
  /** `bootindex`; the lowest comes first. */
  readonly index: number;
  /** Such as `/pci@i0cf8/ide@1,1/drive@0/disk@0`. */
  readonly path: string;
}

/** A disk's geometry as the user wants it told by INT 13h (`lcyls`, `lheads`, `lsecs`). */
export interface BiosGeometry {
  readonly path: string;
  readonly cylinders: number;
  readonly heads: number;
  readonly sectors: number;
}

/** Lines, the last of them ended by a zero. Without lines there is no zero either. */
function lines(list: readonly string[]): Uint8Array {
  return list.length === 0 ? new Uint8Array(0) : Buffer.from(`${list.join('\n')}\0`, 'utf8');
}

/** @param strict boot from nothing else (`-boot strict=on`) */
export function bootOrderFile(devices: readonly BootDevice[], strict: boolean): Uint8Array {
  const paths = devices.toSorted((a, b) => a.index - b.index).map(device => device.path);
  return lines(strict && paths.length > 0 ? [...paths, 'HALT'] : paths);
}

export function biosGeometryFile(geometries: readonly BiosGeometry[]): Uint8Array {
  return lines(geometries.map(disk => `${disk.path} ${disk.cylinders} ${disk.heads} ${disk.sectors}`));
}

// Device paths: one node for each bus and device on the way

/** Names of PCI classes (PCI bus binding to IEEE 1275, 2.5), by class and subclass. */
const PCI_NAMES: Readonly<Record<number, string>> = {
  1: 'display',
  256: 'scsi',
  257: 'ide',
  258: 'fdc',
  259: 'ipi',
  260: 'raid',
  512: 'ethernet',
  513: 'token-ring',
  514: 'fddi',
  515: 'atm',
  1024: 'video',
  1025: 'sound',
  1027: 'sound',
  1280: 'memory',
  1281: 'flash',
  1536: 'host',
  1537: 'isa',
  1538: 'eisa',
  1539: 'mca',
  1540: 'pci-bridge',
  1541: 'pcmcia',
  1542: 'nubus',
  1543: 'cardbus',
  1792: 'serial',
  1793: 'parallel',
  2048: 'interrupt-controller',
  2049: 'dma-controller',
  2050: 'timer',
  2051: 'rtc',
  2304: 'keyboard',
  2305: 'pen',
  2306: 'mouse',
  3072: 'firewire',
  3073: 'access-bus',
  3074: 'ssa',
  3075: 'usb',
  3076: 'fibre-channel',
};
/** Base classes whose subclass does not matter to the name. */
const PCI_BASE_NAMES: Readonly<Record<number, string>> = { 3: 'display', 10: 'dock', 11: 'cpu' };

const hex = (value: number): string => value.toString(16);
const hex4 = (value: number): string => hex(value).padStart(4, '0');

export interface PciIdentity {
  readonly devfn: number;
  /** Base class and subclass, 16 bits. */
  readonly classCode: number;
  readonly vendor: number;
  readonly device: number;
}

/** The node of a PCI function, such as `ethernet@3` or `ide@1,1`. */
export function pciNode(pci: PciIdentity): string {
  const named =
    PCI_NAMES[pci.classCode] ?? PCI_BASE_NAMES[pci.classCode >>> 8] ?? `pci${hex4(pci.vendor)},${hex4(pci.device)}`;
  const slot = hex(pci.devfn >>> 3);
  const place = pci.devfn % 8 === 0 ? slot : `${slot},${hex(pci.devfn % 8)}`;
  return `${named}@${place}`;
}

/** The node of the root bus behind the configuration ports. */
export const PCI_ROOT_NODE = 'pci@i0cf8';

/** The node of an ISA device: its first port tells it from others of its kind. */
export function isaNode(kind: string, port: number): string {
  return port === 0 ? kind : `${kind}@${hex4(port)}`;
}

/** Below an IDE function: the channel, then the drive on it. */
export function ideNodes(channel: number, unit: number): string[] {
  return [`drive@${hex(channel)}`, `disk@${hex(unit)}`];
}

/** Below a SCSI controller. */
export function scsiNodes(channel: number, target: number, lun: number): string[] {
  return [`channel@${hex(channel)}`, `disk@${hex(target)},${hex(lun)}`];
}

/** Below a USB controller: a port path such as `1.2` goes through hubs. */
export function usbNodes(portPath: string, kind: string): string[] {
  const ports = portPath.split('.').map(port => hex(Number(port)));
  return ports.map((port, depth) => (depth === ports.length - 1 ? `${kind}@${port}` : `hub@${port}`));
}

/** Nodes to a path. */
export function devicePath(...nodes: readonly string[]): string {
  return `/${nodes.join('/')}`;
}
