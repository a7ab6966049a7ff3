import type { QueueEngine } from './engine.ts';
import { getFeatures, setFeatures } from './features.ts';
import { IDENTIFY_SIZE, type IdentifyHost, identify } from './identify.ts';
import { getLogPage, type LogHost } from './log-pages.ts';
import { type AttachmentHost, attachNamespace } from './namespace-attachment.ts';
import type { Request } from './queues.ts';
import { ADMIN, COMMAND, DNR, FUSE, MQES, PSDT_SHIFT, STATUS } from './registers.ts';

/** In the flags of the commands that create queues (sections 5.3 and 5.4): physically contiguous, interrupts. */
const CONTIGUOUS = 1;
const INTERRUPTS = 2;

export interface AdminHost extends LogHost, IdentifyHost, AttachmentHost {
  readonly engine: QueueEngine;
  /** Interrupts are messages: any vector may be used. */
  readonly messages: boolean;
  readonly namespace: LogHost['namespace'];
  readonly namespaces: LogHost['namespaces'];
  readonly subsystem: IdentifyHost['subsystem'];
  readonly data: LogHost['data'];
  readonly receive: LogHost['receive'];
}

/** Admin commands (NVMe 1.4, section 5). Returns a status, or PENDING. */
export function executeAdmin(host: AdminHost, request: Request): number {
  const { opcode } = request;
  const flags = request.command.getUint8(COMMAND.FLAGS);
  if (!ADMIN_OPCODES.has(opcode)) return STATUS.INVALID_OPCODE | DNR;
  if (flags >>> PSDT_SHIFT !== 0) return STATUS.INVALID_FIELD | DNR;
  if ((flags & FUSE) !== 0) return STATUS.INVALID_FIELD;
  const data = new Uint8Array(host.data.buffer);
  switch (opcode) {
    case ADMIN.CREATE_CQ:
      return createCompletionQueue(host, request);
    case ADMIN.CREATE_SQ:
      return createSubmissionQueue(host, request);
    case ADMIN.DELETE_CQ:
      return host.engine.deleteCompletionQueue(request.cdw(COMMAND.CDW10) & 0xffff);
    case ADMIN.DELETE_SQ:
      return host.engine.deleteSubmissionQueue(request, request.cdw(COMMAND.CDW10) & 0xffff);
    case ADMIN.IDENTIFY: {
      data.fill(0);
      const status = identify(host, request, host.data);
      return status === STATUS.SUCCESS ? host.send(request, 0, IDENTIFY_SIZE) : status;
    }
    case ADMIN.GET_LOG_PAGE:
      data.fill(0);
      return getLogPage(host, request);
    case ADMIN.GET_FEATURES:
      data.fill(0);
      return getFeatures(host, request);
    case ADMIN.SET_FEATURES:
      return setFeatures(host, request);
    case ADMIN.ABORT: {
      // Commands end as they would: the answer is always that none was aborted.
      request.result = 1;
      const queue = host.engine.submissionQueues[request.cdw(COMMAND.CDW10) & 0xffff];
      return queue === undefined ? STATUS.INVALID_FIELD | DNR : STATUS.SUCCESS;
    }
    case ADMIN.NAMESPACE_ATTACHMENT:
      return attachNamespace(host, request);
    default: {
      const status = host.events.request(request);
      host.events.report();
      return status;
    }
  }
}

const ADMIN_OPCODES: ReadonlySet<number> = new Set(Object.values(ADMIN));

const address = ({ command }: Request): number =>
  command.getUint32(COMMAND.PRP1 + 4, true) * 2 ** 32 + command.getUint32(COMMAND.PRP1, true);
const aligned = ({ command }: Request, pageSize: number): boolean =>
  (command.getUint32(COMMAND.PRP1, true) & (pageSize - 1)) === 0;

function createCompletionQueue(host: AdminHost, request: Request): number {
  const { engine } = host;
  const id = request.cdw(COMMAND.CDW10) & 0xffff;
  const last = request.cdw(COMMAND.CDW10) >>> 16;
  const flags = request.cdw(COMMAND.CDW11) & 0xffff;
  const vector = request.cdw(COMMAND.CDW11) >>> 16;
  if (id === 0 || id > host.maxQueues || engine.completionQueues[id] !== undefined) return STATUS.INVALID_QID | DNR;
  if (last === 0 || last > MQES) return STATUS.INVALID_QUEUE_SIZE | DNR;
  if (!aligned(request, host.pageSize)) return STATUS.INVALID_PRP_OFFSET | DNR;
  if ((!host.messages && vector !== 0) || vector >= host.vectors) return STATUS.INVALID_VECTOR | DNR;
  if ((flags & CONTIGUOUS) === 0) return STATUS.INVALID_FIELD | DNR;
  engine.createCompletionQueue(id, address(request), last + 1, vector, (flags & INTERRUPTS) !== 0);
  host.features.queuesCreated = true;
  return STATUS.SUCCESS;
}

function createSubmissionQueue(host: AdminHost, request: Request): number {
  const { engine } = host;
  const id = request.cdw(COMMAND.CDW10) & 0xffff;
  const last = request.cdw(COMMAND.CDW10) >>> 16;
  const flags = request.cdw(COMMAND.CDW11) & 0xffff;
  const completions = request.cdw(COMMAND.CDW11) >>> 16;
  const queue = engine.completionQueues[completions];
  if (completions === 0 || queue === undefined) return STATUS.INVALID_CQID | DNR;
  if (id === 0 || id > host.maxQueues || engine.submissionQueues[id] !== undefined) return STATUS.INVALID_QID | DNR;
  if (last === 0 || last > MQES) return STATUS.INVALID_QUEUE_SIZE | DNR;
  if (!aligned(request, host.pageSize)) return STATUS.INVALID_PRP_OFFSET | DNR;
  if ((flags & CONTIGUOUS) === 0) return STATUS.INVALID_FIELD | DNR;
  engine.createSubmissionQueue(id, address(request), last + 1, queue);
  return STATUS.SUCCESS;
}
