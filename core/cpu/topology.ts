import { SouthbridgeError } from '../errors.ts';

/** How the CPUs of a machine are arranged: dies in a socket, cores in a die, threads in a core, and how many CPUs there may be. */
export interface TopologyShape {
  readonly dies: number;
  readonly cores: number;
  readonly threads: number;
  readonly maxCpus: number;
}

/** Where one CPU sits. */
export interface CpuPlace {
  readonly socket: number;
  readonly die: number;
  readonly core: number;
  readonly thread: number;
}

const widthOf = (count: number): number => Math.ceil(Math.log2(count));

/** The place of CPU number `index`: threads vary first, then cores, dies and sockets. */
export function placeOf(index: number, shape: TopologyShape): CpuPlace {
  const { dies, cores, threads } = shape;
  return {
    socket: Math.floor(index / (threads * cores * dies)),
    die: Math.floor(index / (threads * cores)) % dies,
    core: Math.floor(index / threads) % cores,
    thread: index % threads,
  };
}

/** How many bits of an APIC ID each level has: as many as it needs (Intel SDM volume 3, section 9.9.1). */
export function apicIdWidths({ dies, cores, threads }: Omit<TopologyShape, 'maxCpus'>): {
  readonly thread: number;
  readonly core: number;
  readonly die: number;
} {
  return { thread: widthOf(threads), core: widthOf(cores), die: widthOf(dies) };
}

/** The APIC ID of the CPU in that place. */
export function apicIdOf(place: CpuPlace, shape: TopologyShape): number {
  const widths = apicIdWidths(shape);
  const ofDie = (place.socket << widths.die) | place.die;
  const ofCore = (ofDie << widths.core) | place.core;
  return (ofCore << widths.thread) | place.thread;
}

/** The place that an APIC ID means. */
export function placeOfApicId(apicId: number, shape: TopologyShape): CpuPlace {
  const widths = apicIdWidths(shape);
  const low = (bits: number, width: number): number => bits & ((1 << width) - 1);
  const ofCore = apicId >> widths.thread;
  const ofDie = ofCore >> widths.core;
  return {
    socket: ofDie >> widths.die,
    die: low(ofDie, widths.die),
    core: low(ofCore, widths.core),
    thread: low(apicId, widths.thread),
  };
}

/** The four ids as the user gave them; -1 where not. */
export interface GivenPlace {
  readonly socket: number;
  readonly die: number;
  readonly core: number;
  readonly thread: number;
}

/**
 * The place that the user means by the ids of a CPU to plug in.
 * @throws SouthbridgeError ERR_CPU_PLACE, with QEMU's text, where an id is missing or out of range
 */
export function checkedPlace(given: GivenPlace, shape: TopologyShape): CpuPlace {
  const sockets = Math.ceil(shape.maxCpus / (shape.threads * shape.cores * shape.dies));
  const die = given.die < 0 && shape.dies === 1 ? 0 : given.die;
  return {
    socket: inRange('socket-id', given.socket, sockets),
    die: inRange('die-id', die, shape.dies),
    core: inRange('core-id', given.core, shape.cores),
    thread: inRange('thread-id', given.thread, shape.threads),
  };
}

function inRange(name: string, value: number, count: number): number {
  if (value < 0) throw new SouthbridgeError('ERR_CPU_PLACE', `CPU ${name} is not set`);
  if (value < count) return value;
  throw new SouthbridgeError('ERR_CPU_PLACE', `Invalid CPU ${name}: ${value} must be in range 0:${count - 1}`);
}
