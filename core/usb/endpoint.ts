import type { UsbDevice } from './device.ts';
import type { Pid, UsbPacket } from './packet.ts';

/** Transfer types as in bmAttributes of an endpoint descriptor (USB 2.0, table 9-13). */
export const TRANSFER = { CONTROL: 0, ISOCHRONOUS: 1, BULK: 2, INTERRUPT: 3 } as const;
export type TransferType = (typeof TRANSFER)[keyof typeof TRANSFER];

/** wMaxPacketSize: bits 12..11 are additional transactions per microframe (USB 2.0, section 9.6.6). */
function bytesPerMicroframe(raw: number): number {
  const additional = (raw >> 11) & 3;
  return (raw & 0x7ff) * (additional === 3 ? 1 : 1 + additional);
}

/** One end of a pipe: a device's endpoint in one direction; endpoint 0 serves both. */
export class UsbEndpoint {
  readonly device: UsbDevice;
  readonly number: number;
  readonly pid: Pid | undefined;
  /** Packets that the device has not finished, oldest first. */
  readonly queue: UsbPacket[] = [];
  /** Undefined while no interface that is in use has the endpoint. */
  type: TransferType | undefined;
  interfaceNumber = 0;
  maxPacketSize = 0;
  /** Streams of a SuperSpeed bulk endpoint; 0 for none. */
  maxStreams = 0;
  /** A packet has failed: those behind it are given back undone. */
  halted = false;

  constructor(device: UsbDevice, number: number, pid: Pid | undefined) {
    this.device = device;
    this.number = number;
    this.pid = pid;
    this.disable();
  }

  configure(type: TransferType, interfaceNumber: number, rawPacketSize: number, streamExponent: number): void {
    this.type = type;
    this.interfaceNumber = interfaceNumber;
    this.maxPacketSize = bytesPerMicroframe(rawPacketSize);
    this.maxStreams = streamExponent === 0 ? 0 : 2 ** streamExponent;
  }

  disable(): void {
    const control = this.number === 0;
    this.type = control ? TRANSFER.CONTROL : undefined;
    this.interfaceNumber = 0;
    this.maxPacketSize = control ? 64 : 0;
    this.maxStreams = 0;
  }
}
