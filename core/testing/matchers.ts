import { isDeepStrictEqual } from 'node:util';
import type { Bench } from './bench.ts';
import type { Fault } from './faults/fault.ts';
import type { IrqProbe } from './probes.ts';

/** What a test runner has for assertions: tap's `t` is one, and so is node:assert. */
export interface Asserter {
  ok(value: unknown, message: string): unknown;
}

type Expected<V> = { readonly [K in keyof V]?: V[K] extends object ? Expected<V[K]> : V[K] };

/** Assertions about hardware, on top of those of the test runner. Each says what was there when it fails. */
export interface HardwareAssertions {
  /** Registers and fields, of those that are named: `{ STATUS: { BUSY: false }, COUNT: { value: 3 } }`. Each is read once. */
  registers<V extends object>(view: V, expected: Expected<V>, message?: string): boolean;
  /** The line was raised so often since the probe began, or was cleared. */
  raised(probe: IrqProbe, times: number, message?: string): boolean;
  /** Messages that have arrived: the data of each, in order. */
  messages(lab: Bench, data: readonly number[], message?: string): boolean;
  /** Bytes of the bench's RAM. */
  memory(lab: Bench, address: number, bytes: Uint8Array | readonly number[], message?: string): boolean;
  fired(fault: Fault, times?: number, message?: string): boolean;
}

/** The assertions for a test runner: `const hw = hardware(t)`. */
export function hardware(t: Asserter): HardwareAssertions {
  const check = (holds: boolean, message: string, found: unknown, wanted: unknown): boolean => {
    t.ok(holds, holds ? message : `${message}: found ${shown(found)}, wanted ${shown(wanted)}`);
    return holds;
  };
  return {
    registers(view, expected, message = 'registers') {
      const found = pick(view, expected);
      return check(isDeepStrictEqual(found, expected), message, found, expected);
    },
    raised: (probe, times, message = `${probe.line.name} raised`) =>
      check(probe.raised === times, message, probe.raised, times),
    messages(lab, data, message = 'messages') {
      const found = lab.messages.map(each => each.data);
      return check(isDeepStrictEqual(found, [...data]), message, found, data);
    },
    memory(lab, address, bytes, message = `memory at 0x${address.toString(16)}`) {
      const found = [...lab.ram.bytes.slice(address, address + bytes.length)];
      return check(isDeepStrictEqual(found, [...bytes]), message, found, [...bytes]);
    },
    fired: (fault, times, message = fault.name) =>
      check(times === undefined ? fault.fired > 0 : fault.fired === times, message, fault.fired, times ?? 'at least 1'),
  };
}

/** The parts of `view` that `expected` names. */
function pick(view: object, expected: object): object {
  const picked: Record<string, unknown> = {};
  for (const [name, wanted] of Object.entries(expected)) {
    const value: unknown = Reflect.get(view, name);
    picked[name] =
      typeof wanted === 'object' && wanted !== null && typeof value === 'object' && value !== null
        ? pick(value, wanted)
        : value;
  }
  return picked;
}

const shown = (value: unknown): string =>
  JSON.stringify(value, (_key, each: unknown) => (typeof each === 'bigint' ? `0x${each.toString(16)}` : each));
