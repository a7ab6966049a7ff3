/** The classes of errors that QMP clients tell apart. */
export type QmpErrorClass = 'GenericError' | 'CommandNotFound' | 'DeviceNotActive' | 'DeviceNotFound' | 'KVMMissingCap';

/** An error whose message is for a QMP client, so in QEMU's wording. */
export class QmpError extends Error {
  override readonly name = 'QmpError';
  readonly class: QmpErrorClass;

  constructor(description: string, errorClass: QmpErrorClass = 'GenericError') {
    super(description);
    this.class = errorClass;
  }
}

/** `Device 'x' not found`, the way QEMU's clients recognise it. */
export const deviceNotFound = (device: string): QmpError =>
  new QmpError(`Device '${device}' not found`, 'DeviceNotFound');
