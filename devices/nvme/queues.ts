import type { BlockBackend } from '../../core/block/backend.ts';
import type { ControllerMemory } from './memory.ts';
import { COMMAND } from './registers.ts';
import { Transfer } from './transfer.ts';

/** A command from when it was fetched to when its completion is in the queue. Used again for later ones. */
export class Request {
  readonly bytes = new Uint8Array(COMMAND.SIZE);
  readonly command = new DataView(this.bytes.buffer);
  readonly transfer: Transfer;
  queue: SubmissionQueue;
  status = 0;
  /** Command specific, dword 0 of the completion. */
  result = 0;
  /** The disk has it. */
  underWay = false;
  backend: BlockBackend | undefined;

  constructor(queue: SubmissionQueue, memory: ControllerMemory) {
    this.queue = queue;
    this.transfer = new Transfer(memory);
  }

  get opcode(): number {
    return this.bytes[COMMAND.OPCODE] ?? 0;
  }

  get cid(): number {
    return this.command.getUint16(COMMAND.CID, true);
  }

  get nsid(): number {
    return this.command.getUint32(COMMAND.NSID, true);
  }

  cdw(offset: number): number {
    return this.command.getUint32(offset, true);
  }
}

/** Completion queue (NVMe 1.4, section 4.1). */
export class CompletionQueue {
  readonly id: number;
  readonly address: number;
  /** Entries. */
  readonly size: number;
  readonly vector: number;
  readonly interrupts: boolean;
  head = 0;
  tail = 0;
  /** Of the entries that are written in this round. */
  phase = 1;
  /** Submission queues that complete here. */
  readonly feeders: SubmissionQueue[] = [];
  /** Commands that have ended and wait for room, oldest first. */
  readonly waiting: Request[] = [];

  constructor(id: number, address: number, size: number, vector: number, interrupts: boolean) {
    this.id = id;
    this.address = address;
    this.size = size;
    this.vector = vector;
    this.interrupts = interrupts;
  }

  get full(): boolean {
    return (this.tail + 1) % this.size === this.head;
  }

  get empty(): boolean {
    return this.tail === this.head;
  }

  advance(): void {
    this.tail++;
    if (this.tail < this.size) return;
    this.tail = 0;
    this.phase ^= 1;
  }
}

/** Submission queue (section 4.1). */
export class SubmissionQueue {
  readonly id: number;
  readonly address: number;
  readonly size: number;
  readonly completions: CompletionQueue;
  head = 0;
  tail = 0;
  /** Commands whose completion is not in the queue yet. */
  readonly outstanding = new Set<Request>();
  /** Those of them that the disk has. */
  underWay = 0;
  /** The command that deletes it, once it has come. */
  deletion: Request | undefined;
  /** Its commands are being taken. */
  active = false;

  constructor(id: number, address: number, size: number, completions: CompletionQueue) {
    this.id = id;
    this.address = address;
    this.size = size;
    this.completions = completions;
  }

  get ready(): boolean {
    return this.head !== this.tail && this.outstanding.size < this.size && this.deletion === undefined;
  }
}
