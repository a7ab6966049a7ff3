/** Boot order as the machine's devices have it: `bootindex` and the device paths that firmware knows them by. */
import type { Device } from '../../core/device/device.ts';
import { type BiosGeometry, type BootDevice, devicePath } from '../../core/firmware/boot-order.ts';
import type { Machine } from '../../core/machine/machine.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';

const CLASS_ETHERNET = 0x0200;

/** Device and properties that hold a place in the boot order, with what the path says below the device. */
function bootTargets(device: Device): { readonly property: string; readonly suffix: string }[] {
  const { type } = device.type;
  if (type === 'isa-fdc') {
    return [
      { property: 'bootindexA', suffix: '/floppy@0' },
      { property: 'bootindexB', suffix: '/floppy@1' },
    ];
  }
  // Its logical unit has the place.
  if (type === 'usb-storage') return [];
  return [{ property: 'bootindex', suffix: suffixOf(device) }];
}

function property(device: Device, name: string): unknown {
  const props: Readonly<Record<string, unknown>> = device.props;
  return props[name];
}

function suffixOf(device: Device): string {
  const { type } = device.type;
  if (type.startsWith('virtio-blk')) return '/disk@0,0';
  if (type === 'nvme') return '/namespace@1,0';
  if (type.startsWith('ide-')) return `/disk@${Number(property(device, 'unit') ?? 0).toString(16)}`;
  if (device instanceof PciDevice && device.identity.class >>> 8 === CLASS_ETHERNET) return '/ethernet-phy@0';
  if (device.type.bus === 'usb-bus' && device.type.category === 'network') return '/ethernet-phy@0';
  return '';
}

/** The path of a device through the buses above it; devices without a name of their own are passed over. */
export function firmwarePath(device: Device): string {
  const nodes: string[] = [];
  for (let here: Device | undefined = device; here !== undefined; here = here.bus.owner) {
    if (here.firmwareName !== undefined) nodes.unshift(here.firmwareName);
  }
  return devicePath(...nodes);
}

/** Everything with a place in the boot order. */
export function bootDevices(machine: Machine): BootDevice[] {
  const found: BootDevice[] = [];
  for (const device of machine.devices()) {
    for (const target of bootTargets(device)) {
      const index = property(device, target.property);
      if (typeof index === 'number' && index >= 0)
        found.push({ index, path: `${firmwarePath(device)}${target.suffix}` });
    }
  }
  return found;
}

/** Disks whose geometry the user chose (`lcyls`, `lheads`, `lsecs`). */
export function biosGeometries(machine: Machine): BiosGeometry[] {
  const found: BiosGeometry[] = [];
  for (const device of machine.devices()) {
    const [cylinders, heads, sectors] = ['lcyls', 'lheads', 'lsecs'].map(name => Number(property(device, name) ?? 0));
    if (!cylinders && !heads && !sectors) continue;
    found.push({
      path: `${firmwarePath(device)}${suffixOf(device)}`,
      cylinders: cylinders ?? 0,
      heads: heads ?? 0,
      sectors: sectors ?? 0,
    });
  }
  return found;
}
