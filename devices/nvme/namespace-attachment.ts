import type { NamespaceHost } from './nvme-bus.ts';
import type { Request } from './queues.ts';
import { COMMAND, DNR, MAX_NAMESPACES, NSID_BROADCAST, STATUS } from './registers.ts';
import type { NvmeSubsystem } from './subsystem.ts';

/** What is done (NVMe 1.4, figure 250). */
const SELECT = { ATTACH: 0, DETACH: 1 } as const;
const LIST_SIZE = 4096;
const MAX_IDS = LIST_SIZE / 2 - 1;

export interface AttachmentHost {
  readonly subsystem: NvmeSubsystem | undefined;
  readonly data: DataView;
  receive(request: Request, length: number): number;
}

/**
 * Namespace Attachment (section 5.12): attaches a namespace to controllers of the subsystem, or detaches it from them. The first
 * that cannot be ends it, and what was done before stays. Returns a status.
 */
export function attachNamespace(host: AttachmentHost, request: Request): number {
  const { nsid } = request;
  const { subsystem, data } = host;
  if (nsid === 0 || (nsid > MAX_NAMESPACES && nsid !== NSID_BROADCAST)) return STATUS.INVALID_NSID | DNR;
  if (subsystem?.namespace(nsid) === undefined) return STATUS.INVALID_FIELD | DNR;
  const received = host.receive(request, LIST_SIZE);
  if (received !== STATUS.SUCCESS) return received;
  const count = Math.min(data.getUint16(0, true), MAX_IDS);
  if (count === 0) return STATUS.CONTROLLER_LIST_INVALID | DNR;
  const select = request.cdw(COMMAND.CDW10) & 0xf;
  for (let index = 1; index <= count; index++) {
    const controller = subsystem.controller(data.getUint16(2 * index, true));
    if (controller === undefined) return STATUS.CONTROLLER_LIST_INVALID | DNR;
    const status =
      select === SELECT.ATTACH
        ? attach(subsystem, controller, nsid)
        : select === SELECT.DETACH
          ? detach(controller, nsid)
          : STATUS.INVALID_FIELD;
    if (status !== STATUS.SUCCESS) return status | DNR;
    controller.namespaceChanged(nsid);
  }
  return STATUS.SUCCESS;
}

function attach(subsystem: NvmeSubsystem, controller: NamespaceHost, nsid: number): number {
  if (controller.namespace(nsid) !== undefined) return STATUS.ALREADY_ATTACHED;
  const namespace = subsystem.namespace(nsid);
  if (namespace === undefined) return STATUS.INVALID_FIELD;
  if (!namespace.shared && subsystem.isAttached(nsid)) return STATUS.NAMESPACE_PRIVATE;
  controller.attachNamespace(namespace);
  return STATUS.SUCCESS;
}

function detach(controller: NamespaceHost, nsid: number): number {
  if (controller.namespace(nsid) === undefined) return STATUS.NOT_ATTACHED;
  controller.detachNamespace(nsid);
  return STATUS.SUCCESS;
}
