/** Compute Express Link of a PC: where host bridges show their registers, and fixed windows onto the memory behind them. */
import type { PropertyValue } from '../core/device/object.ts';
import { type ParseContext, type Prop, type PropValues, prop } from '../core/device/property.ts';
import { SouthbridgeError } from '../core/errors.ts';
import { encodedGranularity, encodedWays } from '../core/firmware/cedt.ts';
import type { Machine } from '../core/machine/machine.ts';
import { MemoryRegion } from '../core/memory/memory-region.ts';
import { ExpanderBus } from '../core/pci/expander-bus.ts';
import type { PciBus } from '../core/pci/pci-bus.ts';
import { FixedWindow } from '../devices/cxl/fixed-window.ts';
import type { PcFirmwareFacts } from './firmware/pc-firmware.ts';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
/** Room for the registers of host bridges. */
const REGISTERS_SIZE = MIB;
const WINDOW_UNIT = 256 * MIB;
const DEFAULT_GRANULARITY = 256;

/** One window as the user wants it. Bytes. */
export interface WindowOptions {
  readonly size: number;
  readonly granularity: number;
  /** Ids of host bridges. */
  readonly targets: readonly string[];
}

/** `cxl-fmw`: QEMU's list of CXLFixedMemoryWindowOptions. */
const windowList: Prop<readonly WindowOptions[]> = {
  type: 'CXLFixedMemoryWindow',
  help: 'windows onto memory, each with size, targets and interleave-granularity',
  description: 'CXL Fixed Memory Windows (array)',
  listed: 'value',
  default: [],
  required: false,
  mutable: false,
  parse(value, context) {
    if (!Array.isArray(value)) throw wrong(`Invalid parameter type for '${context.name}', expected: array`);
    return value.map((window, index) => windowOptions(window, { ...context, name: `${context.name}.${index}` }));
  },
  format: windows =>
    windows.map(
      ({ size, granularity, targets }): PropertyValue => ({ size, 'interleave-granularity': granularity, targets }),
    ),
};

export const cxlOptions = {
  cxl: prop.bool({
    default: false,
    listed: 'value',
    help: 'whether there may be CXL host bridges',
    description: 'Set on/off to enable/disable CXL instantiation',
  }),
  'cxl-fmw': windowList,
} as const;

function windowOptions(value: unknown, context: ParseContext): WindowOptions {
  if (typeof value !== 'object' || value === null)
    throw wrong(`Invalid parameter type for '${context.name}', expected: object`);
  const given = new Map<string, unknown>(Object.entries(value));
  const known = ['size', 'interleave-granularity', 'targets'];
  const required = (name: string): unknown => {
    const member = given.get(name);
    if (member === undefined) throw wrong(`Parameter '${context.name}.${name}' is missing`);
    return member;
  };
  const bytes = (name: string, member: unknown): number =>
    prop.size({ default: 0 }).parse(member, { ...context, name: `${context.name}.${name}` });
  const unexpected = [...given.keys()].find(name => !known.includes(name));
  if (unexpected !== undefined) throw wrong(`Parameter '${context.name}.${unexpected}' is unexpected`);
  const size = bytes('size', required('size'));
  const granularity = bytes('interleave-granularity', given.get('interleave-granularity') ?? DEFAULT_GRANULARITY);
  const list = required('targets');
  if (!Array.isArray(list)) throw wrong(`Invalid parameter type for '${context.name}.targets', expected: array`);
  const targets = list.map(String);
  if (encodedWays(targets.length) === undefined)
    throw wrong(`Interleave ways: ${targets.length} not supported`, 'give 1, 2, 3, 4, 6, 8, 12 or 16 targets');
  if (size % WINDOW_UNIT !== 0)
    throw wrong('Size of a CXL fixed memory window must my a multiple of 256MiB', `${context.name}.size is ${size}`);
  if (encodedGranularity(granularity) === undefined)
    throw wrong(`Interleave granularity: ${granularity} invalid`, 'give a power of two from 256 to 16k');
  return { size, granularity, targets };
}

function wrong(message: string, hint?: string): SouthbridgeError {
  return new SouthbridgeError('ERR_PROPERTY_VALUE', message, hint);
}

/**
 * Gives the machine the addresses of CXL, behind all its memory. The host bridges come later, and are found on the first reset.
 *
 * @param root the bus that expander bridges are beside
 * @returns what the firmware is told; undefined without `cxl=on`
 */
export function openCxl(
  machine: Machine,
  root: PciBus,
  options: PropValues<typeof cxlOptions>,
): PcFirmwareFacts['cxl'] {
  if (!options.cxl) {
    onFirstReset(machine, () => {
      if (cxlBuses(root).length > 0)
        throw new SouthbridgeError('ERR_CXL', 'CXL host bridges present, but cxl=off', 'give -machine cxl=on');
    });
    return undefined;
  }
  const base = machine.memoryBus?.end ?? 4 * GIB;
  const registers = MemoryRegion.container('cxl_host_reg', REGISTERS_SIZE);
  machine.memoryRoot.add(registers, base, 0);
  let end = base + REGISTERS_SIZE;
  if (options['cxl-fmw'].length > 0) end = Math.ceil(end / WINDOW_UNIT) * WINDOW_UNIT;
  const windows = options['cxl-fmw'].map(({ size, granularity, targets }) => {
    const window = new FixedWindow({ base: end, size, granularity });
    machine.memoryRoot.add(window.region, window.base, 0);
    end += size;
    return { window, targets };
  });
  onFirstReset(machine, () => {
    for (const [index, { cxlHost }] of cxlBuses(root).entries())
      if (cxlHost !== undefined) showRegisters(registers, cxlHost.registers, index);
    for (const { window, targets } of windows) window.targets = targets.map(id => target(root, id));
  });
  return {
    end,
    facts: () => ({
      hosts: cxlBuses(root).flatMap(({ number, cxlHost }) =>
        cxlHost === undefined
          ? []
          : { uid: number, base: base + cxlHost.registers.offset, size: cxlHost.registers.size },
      ),
      windows: windows.map(({ window }) => ({
        base: window.base,
        size: window.region.size,
        granularity: window.granularity,
        targets: window.targets.map(({ number }) => number),
      })),
    }),
  };
}

/** The buses of CXL beside a root bus, the last that came first. */
function cxlBuses(root: PciBus): ExpanderBus[] {
  return root.expanders
    .filter(bus => bus instanceof ExpanderBus)
    .filter(({ cxlHost }) => cxlHost !== undefined)
    .reverse();
}

function showRegisters(room: MemoryRegion, registers: MemoryRegion, index: number): void {
  const at = index * registers.size;
  if (at >= room.size)
    throw new SouthbridgeError(
      'ERR_CXL',
      'Insufficient space for pxb cxl host register space',
      `there is room for ${room.size / registers.size} pxb-cxl`,
    );
  room.add(registers, at);
}

/** @throws SouthbridgeError ERR_CXL where there is no such host bridge */
function target(root: PciBus, id: string): ExpanderBus {
  const found = cxlBuses(root).find(({ seat }) => seat.id === id);
  if (found !== undefined) return found;
  throw new SouthbridgeError('ERR_CXL', `Could not resolve CXLFM target ${id}`, 'give the id of a pxb-cxl');
}

/** All devices of the command line are there by then. */
function onFirstReset(machine: Machine, hook: () => void): void {
  let done = false;
  machine.onReset(() => {
    if (done) return;
    done = true;
    hook();
  });
}
