import {
  ATTRIBUTE,
  ENDPOINT_IN,
  type EndpointDescription,
  type UsbDescription,
} from '../../../core/usb/descriptors.ts';
import { TRANSFER } from '../../../core/usb/endpoint.ts';

/** The host chooses between Microsoft's RNDIS and the communication class's Ethernet (CDC 1.2, ECM 1.2). */
export const CONFIGURATION = { ETHERNET: 1, RNDIS: 2 } as const;
export const ENDPOINT = { STATUS: 1, DATA: 2 } as const;
export const PACKET = 64;
/** Without the checksum. */
export const MAX_FRAME = 1514;

/** The MAC address is a string of the device (ECM 1.2, section 5.4). */
export const STRING_MAC = 3;
const STRING = {
  MANUFACTURER: 1,
  PRODUCT: 2,
  DATA: 4,
  CONTROL: 5,
  RNDIS_CONTROL: 6,
  ETHERNET: 7,
  SUBSET: 8,
  RNDIS: 9,
  SERIAL: 10,
} as const;

const CLASS = { COMMUNICATION: 0x02, DATA: 0x0a } as const;
const SUBCLASS = { ACM: 0x02, ETHERNET: 0x06 } as const;
const PROTOCOL_VENDOR = 0xff;

/** Functional descriptors (CDC 1.2, section 5.2.3). */
const CS_INTERFACE = 0x24;
const HEADER = [5, CS_INTERFACE, 0x00, 0x10, 0x01];
const CALL_MANAGEMENT = [5, CS_INTERFACE, 0x01, 0x00, 0x01];
const ABSTRACT_CONTROL = [4, CS_INTERFACE, 0x02, 0x00];
const UNION = [5, CS_INTERFACE, 0x06, 0x00, 0x01];
const ETHERNET = [13, CS_INTERFACE, 0x0f, STRING_MAC, 0, 0, 0, 0, MAX_FRAME & 0xff, MAX_FRAME >> 8, 0, 0, 0];

const STATUS_ENDPOINT: EndpointDescription = {
  address: ENDPOINT.STATUS | ENDPOINT_IN,
  type: TRANSFER.INTERRUPT,
  maxPacketSize: 16,
  interval: 32,
};
const DATA_ENDPOINTS: readonly EndpointDescription[] = [
  { address: ENDPOINT.DATA | ENDPOINT_IN, type: TRANSFER.BULK, maxPacketSize: PACKET },
  { address: ENDPOINT.DATA, type: TRANSFER.BULK, maxPacketSize: PACKET },
];

export const usbNetDescription: UsbDescription = {
  vendor: 0x0525,
  product: 0xa4a2,
  release: 0,
  manufacturerName: STRING.MANUFACTURER,
  productName: STRING.PRODUCT,
  serialNumber: STRING.SERIAL,
  strings: {
    [STRING.MANUFACTURER]: 'QEMU',
    [STRING.PRODUCT]: 'RNDIS/QEMU USB Network Device',
    [STRING_MAC]: '400102030405',
    [STRING.DATA]: 'QEMU USB Net Data Interface',
    [STRING.CONTROL]: 'QEMU USB Net Control Interface',
    [STRING.RNDIS_CONTROL]: 'QEMU USB Net RNDIS Control Interface',
    [STRING.ETHERNET]: 'QEMU USB Net CDC',
    [STRING.SUBSET]: 'QEMU USB Net Subset',
    [STRING.RNDIS]: 'QEMU USB Net RNDIS',
    [STRING.SERIAL]: '1',
  },
  full: {
    usb: 0x0200,
    class: CLASS.COMMUNICATION,
    maxPacketSize0: 64,
    configurations: [
      {
        value: CONFIGURATION.RNDIS,
        name: STRING.RNDIS,
        attributes: ATTRIBUTE.ALWAYS | ATTRIBUTE.SELF_POWERED,
        maxPower: 0x32,
        interfaceCount: 2,
        interfaces: [
          {
            number: 0,
            class: CLASS.COMMUNICATION,
            subclass: SUBCLASS.ACM,
            protocol: PROTOCOL_VENDOR,
            name: STRING.RNDIS_CONTROL,
            extra: [HEADER, CALL_MANAGEMENT, ABSTRACT_CONTROL, UNION],
            endpoints: [STATUS_ENDPOINT],
          },
          { number: 1, class: CLASS.DATA, name: STRING.DATA, endpoints: DATA_ENDPOINTS },
        ],
      },
      {
        value: CONFIGURATION.ETHERNET,
        name: STRING.ETHERNET,
        attributes: ATTRIBUTE.ALWAYS | ATTRIBUTE.SELF_POWERED,
        maxPower: 0x32,
        interfaceCount: 2,
        interfaces: [
          {
            number: 0,
            class: CLASS.COMMUNICATION,
            subclass: SUBCLASS.ETHERNET,
            name: STRING.CONTROL,
            extra: [HEADER, UNION, ETHERNET],
            endpoints: [STATUS_ENDPOINT],
          },
          // A driver turns the data on by the other setting (ECM 1.2, section 3.3).
          { number: 1, class: CLASS.DATA, endpoints: [] },
          { number: 1, alternate: 1, class: CLASS.DATA, name: STRING.DATA, endpoints: DATA_ENDPOINTS },
        ],
      },
    ],
  },
};
