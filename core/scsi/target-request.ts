import { OP, STATUS } from './command.ts';
import { ScsiRequest } from './scsi-request.ts';
import { putSense, SENSE } from './sense.ts';
import { putText } from './text.ts';

/** Peripheral qualifiers with the device type that is not known (SPC-3, section 6.4.2). */
const NO_LOGICAL_UNIT = 0x7f;
const NOT_CONNECTED = 0x3f;
export const SPC_3 = 5;
const INQUIRY_BYTES = 36;
const FLAT_SPACE = 0x40;
/** SELECT REPORT values up to this are known (SPC-3, section 6.21). */
const SELECT_REPORT_MAX = 2;

/**
 * A command that the target answers whichever logical unit it is for: REPORT LUNS, sense data that is pending, and what
 * is asked of a logical unit that is not there (SPC-3, section 6.21; SAM-4, section 5.11).
 */
export class TargetRequest extends ScsiRequest {
  protected override send(): number {
    const { opcode } = this.command;
    if (this.lun !== 0 && this.lun !== this.device.lun && opcode !== OP.INQUIRY && opcode !== OP.REQUEST_SENSE) {
      this.checkCondition(SENSE.LUN_NOT_SUPPORTED);
      return 0;
    }
    this.device.takeBuffer(this);
    switch (opcode) {
      case OP.REPORT_LUNS:
        return this.#reply(this.#reportLuns());
      case OP.INQUIRY:
        return this.#reply(this.#inquiry());
      case OP.REQUEST_SENSE:
        return this.#reply(this.#requestSense());
      case OP.TEST_UNIT_READY:
        return this.#reply(0);
      default:
        this.checkCondition(SENSE.INVALID_OPCODE);
        return 0;
    }
  }

  #reply(length: number): number {
    if (length < 0) this.checkCondition(SENSE.INVALID_FIELD);
    else if (length === 0) this.complete(STATUS.GOOD);
    this.left = Math.max(0, length);
    return this.left;
  }

  protected override readData(): void {
    const length = this.left;
    if (length === 0) {
      this.complete(STATUS.GOOD);
      return;
    }
    this.left = 0;
    this.offer(length);
  }

  protected override writeData(): void {
    this.checkCondition(SENSE.INVALID_FIELD);
  }

  /** The logical units of the target; that there is a LUN 0 is always said. */
  #reportLuns(): number {
    const { command, buffer: out } = this;
    const { channel, target, scsiBus } = this.device;
    if (command.transfer < 16 || command.view.getUint8(2) > SELECT_REPORT_MAX) return -1;
    let at = 16;
    out.fill(0, 0, at);
    for (const unit of scsiBus.units()) {
      if (unit.channel !== channel || unit.target !== target || unit.lun === 0 || at + 8 > out.length) continue;
      out.fill(0, at, at + 8);
      if (unit.lun >= 0x100) out[at] = FLAT_SPACE | (unit.lun >>> 8);
      out[at + 1] = unit.lun;
      at += 8;
    }
    new DataView(out.buffer, out.byteOffset).setUint32(0, at - 8);
    return Math.min(at, command.transfer & ~7);
  }

  #inquiry(): number {
    const { command, buffer: out } = this;
    const options = command.view.getUint8(1);
    const page = command.view.getUint8(2);
    // Command support data is not there.
    if ((options & 0x02) !== 0) return -1;
    if ((options & 0x01) !== 0) {
      if (page !== 0) return -1;
      out.set([page, 0, 1, 0]);
      return Math.min(command.transfer, 4);
    }
    if (page !== 0) return -1;
    const length = Math.min(command.transfer, INQUIRY_BYTES);
    out.fill(0, 0, INQUIRY_BYTES);
    if (this.lun !== 0) {
      out[0] = NO_LOGICAL_UNIT;
      return length;
    }
    out[0] = NOT_CONNECTED;
    out[2] = SPC_3;
    out[3] = 0x12; // HISUP, response data format 2
    out[4] = length - 5;
    out[7] = 0x10 | (this.device.scsiBus.adapter.taggedQueuing ? 0x02 : 0);
    putText(out, 8, 8, 'QEMU');
    putText(out, 16, 16, 'QEMU TARGET');
    for (const [index, letter] of [...'2.5'].entries()) out[32 + index] = letter.charCodeAt(0);
    return length;
  }

  #requestSense(): number {
    const { command, buffer: out, device } = this;
    const fixed = (command.view.getUint8(1) & 1) === 0;
    const elsewhere = this.lun !== 0 && this.lun !== device.lun;
    const sense = elsewhere ? SENSE.LUN_NOT_SUPPORTED : device.pendingSense;
    const length = putSense(out, command.transfer, sense, fixed);
    device.senseTaken();
    return length;
  }
}
