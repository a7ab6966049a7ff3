import type { BlockBackend } from '../../../core/block/backend.ts';
import { blockProperties } from '../../../core/block/device-properties.ts';
import { deviceType } from '../../../core/device/device-type.ts';
import { prop } from '../../../core/device/property.ts';
import { SouthbridgeError } from '../../../core/errors.ts';
import { usbProperties } from '../../../core/usb/device.ts';
import { scsiCd, scsiHd } from '../../scsi/scsi-disk.ts';
import { BulkOnly } from './bulk-only.ts';

const properties = {
  ...usbProperties,
  ...blockProperties,
  removable: prop.bool({ default: false, help: 'on/off' }),
  commandlog: prop.bool({ default: false, help: 'on/off' }),
  bootindex: prop.bootIndex({ default: -1 }),
} as const;

/** A memory stick or a CD-ROM drive: one logical unit, which comes with it. */
class UsbStorage extends BulkOnly<typeof properties> {
  readonly maxLun = 0;

  protected override setUp(): void {
    const { drive, serial, bootindex, removable, rerror, werror } = this.props;
    if (drive === undefined) throw new SouthbridgeError('ERR_DRIVE', 'drive property not set');
    super.setUp();
    const common = { drive, serial, rerror, werror, bootindex, 'share-rw': this.props['share-rw'] };
    if (isCd(drive)) this.scsiBus?.plugOwn(scsiCd, 0, common);
    else this.scsiBus?.plugOwn(scsiHd, 0, { ...common, removable });
  }
}

function isCd(drive: BlockBackend): boolean {
  return drive.legacy?.media === 'cdrom';
}

class UsbBot extends BulkOnly<typeof usbProperties> {
  readonly maxLun = 15;

  /** What is plugged in while the guest runs waits for its logical units, until `attached` is set. */
  protected override get attachesItself(): boolean {
    return !this.usbBus.hotplugging;
  }

  protected override get attachedSettable(): boolean {
    return true;
  }
}

const common = {
  bus: 'usb-bus',
  category: 'storage',
  parents: ['usb-storage-dev', 'usb-device', 'device'],
  hotpluggable: true,
} as const;

export const usbStorage = deviceType({
  ...common,
  type: 'usb-storage',
  summary: 'USB mass storage device',
  properties,
  create: UsbStorage,
});
export const usbBot = deviceType({
  ...common,
  type: 'usb-bot',
  summary: 'USB mass storage device with a SCSI bus: devices go on that',
  properties: usbProperties,
  create: UsbBot,
});
