import type { DeviceType } from '../core/device/device-type.ts';
import type { TypeRegistry } from '../core/device/registry.ts';

type Module = Readonly<Record<string, unknown>>;

/** The modules of this folder with the names of the device types that each exports; a machine loads only what it is made of. */
const MODULES: readonly (readonly [names: string, load: () => Promise<Module>])[] = [
  ['acpi-erst', () => import('./acpi-erst/acpi-erst.ts')],
  ['e1000 e1000-82540em e1000-82544gc e1000-82545em', () => import('./e1000/e1000.ts')],
  ['e1000e', () => import('./e1000e/e1000e.ts')],
  ['ich9-ahci ahci', () => import('./ahci/ahci.ts')],
  ['acpi-ged-x86', () => import('./acpi-ged.ts')],
  ['edu', () => import('./edu.ts')],
  ['fw_cfg_io', () => import('./fw-cfg.ts')],
  ['gpex-pcihost gpex-root', () => import('./gpex.ts')],
  ['hpet', () => import('./hpet.ts')],
  ['i440FX i440FX-pcihost', () => import('./i440fx.ts')],
  ['i6300esb', () => import('./i6300esb.ts')],
  ['i8042', () => import('./i8042.ts')],
  ['ipmi-bmc-sim', () => import('./ipmi/sim/bmc-sim.ts')],
  ['ipmi-bmc-extern', () => import('./ipmi/bmc-extern.ts')],
  ['isa-ipmi-kcs isa-ipmi-bt', () => import('./ipmi/isa-ipmi.ts')],
  ['smbus-ipmi', () => import('./ipmi/smbus-ipmi.ts')],
  ['pci-ipmi-kcs pci-ipmi-bt', () => import('./ipmi/pci-ipmi.ts')],
  ['isa-parallel', () => import('./isa-parallel.ts')],
  ['ide-hd ide-cd', () => import('./ide/ide-drive.ts')],
  ['isa-ide', () => import('./ide/isa-ide.ts')],
  ['piix3-ide piix4-ide', () => import('./ide/piix-ide.ts')],
  ['i8257', () => import('./i8257.ts')],
  ['isa-fdc', () => import('./floppy/fdc.ts')],
  ['floppy', () => import('./floppy/drive.ts')],
  ['ICH9-LPC', () => import('./ich9/lpc.ts')],
  ['ICH9-SMB', () => import('./ich9/smbus.ts')],
  ['mch q35-pcihost', () => import('./q35.ts')],
  ['pci-bridge pcie-pci-bridge i82801b11-bridge pcie-root-port ioh3420', () => import('./pci-bridges.ts')],
  ['ib700', () => import('./ib700.ts')],
  ['lsi53c895a lsi lsi53c810', () => import('./lsi53c895a/lsi53c895a.ts')],
  ['megasas megasas-gen2', () => import('./megasas/megasas.ts')],
  ['am53c974', () => import('./esp/am53c974.ts')],
  ['dc390', () => import('./esp/dc390.ts')],
  ['ioapic', () => import('./ioapic.ts')],
  ['ivshmem-plain ivshmem-doorbell', () => import('./ivshmem/ivshmem.ts')],
  ['isa-debug-exit', () => import('./isa-debug-exit.ts')],
  ['isa-debugcon', () => import('./debugcon.ts')],
  ['isa-i8259', () => import('./i8259.ts')],
  ['pc-dimm', () => import('./pc-dimm.ts')],
  ['isa-pcspk', () => import('./pc-speaker.ts')],
  ['isa-pit', () => import('./i8254.ts')],
  ['isa-serial', () => import('./isa-serial.ts')],
  ['mc146818rtc', () => import('./mc146818rtc.ts')],
  ['pc-testdev', () => import('./pc-testdev.ts')],
  ['pci-testdev', () => import('./pci-testdev.ts')],
  ['cfi.pflash01', () => import('./pflash-cfi01.ts')],
  ['PIIX3', () => import('./piix3.ts')],
  ['PIIX4_PM', () => import('./piix4-pm.ts')],
  ['ne2k_pci ne2k_isa', () => import('./ne2000/ne2000.ts')],
  [
    'i82550 i82551 i82557a i82557b i82557c i82558a i82558b i82559a i82559b i82559c i82559er i82562 i82801',
    () => import('./eepro100/eepro100.ts'),
  ],
  ['rtl8139', () => import('./rtl8139/rtl8139.ts')],
  ['port92', () => import('./port92.ts')],
  ['pvpanic pvpanic-pci', () => import('./pvpanic.ts')],
  ['scsi-hd scsi-cd', () => import('./scsi/scsi-disk.ts')],
  ['scsi-generic scsi-block', () => import('./scsi/pass-through.ts')],
  ['smbus-eeprom', () => import('./smbus-eeprom.ts')],
  [
    'virtio-9p virtio-9p-device virtio-9p-pci virtio-9p-pci-transitional virtio-9p-pci-non-transitional',
    () => import('./virtio-9p/virtio-9p.ts'),
  ],
  [
    'virtio-balloon virtio-balloon-device virtio-balloon-pci virtio-balloon-pci-transitional virtio-balloon-pci-non-transitional',
    () => import('./virtio-balloon.ts'),
  ],
  [
    'virtio-blk virtio-blk-device virtio-blk-pci virtio-blk-pci-transitional virtio-blk-pci-non-transitional',
    () => import('./virtio-blk.ts'),
  ],
  ['nvme', () => import('./nvme/nvme.ts')],
  ['nvme-ns', () => import('./nvme/nvme-ns.ts')],
  ['virtconsole virtserialport', () => import('./virtio-console.ts')],
  ['virtio-mmio', () => import('./virtio-mmio.ts')],
  [
    'virtio-serial virtio-serial-device virtio-serial-pci virtio-serial-pci-transitional virtio-serial-pci-non-transitional',
    () => import('./virtio-serial.ts'),
  ],
  [
    'virtio-net virtio-net-device virtio-net-pci virtio-net-pci-transitional virtio-net-pci-non-transitional',
    () => import('./virtio-net/virtio-net.ts'),
  ],
  [
    'virtio-scsi virtio-scsi-device virtio-scsi-pci virtio-scsi-pci-transitional virtio-scsi-pci-non-transitional',
    () => import('./virtio-scsi/virtio-scsi.ts'),
  ],
  [
    'virtio-rng virtio-rng-device virtio-rng-pci virtio-rng-pci-transitional virtio-rng-pci-non-transitional',
    () => import('./virtio-rng.ts'),
  ],
  ['virtio-iommu virtio-iommu-device virtio-iommu-pci', () => import('./virtio-iommu/virtio-iommu.ts')],
  ['VGA secondary-vga', () => import('./vga/vga.ts')],
  [
    'piix3-usb-uhci piix4-usb-uhci ich9-usb-uhci1 ich9-usb-uhci2 ich9-usb-uhci3 ich9-usb-uhci4 ich9-usb-uhci5 ich9-usb-uhci6',
    () => import('./usb/uhci/uhci.ts'),
  ],
  ['usb-ehci ich9-usb-ehci1 ich9-usb-ehci2', () => import('./usb/ehci/ehci.ts')],
  ['nec-usb-xhci qemu-xhci', () => import('./usb/xhci/xhci.ts')],
  ['pci-ohci', () => import('./usb/ohci/ohci.ts')],
  ['usb-ccid', () => import('./usb/ccid/ccid.ts')],
  ['ccid-card-passthru', () => import('./usb/ccid/passthru.ts')],
  ['usb-hub', () => import('./usb/hub.ts')],
  ['usb-kbd', () => import('./usb/hid/keyboard.ts')],
  ['usb-uas', () => import('./usb/storage/uas.ts')],
  ['usb-storage usb-bot', () => import('./usb/storage/usb-storage.ts')],
  ['usb-mouse usb-tablet', () => import('./usb/hid/pointer.ts')],
  ['virtio-gpu virtio-gpu-device virtio-gpu-pci', () => import('./virtio-gpu/virtio-gpu.ts')],
  ['virtio-vga', () => import('./virtio-gpu/virtio-vga.ts')],
  ['cirrus-vga', () => import('./cirrus/cirrus-vga.ts')],
  ['bochs-display', () => import('./vga/bochs-display.ts')],
  ['virtio-keyboard virtio-keyboard-device virtio-keyboard-pci', () => import('./virtio-input/keyboard.ts')],
  [
    'virtio-mouse virtio-mouse-device virtio-mouse-pci virtio-tablet virtio-tablet-device virtio-tablet-pci',
    () => import('./virtio-input/pointer.ts'),
  ],
  ['intel-hda ich9-intel-hda', () => import('./intel-hda/intel-hda.ts')],
  ['hda-output hda-duplex hda-micro', () => import('./hda-codec/hda-codec.ts')],
  ['AC97', () => import('./ac97/ac97.ts')],
  ['sb16', () => import('./sb16/sb16.ts')],
  ['ES1370', () => import('./es1370/es1370.ts')],
  ['vmgenid', () => import('./vmgenid.ts')],
];

const isDeviceType = (value: unknown): value is DeviceType =>
  typeof value === 'object' && value !== null && 'type' in value && 'make' in value && 'properties' in value;

export function registerDevices(registry: TypeRegistry): void {
  for (const [names, load] of MODULES) {
    registry.registerLazy(names.split(' '), async () => Object.values(await load()).filter(isDeviceType));
  }
}
