import { field, type StateValues } from '../../core/state/fields.ts';
import type { AsyncEvents } from './events.ts';
import { type IoHost, validNsid } from './io-commands.ts';
import type { Request } from './queues.ts';
import { COMMAND, DNR, EVENT, KELVIN, LOG, NSID_BROADCAST, STATUS, WARNING } from './registers.ts';

/** Features (NVMe 1.4, section 5.21.1). */
const FEATURE = {
  ARBITRATION: 0x01,
  POWER_MANAGEMENT: 0x02,
  TEMPERATURE_THRESHOLD: 0x04,
  ERROR_RECOVERY: 0x05,
  VOLATILE_WRITE_CACHE: 0x06,
  NUMBER_OF_QUEUES: 0x07,
  INTERRUPT_COALESCING: 0x08,
  INTERRUPT_VECTOR: 0x09,
  WRITE_ATOMICITY: 0x0a,
  ASYNC_EVENTS: 0x0b,
  TIMESTAMP: 0x0e,
  HOST_BEHAVIOR: 0x16,
  COMMAND_SET_PROFILE: 0x19,
} as const;
const FEATURES: ReadonlySet<number> = new Set(Object.values(FEATURE));

/** What may be done with a feature, as Get Features tells. */
const CAPABILITY = { SAVEABLE: 1, NAMESPACE: 2, CHANGEABLE: 4 } as const;
const CAPABILITIES: ReadonlyMap<number, number> = new Map<number, number>([
  [FEATURE.TEMPERATURE_THRESHOLD, CAPABILITY.CHANGEABLE],
  [FEATURE.ERROR_RECOVERY, CAPABILITY.CHANGEABLE | CAPABILITY.NAMESPACE],
  [FEATURE.VOLATILE_WRITE_CACHE, CAPABILITY.CHANGEABLE],
  [FEATURE.NUMBER_OF_QUEUES, CAPABILITY.CHANGEABLE],
  [FEATURE.ASYNC_EVENTS, CAPABILITY.CHANGEABLE],
  [FEATURE.TIMESTAMP, CAPABILITY.CHANGEABLE],
  [FEATURE.HOST_BEHAVIOR, CAPABILITY.CHANGEABLE],
  [FEATURE.COMMAND_SET_PROFILE, CAPABILITY.CHANGEABLE],
]);
const SELECT = { DEFAULT: 1, SAVED: 2, CAPABILITIES: 3 } as const;
const SAVE = 0x8000_0000;

const NO_BURST_LIMIT = 7;
/** In the configuration of a vector: it signals at once. */
const COALESCING_DISABLE = 1 << 16;
/** In dword 11 of the temperature threshold: sensor, and which threshold. */
const SENSOR = 0xf_0000;
const UNDER = 1;
const HOST_BEHAVIOR_SIZE = 512;
const TIMESTAMP_SIZE = 8;
const TIMESTAMP_ORIGIN_SET = 2;
const MS = 1_000_000;

export const featureFields = {
  temperatureOver: field.u16(KELVIN.WARNING),
  temperatureUnder: field.u16(),
  asyncEvents: field.u32(),
  /** What the host has set, in milliseconds, and when in nanoseconds of our clock. */
  timestamp: field.number(),
  timestampSetNs: field.number(),
  hostBehavior: field.bytes(HOST_BEHAVIOR_SIZE),
  smartWarning: field.u8(),
  /** Since the last reset. */
  queuesCreated: field.bool(),
} as const;

export interface FeatureHost extends IoHost {
  readonly maxQueues: number;
  readonly events: AsyncEvents;
  readonly features: StateValues<typeof featureFields>;
  /** Nanoseconds. */
  now(): number;
  /** Moves the data of an admin command: `data` is 4 KiB that all of them share. Returns a status. */
  send(request: Request, offset: number, length: number): number;
  receive(request: Request, length: number): number;
  readonly data: DataView;
}

/** Reports a critical warning that the host wants to know of. */
export function smartEvent(host: FeatureHost, warning: number): void {
  if ((host.features.asyncEvents & 0xff & warning) === 0) return;
  const information =
    warning === WARNING.SPARE ? EVENT.SPARE : warning === WARNING.TEMPERATURE ? EVENT.TEMPERATURE : EVENT.RELIABILITY;
  host.events.post(EVENT.SMART, information, LOG.SMART);
}

export const tooHotOrCold = ({ temperatureOver, temperatureUnder }: StateValues<typeof featureFields>): boolean =>
  KELVIN.CURRENT >= temperatureOver || KELVIN.CURRENT <= temperatureUnder;

/** Get Features (section 5.14). */
export function getFeatures(host: FeatureHost, request: Request): number {
  const { features, data } = host;
  const id = request.cdw(COMMAND.CDW10) & 0xff;
  const select = (request.cdw(COMMAND.CDW10) >>> 8) & 7;
  const argument = request.cdw(COMMAND.CDW11);
  if (!FEATURES.has(id)) return STATUS.INVALID_FIELD | DNR;
  const capabilities = CAPABILITIES.get(id) ?? 0;
  if ((capabilities & CAPABILITY.NAMESPACE) !== 0) {
    if (!validNsid(request.nsid) || request.nsid === NSID_BROADCAST) return STATUS.INVALID_NSID | DNR;
    if (host.namespace(request.nsid) === undefined) return STATUS.INVALID_FIELD | DNR;
  }
  if (select === SELECT.CAPABILITIES) {
    request.result = capabilities;
    return STATUS.SUCCESS;
  }
  const initial = select === SELECT.DEFAULT || select === SELECT.SAVED;
  switch (id) {
    case FEATURE.ARBITRATION:
      request.result = NO_BURST_LIMIT;
      return STATUS.SUCCESS;
    case FEATURE.TEMPERATURE_THRESHOLD: {
      if ((argument & SENSOR) !== 0) return STATUS.SUCCESS;
      const which = (argument >>> 20) & 3;
      if (which > UNDER) return initial ? STATUS.SUCCESS : STATUS.INVALID_FIELD | DNR;
      if (which === UNDER) request.result = initial ? 0 : features.temperatureUnder;
      else request.result = initial ? KELVIN.WARNING : features.temperatureOver;
      return STATUS.SUCCESS;
    }
    case FEATURE.VOLATILE_WRITE_CACHE:
      if (!initial) for (const { backend } of host.namespaces()) if (backend.writeCache) request.result = 1;
      return STATUS.SUCCESS;
    case FEATURE.NUMBER_OF_QUEUES:
      request.result = queueCounts(host);
      return STATUS.SUCCESS;
    case FEATURE.INTERRUPT_VECTOR: {
      const vector = argument & 0xffff;
      if (vector > host.maxQueues) return STATUS.INVALID_FIELD | DNR;
      request.result = vector === 0 ? COALESCING_DISABLE : vector;
      return STATUS.SUCCESS;
    }
    case FEATURE.ASYNC_EVENTS:
      if (!initial) request.result = features.asyncEvents;
      return STATUS.SUCCESS;
    case FEATURE.TIMESTAMP: {
      if (initial) return STATUS.SUCCESS;
      const elapsed = Math.floor((host.now() - features.timestampSetNs) / MS);
      const now = features.timestamp + elapsed;
      data.setUint32(0, now % 2 ** 32, true);
      data.setUint16(4, Math.floor(now / 2 ** 32) % 2 ** 16, true);
      data.setUint16(6, features.timestamp === 0 ? 0 : TIMESTAMP_ORIGIN_SET, true);
      return host.send(request, 0, TIMESTAMP_SIZE);
    }
    case FEATURE.HOST_BEHAVIOR:
      if (initial) return STATUS.SUCCESS;
      new Uint8Array(data.buffer).set(features.hostBehavior);
      return host.send(request, 0, HOST_BEHAVIOR_SIZE);
    default:
      return STATUS.SUCCESS;
  }
}

const queueCounts = ({ maxQueues }: FeatureHost): number => ((maxQueues - 1) | ((maxQueues - 1) << 16)) >>> 0;

/** Set Features (section 5.21). */
export function setFeatures(host: FeatureHost, request: Request): number {
  const { features, data } = host;
  const id = request.cdw(COMMAND.CDW10) & 0xff;
  const argument = request.cdw(COMMAND.CDW11);
  const { nsid } = request;
  const capabilities = CAPABILITIES.get(id) ?? 0;
  if ((request.cdw(COMMAND.CDW10) & SAVE) !== 0) return STATUS.FEATURE_NOT_SAVEABLE | DNR;
  if (!FEATURES.has(id)) return STATUS.INVALID_FIELD | DNR;
  if ((capabilities & CAPABILITY.NAMESPACE) !== 0) {
    if (!validNsid(nsid)) return STATUS.INVALID_NSID | DNR;
    if (nsid !== NSID_BROADCAST && host.namespace(nsid) === undefined) return STATUS.INVALID_FIELD | DNR;
  } else if (nsid !== 0 && nsid !== NSID_BROADCAST) {
    return (validNsid(nsid) ? STATUS.FEATURE_NOT_PER_NAMESPACE : STATUS.INVALID_NSID) | DNR;
  }
  if ((capabilities & CAPABILITY.CHANGEABLE) === 0) return STATUS.FEATURE_NOT_CHANGEABLE | DNR;
  switch (id) {
    case FEATURE.TEMPERATURE_THRESHOLD: {
      if ((argument & SENSOR) !== 0) return STATUS.SUCCESS;
      const which = (argument >>> 20) & 3;
      if (which > UNDER) return STATUS.INVALID_FIELD | DNR;
      if (which === UNDER) features.temperatureUnder = argument & 0xffff;
      else features.temperatureOver = argument & 0xffff;
      if (tooHotOrCold(features)) smartEvent(host, WARNING.TEMPERATURE);
      return STATUS.SUCCESS;
    }
    case FEATURE.VOLATILE_WRITE_CACHE:
      return setWriteCache(host, request, (argument & 1) !== 0);
    case FEATURE.NUMBER_OF_QUEUES:
      if (features.queuesCreated) return STATUS.SEQUENCE_ERROR | DNR;
      if ((argument & 0xffff) === 0xffff || argument >>> 16 === 0xffff) return STATUS.INVALID_FIELD | DNR;
      request.result = queueCounts(host);
      return STATUS.SUCCESS;
    case FEATURE.ASYNC_EVENTS:
      features.asyncEvents = argument;
      return STATUS.SUCCESS;
    case FEATURE.TIMESTAMP: {
      const status = host.receive(request, TIMESTAMP_SIZE);
      if (status !== STATUS.SUCCESS) return status;
      features.timestamp = data.getUint16(4, true) * 2 ** 32 + data.getUint32(0, true);
      features.timestampSetNs = host.now();
      return STATUS.SUCCESS;
    }
    case FEATURE.HOST_BEHAVIOR: {
      const status = host.receive(request, HOST_BEHAVIOR_SIZE);
      if (status === STATUS.SUCCESS) features.hostBehavior.set(new Uint8Array(data.buffer, 0, HOST_BEHAVIOR_SIZE));
      return status;
    }
    case FEATURE.COMMAND_SET_PROFILE:
      return (argument & 0x1ff) === 0 ? STATUS.SUCCESS : STATUS.COMMAND_SET_REJECTED | DNR;
    default:
      // Error recovery: there is neither a time limit nor an error for blocks that were given back.
      return STATUS.SUCCESS;
  }
}

/** What is in a cache that goes away must be on the disk first. */
function setWriteCache(host: FeatureHost, request: Request, on: boolean): number {
  const flushes: Promise<number>[] = [];
  for (const { backend } of host.namespaces()) {
    if (!on && backend.writeCache) {
      const flush = backend.flush();
      if (typeof flush !== 'number') flushes.push(flush);
    }
    backend.writeCache = on;
  }
  if (flushes.length === 0) return STATUS.SUCCESS;
  return host.await(
    request,
    Promise.all(flushes).then(() => 0),
    () => STATUS.SUCCESS,
  );
}
