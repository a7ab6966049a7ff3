import { ATTRIBUTE, ENDPOINT_IN, type SpeedDescription, type UsbDescription } from '../../../core/usb/descriptors.ts';
import { TRANSFER } from '../../../core/usb/endpoint.ts';

/** Endpoint numbers: data from and to the device. */
export const ENDPOINT = { IN: 1, OUT: 2 } as const;
const MASS_STORAGE = 0x08;
const SCSI_TRANSPARENT = 0x06;
const BULK_ONLY = 0x50;

const STRING = { MANUFACTURER: 1, PRODUCT: 2, SERIAL: 3, FULL: 4, HIGH: 5, SUPER: 6 } as const;

function at(usb: number, name: number, maxPacketSize0: number, maxPacketSize: number, maxBurst = 0): SpeedDescription {
  const endpoint = (address: number) => ({ address, type: TRANSFER.BULK, maxPacketSize, maxBurst });
  return {
    usb,
    maxPacketSize0,
    configurations: [
      {
        value: 1,
        name,
        attributes: ATTRIBUTE.ALWAYS | ATTRIBUTE.SELF_POWERED,
        interfaceCount: 1,
        interfaces: [
          {
            number: 0,
            class: MASS_STORAGE,
            subclass: SCSI_TRANSPARENT,
            protocol: BULK_ONLY,
            endpoints: [endpoint(ENDPOINT.IN | ENDPOINT_IN), endpoint(ENDPOINT.OUT)],
          },
        ],
      },
    ],
  };
}

/** A disk with the bulk-only transport, at all three speeds. */
export const storageDescription: UsbDescription = {
  vendor: 0x46f4,
  product: 0x0001,
  release: 0,
  manufacturerName: STRING.MANUFACTURER,
  productName: STRING.PRODUCT,
  serialNumber: STRING.SERIAL,
  strings: {
    [STRING.MANUFACTURER]: 'QEMU',
    [STRING.PRODUCT]: 'QEMU USB HARDDRIVE',
    [STRING.SERIAL]: '1',
    [STRING.FULL]: 'Full speed config (usb 1.1)',
    [STRING.HIGH]: 'High speed config (usb 2.0)',
    [STRING.SUPER]: 'Super speed config (usb 3.0)',
  },
  full: at(0x0200, STRING.FULL, 8, 64),
  high: at(0x0200, STRING.HIGH, 64, 512),
  super: at(0x0300, STRING.SUPER, 9, 1024, 15),
};
