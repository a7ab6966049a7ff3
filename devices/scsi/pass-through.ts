import { driveProperty } from '../../core/block/device-properties.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { type PropSet, type PropValues, prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import type { ScsiCommand } from '../../core/scsi/command.ts';
import { ScsiDevice, scsiProperties } from '../../core/scsi/scsi-device.ts';
import { RefusedRequest, type ScsiRequest, type ScsiTask } from '../../core/scsi/scsi-request.ts';
import { SENSE } from '../../core/scsi/sense.ts';

const genericProperties = {
  ...scsiProperties,
  drive: driveProperty,
  'share-rw': prop.bool({ default: false }),
  io_timeout: prop.u32({ default: 30 }),
} as const;

const blockProperties = {
  ...genericProperties,
  rerror: prop.enum(['auto', 'report', 'ignore', 'stop'], { default: 'auto', typeName: 'BlockdevOnError' }),
  werror: prop.enum(['auto', 'report', 'ignore', 'enospc', 'stop'], { default: 'auto', typeName: 'BlockdevOnError' }),
  rotation_rate: prop.u16({ default: 0 }),
  max_unmap_size: prop.u64({ default: 2n ** 30n }),
  max_io_size: prop.u64({ default: 0x7fff_ffffn }),
  scsi_version: prop.i32({ default: -1 }),
} as const;

/**
 * A device of the host that the guest is to have with its own commands. That takes Linux's SG_IO, which no block driver here
 * does, so each drive is refused as one that is no SCSI device is.
 */
class PassThrough<S extends PropSet> extends ScsiDevice<S> {
  readonly kind = 'disk';

  protected override realize(): void {
    // Both types declare the properties of the generic one.
    const { drive } = this.props as PropValues<S> & PropValues<typeof genericProperties>;
    if (drive === undefined) throw new SouthbridgeError('ERR_DRIVE', 'drive property not set');
    throw new SouthbridgeError(
      'ERR_DRIVE',
      'cannot get SG_IO version number: Inappropriate ioctl for device',
      'Is this a SCSI device? Only images and block devices are supported: use scsi-hd or scsi-cd',
    );
  }

  protected override newCommand(tag: number, command: ScsiCommand, task: ScsiTask): ScsiRequest {
    return new RefusedRequest(SENSE.INVALID_OPCODE, false, this, tag, this.lun, command, task);
  }
}

const common = { bus: 'SCSI', category: 'storage', hotpluggable: true } as const;

export const scsiGeneric = deviceType({
  ...common,
  type: 'scsi-generic',
  summary: 'pass through generic scsi device (/dev/sg*)',
  parents: ['scsi-device', 'device'],
  properties: genericProperties,
  create: PassThrough<typeof genericProperties>,
});
export const scsiBlock = deviceType({
  ...common,
  type: 'scsi-block',
  summary: 'SCSI block device passthrough',
  parents: ['scsi-disk-base', 'scsi-device', 'device'],
  properties: blockProperties,
  create: PassThrough<typeof blockProperties>,
});
