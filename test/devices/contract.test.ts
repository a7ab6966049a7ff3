/** The device contract (DESIGN, section 8) on every device type that there is. */
import t from 'tap';
import type { DeviceType } from '../../core/device/device-type.ts';
import { TypeRegistry } from '../../core/device/registry.ts';
import { SynthTree } from '../../core/fsdev/synth-tree.ts';
import { deviceContract } from '../../core/testing/contract/contract.ts';
import { registerDevices } from '../../devices/index.ts';

t.setTimeout(240_000);

const registry = new TypeRegistry();
registerDevices(registry);
await registry.loadAll();
const types = registry.devices();

/** What has no default and must be said. */
const SHARED = { fsdev: new SynthTree('tree', false), mount_tag: 'contract' };
const NEEDED: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  'tpm-tis': { tpmdev: 'tpm' },
  'tpm-crb': { tpmdev: 'tpm' },
  'usb-serial': { chardev: 'serial' },
  'virtio-crypto-device': { cryptodev: 'crypto' },
  'virtio-crypto-pci': { cryptodev: 'crypto' },
  'virtio-9p-pci': SHARED,
  'virtio-9p-pci-transitional': SHARED,
  'virtio-9p-pci-non-transitional': SHARED,
  'virtio-9p-device': SHARED,
  'cfi.pflash01': { 'sector-length': 4096, 'num-blocks': 16, width: 1, name: 'flash' },
  loader: { addr: 0x1000, data: 1, 'data-len': 4 },
  'ivshmem-plain': { master: 'on' },
  nvme: { serial: 'contract', pmrdev: undefined, subsys: undefined },
};

/** What no bench can give. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  ...Object.fromEntries(
    ['isa-ipmi-bt', 'isa-ipmi-kcs', 'pci-ipmi-bt', 'pci-ipmi-kcs', 'smbus-ipmi'].map(type => [
      type,
      'it has a BMC behind it',
    ]),
  ),
  'ivshmem-doorbell': 'it speaks to a server of its own',
  'nvme-ns': 'its bus is that of a controller, which needs a serial number',
  'ccid-card-passthru': 'its bus is the slot of a smart card reader, which is a USB device itself',
  'virtio-iommu-device': 'it translates for a PCI bus, so that it comes as virtio-iommu-pci only',
  vmcoreinfo: 'its file is in the fw_cfg of a machine',
  ramfb: 'its file is in the fw_cfg of a machine',
  ...Object.fromEntries(
    ['virtio-pmem', 'virtio-pmem-pci', 'virtio-mem', 'virtio-mem-pci'].map(type => [
      type,
      'its memory goes where the memory slots of a machine are',
    ]),
  ),
  nvdimm: 'its bus is the memory slots of a machine',
  'pxb-cxl': 'it is a part of a machine, beside its host bridge',
  pxb: 'it is a part of a machine, beside its host bridge',
  'pxb-pcie': 'it is a part of a machine, beside its host bridge',
  'pc-dimm': 'its bus is the memory slots of a machine',
  'scsi-block': 'it passes commands on to a SCSI device of the host',
  'scsi-generic': 'it passes commands on to a SCSI device of the host',
};
/** A USB controller of all speeds, where the first that there is has but one. */
const hostsOf = (type: DeviceType): readonly DeviceType[] =>
  type.bus === 'usb-bus' ? types.filter(host => host.type === 'nec-usb-xhci' || host.bus === 'usb-bus') : types;

t.test('there are devices', async t => t.ok(types.length > 40));

for (const type of types) {
  t.test(type.type, { skip: ELSEWHERE[type.type] ?? false }, async t => {
    for (const { name, check } of deviceContract(type, {
      hosts: hostsOf(type),
      properties: NEEDED[type.type] ?? {},
      accesses: 120,
    }))
      await t.test(name, check);
  });
}
