import { errno } from '../../core/block/io-error.ts';
import { IoVector } from '../../core/block/io-vector.ts';
import { OP, STATUS } from '../../core/scsi/command.ts';
import { CHUNK } from '../../core/scsi/scsi-request.ts';
import { SENSE } from '../../core/scsi/sense.ts';
import { DiskRequest } from './disk-request.ts';

/** RDPROTECT, WRPROTECT (SBC-3, section 5.8): protection information, which there is none of. */
const PROTECT = 0xe0;
/** Force unit access. */
const FUA = 0x08;
/** The first version of the standard (SPC-3, table 83) whose commands have those fields. */
const SPC = 3;

/** The commands of {@link DiskTransfer}, and what is special about them. */
export const TRANSFERS: ReadonlyMap<number, { readonly write: boolean; readonly safe: 'never' | 'fua' | 'always' }> =
  new Map([
    [OP.READ_6, { write: false, safe: 'never' }],
    [OP.READ_10, { write: false, safe: 'fua' }],
    [OP.READ_12, { write: false, safe: 'fua' }],
    [OP.READ_16, { write: false, safe: 'fua' }],
    [OP.WRITE_6, { write: true, safe: 'never' }],
    [OP.WRITE_10, { write: true, safe: 'fua' }],
    [OP.WRITE_12, { write: true, safe: 'fua' }],
    [OP.WRITE_16, { write: true, safe: 'fua' }],
    [OP.WRITE_AND_VERIFY_10, { write: true, safe: 'always' }],
    [OP.WRITE_AND_VERIFY_12, { write: true, safe: 'always' }],
    [OP.WRITE_AND_VERIFY_16, { write: true, safe: 'always' }],
  ] as const);

/** READ, WRITE and WRITE AND VERIFY (SBC-3, section 5): blocks between the medium and the initiator's memory. */
export class DiskTransfer extends DiskRequest {
  readonly #vector = new IoVector();

  protected override send(): number {
    const { command, disk } = this;
    const write = TRANSFERS.get(command.opcode)?.write ?? false;
    if (!disk.backend.available) {
      this.checkCondition(SENSE.MEDIUM_NOT_PRESENT);
    } else if (write && !disk.writable) {
      this.checkCondition(SENSE.WRITE_PROTECTED);
    } else if (disk.scsiVersion >= SPC && (command.view.getUint8(1) & PROTECT) !== 0) {
      this.checkCondition(SENSE.INVALID_FIELD);
    } else if (!disk.inRange(command.lba, command.blocks)) {
      this.checkCondition(SENSE.LBA_OUT_OF_RANGE);
    } else {
      this.position = command.lba * disk.blockSize;
      this.left = command.blocks * disk.blockSize;
      if (this.left === 0) this.complete(STATUS.GOOD);
      return write ? -this.left : this.left;
    }
    return 0;
  }

  /** Whether what is read must be on the medium, and what is written there before the command ends. */
  #forced(): boolean {
    const safe = TRANSFERS.get(this.command.opcode)?.safe;
    return safe === 'always' || (safe === 'fua' && (this.command.view.getUint8(1) & FUA) !== 0);
  }

  protected override readData(): void {
    if (this.left === 0) {
      this.complete(STATUS.GOOD);
    } else if (!this.disk.backend.available) {
      if (this.failed(errno.ENOMEDIUM)) this.#skip();
    } else if (!this.started && this.#forced()) {
      this.started = true;
      this.await(this.disk.backend.flush(), () => this.#read());
    } else {
      this.started = true;
      this.#read();
    }
  }

  #read(): void {
    const { disk, position, left } = this;
    const memory = this.task.memory?.();
    if (memory !== undefined) {
      this.await(disk.backend.readv(position, memory.vector, left, memory.start), () => this.#moved(left));
      return;
    }
    const length = this.#piece();
    this.await(disk.backend.readv(position, this.#vector.clear().add(this.buffer, 0, length)), () => {
      this.position += length;
      this.left -= length;
      this.offer(length);
    });
  }

  /** A medium that is gone, and an error that is to be ignored: nothing to give. */
  #skip(): void {
    this.left = 0;
    this.complete(STATUS.GOOD);
  }

  /** All blocks went between the medium and memory at once. */
  #moved(length: number): void {
    this.residual -= length;
    this.left = 0;
    this.#end();
  }

  /** Makes room for the next piece; returns its length. */
  #piece(): number {
    this.device.takeBuffer(this);
    // Whole blocks, so that a piece can be tried again by itself.
    const { blockSize } = this.disk;
    return Math.min(this.left, Math.max(blockSize, Math.floor(CHUNK / blockSize) * blockSize), CHUNK);
  }

  protected override writeData(): void {
    const { disk, offered } = this;
    if (this.left === 0) {
      this.#end();
    } else if (offered === 0) {
      const memory = this.task.memory?.();
      if (memory === undefined) this.offer(this.#piece());
      else if (!disk.backend.available) this.#unavailable();
      else {
        const { vector, start } = memory;
        this.await(disk.backend.writev(this.position, vector, this.left, start), () => this.#moved(this.left));
      }
    } else if (!disk.backend.available) {
      this.#unavailable();
    } else {
      const vector = this.#vector.clear().add(this.buffer, 0, offered);
      this.await(disk.backend.writev(this.position, vector), () => this.#written(offered));
    }
  }

  #unavailable(): void {
    if (this.failed(errno.ENOMEDIUM)) this.#skip();
  }

  #written(length: number): void {
    this.position += length;
    this.left -= length;
    this.offered = 0;
    if (this.left === 0) this.#end();
    else this.offer(this.#piece());
  }

  #end(): void {
    if (this.command.direction === 'out' && this.#forced()) this.flushAndComplete();
    else this.complete(STATUS.GOOD);
  }
}
