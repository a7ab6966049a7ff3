import type { BlockBackend, IoResult } from '../../core/block/backend.ts';
import { IoVector } from '../../core/block/io-vector.ts';
import { MAX_REQUEST, writeFlag } from '../../core/block/requests.ts';
import type { Namespace } from './namespace.ts';
import type { Request } from './queues.ts';
import { COMMAND, DNR, FUSE, IO, MAX_NAMESPACES, NSID_BROADCAST, STATUS } from './registers.ts';

/** Force unit access, in the high half of dword 12 (section 6.9). */
const FUA = 1 << 30;
/** Deallocate, in dword 11 of Dataset Management (section 6.7). */
const DEALLOCATE = 1 << 2;
const RANGE = { SIZE: 16, LENGTH: 4, START: 8 } as const;
const MAX_RANGES = 256;

/** What I/O commands need of the controller. */
export interface IoHost {
  readonly pageSize: number;
  /** The largest transfer, and the largest range to verify, as powers of two of pages; 0 for no limit. */
  readonly mdts: number;
  readonly vsl: number;
  /** I/O commands are not served at all: CC.CSS. */
  readonly adminOnly: boolean;
  namespace(nsid: number): Namespace | undefined;
  namespaces(): Iterable<Namespace>;
  /** Ends the command with what `finish` says, now or when there is a result. Returns a status or PENDING. */
  await(request: Request, result: IoResult, finish: (request: Request, error: number) => number): number;
}

export const validNsid = (nsid: number): boolean => nsid !== 0 && (nsid === NSID_BROADCAST || nsid <= MAX_NAMESPACES);

/** The first error of several results. */
function firstError(results: readonly IoResult[]): IoResult {
  const pending = results.filter(result => typeof result !== 'number');
  if (pending.length > 0) return Promise.all(results).then(errors => errors.find(error => error !== 0) ?? 0);
  for (const result of results) if (typeof result === 'number' && result !== 0) return result;
  return 0;
}

const slba = ({ command }: Request): number =>
  command.getUint32(COMMAND.CDW11, true) * 2 ** 32 + command.getUint32(COMMAND.CDW10, true);
const blockCount = ({ command }: Request): number => command.getUint16(COMMAND.CDW12, true) + 1;

const readDone = (request: Request, error: number): number =>
  error === 0 ? request.transfer.deliver() : STATUS.UNRECOVERED_READ;
const writeDone = (_request: Request, error: number): number => (error === 0 ? STATUS.SUCCESS : STATUS.WRITE_FAULT);
const otherDone = (_request: Request, error: number): number => (error === 0 ? STATUS.SUCCESS : STATUS.INTERNAL_ERROR);

/** The NVM command set (NVMe 1.4, section 6). */
export class IoCommands {
  readonly #host: IoHost;
  readonly #ranges = new Uint8Array(MAX_RANGES * RANGE.SIZE);
  readonly #rangesView = new DataView(this.#ranges.buffer);

  constructor(host: IoHost) {
    this.#host = host;
  }

  /** Returns a status, or PENDING. */
  execute(request: Request): number {
    const { nsid, opcode } = request;
    if (!validNsid(nsid)) return STATUS.INVALID_NSID | DNR;
    if (this.#host.adminOnly) return STATUS.INVALID_OPCODE | DNR;
    if (opcode === IO.FLUSH) return this.#flush(request);
    const namespace = this.#host.namespace(nsid);
    if (namespace === undefined) return STATUS.INVALID_FIELD | DNR;
    if (!IO_OPCODES.has(opcode)) return STATUS.INVALID_OPCODE | DNR;
    if ((request.command.getUint8(COMMAND.FLAGS) & FUSE) !== 0) return STATUS.INVALID_FIELD;
    switch (opcode) {
      case IO.READ:
        return this.#read(request, namespace);
      case IO.WRITE:
        return this.#write(request, namespace);
      case IO.WRITE_ZEROES:
        return this.#writeZeroes(request, namespace);
      case IO.COMPARE:
        return this.#compare(request, namespace);
      case IO.VERIFY:
        return this.#verify(request, namespace);
      default:
        return this.#datasetManagement(request, namespace);
    }
  }

  #flush(request: Request): number {
    if (request.nsid === NSID_BROADCAST) {
      const results = [...this.#host.namespaces()].map(({ backend }) => backend.flush());
      return this.#host.await(request, firstError(results), writeDone);
    }
    const namespace = this.#host.namespace(request.nsid);
    if (namespace === undefined) return STATUS.INVALID_FIELD | DNR;
    return this.#host.await(request, namespace.backend.flush(), writeDone);
  }

  /** Whether the blocks are there and their data may be moved at once. */
  #check(request: Request, namespace: Namespace): number {
    const { pageSize, mdts } = this.#host;
    const bytes = blockCount(request) * namespace.blockSize;
    if ((mdts !== 0 && bytes > pageSize * 2 ** mdts) || bytes > MAX_REQUEST) return STATUS.INVALID_FIELD | DNR;
    return namespace.contains(slba(request), blockCount(request)) ? STATUS.SUCCESS : STATUS.LBA_RANGE | DNR;
  }

  /** {@link #check}, and takes the data pointer. */
  #map(request: Request, namespace: Namespace): number {
    const status = this.#check(request, namespace);
    if (status !== STATUS.SUCCESS) return status;
    return request.transfer.map(request.command, blockCount(request) * namespace.blockSize, this.#host.pageSize);
  }

  #read(request: Request, namespace: Namespace): number {
    const status = this.#map(request, namespace);
    if (status !== STATUS.SUCCESS) return status | DNR;
    const { transfer } = request;
    transfer.prepareRead();
    const offset = slba(request) * namespace.blockSize;
    return this.#host.await(request, namespace.backend.readv(offset, transfer.vector, transfer.length), readDone);
  }

  #write(request: Request, namespace: Namespace): number {
    const status = this.#map(request, namespace);
    if (status !== STATUS.SUCCESS) return status | DNR;
    const { transfer } = request;
    if (!transfer.prepareWrite()) return STATUS.DATA_TRANSFER_ERROR;
    const offset = slba(request) * namespace.blockSize;
    const flags = (request.cdw(COMMAND.CDW12) & FUA) !== 0 ? writeFlag.FUA : 0;
    const result = namespace.backend.writev(offset, transfer.vector, transfer.length, 0, flags);
    return this.#host.await(request, result, writeDone);
  }

  #writeZeroes(request: Request, namespace: Namespace): number {
    const { blockSize, backend } = namespace;
    const count = blockCount(request);
    if (!namespace.contains(slba(request), count)) return STATUS.LBA_RANGE | DNR;
    const flags = writeFlag.MAY_UNMAP | ((request.cdw(COMMAND.CDW12) & FUA) !== 0 ? writeFlag.FUA : 0);
    return this.#host.await(
      request,
      backend.writeZeroes(slba(request) * blockSize, count * blockSize, flags),
      writeDone,
    );
  }

  #compare(request: Request, namespace: Namespace): number {
    const status = this.#map(request, namespace);
    if (status !== STATUS.SUCCESS) return status;
    const { transfer } = request;
    const given = new Uint8Array(transfer.length);
    if (!transfer.take(given, 0, given.length)) return STATUS.DATA_TRANSFER_ERROR;
    const stored = new Uint8Array(given.length);
    const result = namespace.backend.readv(slba(request) * namespace.blockSize, IoVector.of(stored));
    return this.#host.await(request, result, (_request, error) => {
      if (error !== 0) return STATUS.INTERNAL_ERROR;
      return Buffer.compare(given, stored) === 0 ? STATUS.SUCCESS : STATUS.COMPARE_FAILURE;
    });
  }

  #verify(request: Request, namespace: Namespace): number {
    const { blockSize, backend } = namespace;
    const bytes = blockCount(request) * blockSize;
    if (bytes > this.#host.pageSize * 2 ** this.#host.vsl || bytes > MAX_REQUEST) return STATUS.INVALID_FIELD | DNR;
    if (!namespace.contains(slba(request), blockCount(request))) return STATUS.LBA_RANGE | DNR;
    const read = backend.readv(slba(request) * blockSize, IoVector.of(new Uint8Array(bytes)));
    return this.#host.await(request, read, otherDone);
  }

  /** Ranges that are not there are passed over, as they are only hints. */
  #datasetManagement(request: Request, namespace: Namespace): number {
    if ((request.cdw(COMMAND.CDW11) & DEALLOCATE) === 0) return STATUS.SUCCESS;
    const count = (request.cdw(COMMAND.CDW10) & 0xff) + 1;
    const status = request.transfer.map(request.command, count * RANGE.SIZE, this.#host.pageSize);
    if (status !== STATUS.SUCCESS) return status;
    if (!request.transfer.take(this.#ranges, 0, count * RANGE.SIZE)) return STATUS.DATA_TRANSFER_ERROR;
    const results: IoResult[] = [];
    const view = this.#rangesView;
    for (let at = 0; at < count * RANGE.SIZE; at += RANGE.SIZE) {
      const length = view.getUint32(at + RANGE.LENGTH, true);
      const start = view.getUint32(at + RANGE.START + 4, true) * 2 ** 32 + view.getUint32(at + RANGE.START, true);
      if (namespace.contains(start, length))
        results.push(discard(namespace.backend, start, length, namespace.blockSize));
    }
    return this.#host.await(request, firstError(results), otherDone);
  }
}

/** Gives blocks back, in requests that are not too large. */
function discard(backend: BlockBackend, start: number, blocks: number, blockSize: number): IoResult {
  const results: IoResult[] = [];
  const most = Math.floor(MAX_REQUEST / blockSize);
  for (let done = 0; done < blocks; done += most) {
    results.push(backend.discard((start + done) * blockSize, Math.min(most, blocks - done) * blockSize));
  }
  return firstError(results);
}

export const IO_OPCODES: ReadonlySet<number> = new Set(Object.values(IO));
