import type { Namespace } from './namespace.ts';
import type { Request } from './queues.ts';
import {
  COMMAND,
  CQES,
  CSI,
  DNR,
  KELVIN,
  MAX_NAMESPACES,
  NQN_PREFIX,
  NSID_BROADCAST,
  SQES,
  STATUS,
} from './registers.ts';
import type { NvmeSubsystem } from './subsystem.ts';

export const IDENTIFY_SIZE = 4096;

/** What is asked for (NVMe 1.4, figure 244). */
const CNS = {
  NAMESPACE: 0x00,
  CONTROLLER: 0x01,
  ACTIVE_NAMESPACES: 0x02,
  NAMESPACE_DESCRIPTORS: 0x03,
  NAMESPACE_OF_SET: 0x05,
  CONTROLLER_OF_SET: 0x06,
  ACTIVE_NAMESPACES_OF_SET: 0x07,
  ALLOCATED_NAMESPACES: 0x10,
  ALLOCATED_NAMESPACE: 0x11,
  CONTROLLERS_OF_NAMESPACE: 0x12,
  CONTROLLERS: 0x13,
  PRIMARY_CAPABILITIES: 0x14,
  SECONDARY_CONTROLLERS: 0x15,
  ALLOCATED_NAMESPACES_OF_SET: 0x1a,
  ALLOCATED_NAMESPACE_OF_SET: 0x1b,
  COMMAND_SETS: 0x1c,
} as const;

/** Offsets in the Identify Controller data (figure 247). */
const CTRL = {
  VID: 0,
  SSVID: 2,
  SN: 4,
  MN: 24,
  FR: 64,
  RAB: 72,
  IEEE: 73,
  CMIC: 76,
  MDTS: 77,
  CNTLID: 78,
  VER: 80,
  OAES: 92,
  CNTRLTYPE: 111,
  OACS: 256,
  ACL: 258,
  AERL: 259,
  FRMW: 260,
  LPA: 261,
  WCTEMP: 266,
  CCTEMP: 268,
  SQES: 512,
  CQES: 513,
  NN: 516,
  ONCS: 520,
  VWC: 525,
  SGLS: 536,
  SUBNQN: 768,
  PSD0: 2048,
} as const;
const SN_SIZE = 20;
const MN_SIZE = 40;
const FR_SIZE = 8;
const SUBNQN_SIZE = 256;
const OAES_NAMESPACE = 1 << 8;
/** The subsystem may have several controllers. */
const CMIC_CONTROLLERS = 1 << 1;
/** Namespace Attachment. */
const OACS_NAMESPACES = 1 << 3;
const FRMW_ONE_READ_ONLY_SLOT = 0b11;
/** SMART of a namespace, command effects, long log pages. */
const LPA = 0b111;
/** Compare, Dataset Management, Write Zeroes, Save and Select, Timestamp, Verify. */
const ONCS = 0x01 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80;
/** A volatile cache; a flush may be of all namespaces. */
const VWC = 0b111;
const SGLS_UNALIGNED = 1;
const MODEL = 'QEMU NVMe Ctrl';
const FIRMWARE = '7.2.0';
/** Power state 0 (figure 248): 25 W; latencies in microseconds. */
const POWER = { MP: 0x9c4, ENLAT: 0x10, EXLAT: 0x4 } as const;

/** Kinds of namespace identifiers (figure 246). */
const NIDT = { EUI64: 1, UUID: 3, CSI: 4 } as const;

/** Virtualization capabilities (figure 253): this controller has all the queues and vectors itself. */
const PRIMARY = { CNTLID: 0, CRT: 4, VQPRT: 42, VQGRAN: 46, VIPRT: 74, VIGRAN: 78 } as const;

export interface IdentifyHost {
  readonly vendor: number;
  readonly subsystemVendor: number;
  /** IEEE OUI. */
  readonly oui: number;
  readonly serial: string;
  readonly mdts: number;
  readonly vsl: number;
  readonly aerl: number;
  readonly maxQueues: number;
  readonly vectors: number;
  readonly controllerId: number;
  readonly subsystem: NvmeSubsystem | undefined;
  namespace(nsid: number): Namespace | undefined;
  namespaces(): Iterable<Namespace>;
}

/** An active namespace, or one that the subsystem has but is not attached to the controller. */
const allocated = (host: IdentifyHost, nsid: number): Namespace | undefined =>
  host.namespace(nsid) ?? host.subsystem?.namespace(nsid);

const concrete = (nsid: number): boolean => nsid !== 0 && nsid <= MAX_NAMESPACES;

/**
 * The Identify command (section 5.15). The data goes into `data`, 4 KiB of zeroes; returns a status.
 */
export function identify(host: IdentifyHost, request: Request, data: DataView): number {
  const { command, nsid } = request;
  const set = command.getUint8(COMMAND.CDW11 + 3);
  const cns = command.getUint8(COMMAND.CDW10);
  switch (cns) {
    case CNS.NAMESPACE:
      if (!concrete(nsid)) return STATUS.INVALID_NSID | DNR;
      host.namespace(nsid)?.identify(data);
      return STATUS.SUCCESS;
    case CNS.ALLOCATED_NAMESPACE:
      if (!concrete(nsid)) return STATUS.INVALID_NSID | DNR;
      allocated(host, nsid)?.identify(data);
      return STATUS.SUCCESS;
    case CNS.CONTROLLER:
      identifyController(host, data);
      return STATUS.SUCCESS;
    case CNS.ACTIVE_NAMESPACES:
      return listNamespaces(host, nsid, data, false);
    case CNS.ALLOCATED_NAMESPACES:
      return listNamespaces(host, nsid, data, true);
    case CNS.CONTROLLERS:
    case CNS.CONTROLLERS_OF_NAMESPACE:
      return listControllers(host, request, data);
    case CNS.NAMESPACE_DESCRIPTORS:
      return describeNamespace(host, nsid, data);
    case CNS.NAMESPACE_OF_SET:
    case CNS.ALLOCATED_NAMESPACE_OF_SET: {
      if (!concrete(nsid)) return STATUS.INVALID_NSID | DNR;
      const namespace = cns === CNS.NAMESPACE_OF_SET ? host.namespace(nsid) : allocated(host, nsid);
      // What the NVM command set adds is about protection information: there is none.
      return namespace === undefined || set === CSI.NVM ? STATUS.SUCCESS : STATUS.INVALID_FIELD | DNR;
    }
    case CNS.CONTROLLER_OF_SET:
      if (set === CSI.ZONED) return STATUS.SUCCESS;
      if (set !== CSI.NVM) return STATUS.INVALID_FIELD | DNR;
      data.setUint8(0, host.vsl);
      return STATUS.SUCCESS;
    case CNS.ACTIVE_NAMESPACES_OF_SET:
    case CNS.ALLOCATED_NAMESPACES_OF_SET:
      if (nsid >= NSID_BROADCAST - 1) return STATUS.INVALID_NSID | DNR;
      if (set !== CSI.NVM && set !== CSI.ZONED) return STATUS.INVALID_FIELD | DNR;
      return set === CSI.NVM
        ? listNamespaces(host, nsid, data, cns === CNS.ALLOCATED_NAMESPACES_OF_SET)
        : STATUS.SUCCESS;
    case CNS.PRIMARY_CAPABILITIES:
      data.setUint16(PRIMARY.CNTLID, host.controllerId, true);
      data.setUint8(PRIMARY.CRT, 0b11);
      data.setUint16(PRIMARY.VQPRT, host.maxQueues + 1, true);
      data.setUint16(PRIMARY.VQGRAN, 1, true);
      data.setUint16(PRIMARY.VIPRT, host.vectors, true);
      data.setUint16(PRIMARY.VIGRAN, 1, true);
      return STATUS.SUCCESS;
    case CNS.SECONDARY_CONTROLLERS:
      return STATUS.SUCCESS;
    case CNS.COMMAND_SETS:
      data.setUint8(0, 1 << CSI.NVM);
      return STATUS.SUCCESS;
    default:
      return STATUS.INVALID_FIELD | DNR;
  }
}

function putText(data: DataView, at: number, text: string, size: number, fill: number): void {
  const bytes = new Uint8Array(data.buffer, data.byteOffset + at, size).fill(fill);
  bytes.set(Buffer.from(text).subarray(0, size));
}

function identifyController(host: IdentifyHost, data: DataView): void {
  data.setUint16(CTRL.VID, host.vendor, true);
  data.setUint16(CTRL.SSVID, host.subsystemVendor, true);
  putText(data, CTRL.SN, host.serial, SN_SIZE, 0x20);
  putText(data, CTRL.MN, MODEL, MN_SIZE, 0x20);
  putText(data, CTRL.FR, FIRMWARE, FR_SIZE, 0x20);
  data.setUint8(CTRL.RAB, 6);
  data.setUint16(CTRL.IEEE, host.oui & 0xffff, true);
  data.setUint8(CTRL.IEEE + 2, host.oui >>> 16);
  if (host.subsystem !== undefined) data.setUint8(CTRL.CMIC, CMIC_CONTROLLERS);
  data.setUint8(CTRL.MDTS, host.mdts);
  data.setUint16(CTRL.CNTLID, host.controllerId, true);
  data.setUint32(CTRL.VER, 0x0001_0400, true);
  data.setUint32(CTRL.OAES, OAES_NAMESPACE, true);
  data.setUint8(CTRL.CNTRLTYPE, 1);
  data.setUint16(CTRL.OACS, OACS_NAMESPACES, true);
  data.setUint8(CTRL.ACL, 3);
  data.setUint8(CTRL.AERL, host.aerl);
  data.setUint8(CTRL.FRMW, FRMW_ONE_READ_ONLY_SLOT);
  data.setUint8(CTRL.LPA, LPA);
  data.setUint16(CTRL.WCTEMP, KELVIN.WARNING, true);
  data.setUint16(CTRL.CCTEMP, KELVIN.CRITICAL, true);
  data.setUint8(CTRL.SQES, (SQES << 4) | SQES);
  data.setUint8(CTRL.CQES, (CQES << 4) | CQES);
  data.setUint32(CTRL.NN, MAX_NAMESPACES, true);
  data.setUint16(CTRL.ONCS, ONCS, true);
  data.setUint8(CTRL.VWC, VWC);
  data.setUint32(CTRL.SGLS, SGLS_UNALIGNED, true);
  const name = host.subsystem?.qualifiedName ?? `${NQN_PREFIX}${host.serial}`;
  putText(data, CTRL.SUBNQN, name, SUBNQN_SIZE - 1, 0);
  data.setUint16(CTRL.PSD0, POWER.MP, true);
  data.setUint32(CTRL.PSD0 + 4, POWER.ENLAT, true);
  data.setUint32(CTRL.PSD0 + 8, POWER.EXLAT, true);
}

/** Those after `nsid`, in order: the active ones, or all that are allocated. */
function listNamespaces(host: IdentifyHost, nsid: number, data: DataView, all: boolean): number {
  if (nsid >= NSID_BROADCAST - 1) return STATUS.INVALID_NSID | DNR;
  let at = 0;
  for (let id = nsid + 1; id <= MAX_NAMESPACES; id++) {
    if ((all ? allocated(host, id) : host.namespace(id)) === undefined) continue;
    data.setUint32(at, id, true);
    at += 4;
  }
  return STATUS.SUCCESS;
}

/** Controllers of the subsystem from an id on, or those that a namespace is attached to (figure 251). */
function listControllers({ subsystem }: IdentifyHost, request: Request, data: DataView): number {
  const first = request.command.getUint16(COMMAND.CDW10 + 2, true);
  const { nsid } = request;
  const ofNamespace = request.command.getUint8(COMMAND.CDW10) === CNS.CONTROLLERS_OF_NAMESPACE;
  if (subsystem === undefined) return STATUS.INVALID_FIELD | DNR;
  if (ofNamespace && subsystem.namespace(nsid) === undefined) return STATUS.INVALID_FIELD | DNR;
  let count = 0;
  for (const id of subsystem.controllerIds(first, ofNamespace ? nsid : undefined)) {
    count++;
    data.setUint16(2 * count, id, true);
  }
  data.setUint16(0, count, true);
  return STATUS.SUCCESS;
}

function describeNamespace(host: IdentifyHost, nsid: number, data: DataView): number {
  if (!concrete(nsid)) return STATUS.INVALID_NSID | DNR;
  const namespace = host.namespace(nsid);
  if (namespace === undefined) return STATUS.INVALID_FIELD | DNR;
  let at = 0;
  const begin = (type: number, length: number): number => {
    data.setUint8(at, type);
    data.setUint8(at + 1, length);
    const value = at + 4;
    at = value + length;
    return value;
  };
  const { uuid, eui64 } = namespace;
  if (uuid !== undefined) new Uint8Array(data.buffer, data.byteOffset).set(uuid, begin(NIDT.UUID, 16));
  if (eui64 !== 0n) data.setBigUint64(begin(NIDT.EUI64, 8), eui64);
  data.setUint8(begin(NIDT.CSI, 1), CSI.NVM);
  return STATUS.SUCCESS;
}
