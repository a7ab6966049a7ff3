import { field, type StateValues } from '../../core/state/fields.ts';
import { type FeatureHost, tooHotOrCold } from './features.ts';
import type { Namespace } from './namespace.ts';
import type { Request } from './queues.ts';
import { ADMIN, COMMAND, CSI, CSS, DNR, EVENT, IO, KELVIN, LOG, NSID_BROADCAST, STATUS, WARNING } from './registers.ts';

const SECTOR = 512;
const NS_PER_HOUR = 3600e9;
/** Of each log page (NVMe 1.4, section 5.14.1). */
const SIZE = { ERROR: 64, SMART: 512, FIRMWARE: 512, CHANGED: 4096, EFFECTS: 4096 } as const;
const SMART = {
  WARNING: 0,
  TEMPERATURE: 1,
  DATA_UNITS_READ: 32,
  DATA_UNITS_WRITTEN: 48,
  READ_COMMANDS: 64,
  WRITE_COMMANDS: 80,
  POWER_ON_HOURS: 128,
} as const;
/** Sectors of a data unit. */
const UNIT = 1000;
const FIRMWARE_REVISION = '1.0     ';

/** Command effects (figure 199): supported, changes the content of blocks, changes which namespaces there are. */
const CSUPP = 1;
const LBCC = 2;
const NIC = 8;
const CHANGES: ReadonlySet<number> = new Set([IO.FLUSH, IO.WRITE, IO.WRITE_ZEROES, IO.DATASET_MANAGEMENT]);
const EFFECTS_IO = 1024;

/** Bits of namespaces 0 to 256. */
const CHANGED_WORDS = 9;
export const logFields = {
  changed: field.words(CHANGED_WORDS),
  /** When the controller was made, in nanoseconds of its clock. */
  poweredOnNs: field.number(),
} as const;

export interface LogHost extends FeatureHost {
  readonly logs: StateValues<typeof logFields>;
  /** CC.CSS. */
  readonly commandSet: number;
}

/** Get Log Page (section 5.14). */
export function getLogPage(host: LogHost, request: Request): number {
  const dword10 = request.cdw(COMMAND.CDW10);
  const dwords = (request.cdw(COMMAND.CDW11) & 0xffff) * 0x1_0000 + (dword10 >>> 16) + 1;
  const length = dwords * 4;
  const offset = request.cdw(COMMAND.CDW13) * 2 ** 32 + request.cdw(COMMAND.CDW12);
  const keepEvents = (dword10 & 0x8000) !== 0;
  if (offset % 4 !== 0) return STATUS.INVALID_FIELD | DNR;
  if (host.mdts !== 0 && length > host.pageSize * 2 ** host.mdts) return STATUS.INVALID_FIELD | DNR;
  const reply = (size: number, event: number | undefined, fill: () => number): number => {
    if (offset >= size) return STATUS.INVALID_FIELD | DNR;
    const status = fill();
    if (status !== STATUS.SUCCESS) return status;
    if (!keepEvents && event !== undefined) host.events.clear(event);
    return host.send(request, offset, Math.min(size - offset, length));
  };
  switch (dword10 & 0xff) {
    case LOG.ERROR:
      return reply(SIZE.ERROR, EVENT.ERROR, () => STATUS.SUCCESS);
    case LOG.SMART:
      return reply(SIZE.SMART, EVENT.SMART, () => smart(host, request.nsid));
    case LOG.FIRMWARE:
      return reply(SIZE.FIRMWARE, undefined, () => {
        host.data.setUint8(0, 1);
        for (let at = 0; at < FIRMWARE_REVISION.length; at++)
          host.data.setUint8(8 + at, FIRMWARE_REVISION.charCodeAt(at));
        return STATUS.SUCCESS;
      });
    case LOG.CHANGED_NAMESPACES:
      return reply(SIZE.CHANGED, EVENT.NOTICE, () => changedNamespaces(host));
    case LOG.EFFECTS:
      return reply(SIZE.EFFECTS, undefined, () => effects(host, request.cdw(COMMAND.CDW14) >>> 24));
    default:
      return STATUS.INVALID_FIELD | DNR;
  }
}

function smart(host: LogHost, nsid: number): number {
  const { data, features } = host;
  const one = host.namespace(nsid);
  if (nsid !== NSID_BROADCAST && one === undefined) return STATUS.INVALID_NSID | DNR;
  const namespaces: Iterable<Namespace> = one === undefined ? host.namespaces() : [one];
  let [read, written, reads, writes] = [0, 0, 0, 0];
  for (const { backend } of namespaces) {
    const { bytes, operations } = backend.stats;
    read += Math.floor((bytes[0] ?? 0) / SECTOR);
    written += Math.floor((bytes[1] ?? 0) / SECTOR);
    reads += operations[0] ?? 0;
    writes += operations[1] ?? 0;
  }
  data.setUint8(SMART.WARNING, features.smartWarning | (tooHotOrCold(features) ? WARNING.TEMPERATURE : 0));
  data.setUint16(SMART.TEMPERATURE, KELVIN.CURRENT, true);
  data.setBigUint64(SMART.DATA_UNITS_READ, BigInt(Math.ceil(read / UNIT)), true);
  data.setBigUint64(SMART.DATA_UNITS_WRITTEN, BigInt(Math.ceil(written / UNIT)), true);
  data.setBigUint64(SMART.READ_COMMANDS, BigInt(reads), true);
  data.setBigUint64(SMART.WRITE_COMMANDS, BigInt(writes), true);
  data.setUint32(SMART.POWER_ON_HOURS, Math.floor((host.now() - host.logs.poweredOnNs) / NS_PER_HOUR), true);
  return STATUS.SUCCESS;
}

/** Reading it forgets them. */
function changedNamespaces({ data, logs }: LogHost): number {
  let at = 0;
  for (let nsid = 1; nsid < CHANGED_WORDS * 32; nsid++) {
    if ((((logs.changed[nsid >>> 5] ?? 0) >>> (nsid & 31)) & 1) === 0) continue;
    data.setUint32(at, nsid, true);
    at += 4;
  }
  logs.changed.fill(0);
  return STATUS.SUCCESS;
}

/** Whether the log did not have it yet. */
export function logNamespaceChange({ logs }: LogHost, nsid: number): boolean {
  const word = nsid >>> 5;
  const before = logs.changed[word] ?? 0;
  logs.changed[word] = before | (1 << (nsid & 31));
  return logs.changed[word] !== before >>> 0;
}

function effects({ data, commandSet }: LogHost, set: number): number {
  for (const opcode of Object.values(ADMIN)) data.setUint32(4 * opcode, CSUPP, true);
  data.setUint32(4 * ADMIN.NAMESPACE_ATTACHMENT, CSUPP | NIC, true);
  if (commandSet === CSS.ADMIN_ONLY || (commandSet === CSS.ALL && set !== CSI.NVM)) return STATUS.SUCCESS;
  for (const opcode of Object.values(IO)) {
    data.setUint32(EFFECTS_IO + 4 * opcode, CHANGES.has(opcode) ? CSUPP | LBCC : CSUPP, true);
  }
  return STATUS.SUCCESS;
}
