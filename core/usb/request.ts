/** Control requests (USB 2.0, section 9.3): bmRequestType in the high byte, bRequest in the low one. */

/** bmRequestType: direction, type, recipient. */
export const REQUEST_TYPE = {
  IN: 0x80,
  STANDARD: 0x00,
  CLASS: 0x20,
  VENDOR: 0x40,
  DEVICE: 0x00,
  INTERFACE: 0x01,
  ENDPOINT: 0x02,
  OTHER: 0x03,
} as const;

const { IN, CLASS, VENDOR, INTERFACE, ENDPOINT, OTHER } = REQUEST_TYPE;

export const deviceIn = (request: number): number => (IN << 8) | request;
export const deviceOut = (request: number): number => request;
export const interfaceIn = (request: number): number => ((IN | INTERFACE) << 8) | request;
export const interfaceOut = (request: number): number => (INTERFACE << 8) | request;
export const endpointOut = (request: number): number => (ENDPOINT << 8) | request;
export const classDeviceIn = (request: number): number => ((IN | CLASS) << 8) | request;
export const classDeviceOut = (request: number): number => (CLASS << 8) | request;
export const classInterfaceIn = (request: number): number => ((IN | CLASS | INTERFACE) << 8) | request;
export const classInterfaceOut = (request: number): number => ((CLASS | INTERFACE) << 8) | request;
export const classOtherIn = (request: number): number => ((IN | CLASS | OTHER) << 8) | request;
export const classOtherOut = (request: number): number => ((CLASS | OTHER) << 8) | request;
export const vendorDeviceIn = (request: number): number => ((IN | VENDOR) << 8) | request;
export const vendorDeviceOut = (request: number): number => (VENDOR << 8) | request;
export const vendorInterfaceIn = (request: number): number => ((IN | VENDOR | INTERFACE) << 8) | request;

/** Standard requests (table 9-4; USB 3.0, table 9-4). */
export const REQUEST = {
  GET_STATUS: 0,
  CLEAR_FEATURE: 1,
  SET_FEATURE: 3,
  SET_ADDRESS: 5,
  GET_DESCRIPTOR: 6,
  SET_DESCRIPTOR: 7,
  GET_CONFIGURATION: 8,
  SET_CONFIGURATION: 9,
  GET_INTERFACE: 10,
  SET_INTERFACE: 11,
  SET_SEL: 48,
  SET_ISOCH_DELAY: 49,
} as const;

/** Features (table 9-6). */
export const FEATURE = { ENDPOINT_HALT: 0, REMOTE_WAKEUP: 1 } as const;

/** What a device's handler of control requests answers in place of a number of bytes. */
export const STALL = -1;
export const LATER = -2;
