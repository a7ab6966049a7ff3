import type { Device } from '../../device/device.ts';
import { decodeValue, encodeValue } from '../../state/codec.ts';
import type { SavedValue } from '../../state/fields.ts';

/** Every device from `device` down, itself first. */
export function* subtree(device: Device): Generator<Device> {
  yield device;
  for (const bus of device.buses) for (const below of bus.devices) yield* subtree(below);
}

/** The state of a device and all below it, as it comes out of a snapshot. */
export function saveAll(device: Device): Map<string, SavedValue> {
  return new Map(
    [...subtree(device)].map((each, index) => [`${index} ${each.typeName}`, decodeValue(encodeValue(each.save()))]),
  );
}

export function restoreAll(device: Device, saved: ReadonlyMap<string, SavedValue>): void {
  [...subtree(device)].forEach((each, index) => each.restore(saved.get(`${index} ${each.typeName}`) ?? null));
}

/** Where two states differ first: the path, and both values; undefined where they are equal. */
export function firstDifference(
  a: ReadonlyMap<string, SavedValue>,
  b: ReadonlyMap<string, SavedValue>,
): string | undefined {
  for (const [name, value] of a) {
    const other = b.get(name);
    const found = other === undefined ? `${name} is gone` : differs(value, other, name);
    if (found !== undefined) return found;
  }
  return undefined;
}

function differs(a: SavedValue, b: SavedValue, path: string): string | undefined {
  if (Object.is(a, b)) return undefined;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null)
    return `${path}: ${String(a)} and ${String(b)}`;
  const left = new Map(Object.entries(a));
  const right = new Map(Object.entries(b));
  for (const key of new Set([...left.keys(), ...right.keys()])) {
    const [mine, other] = [left.get(key), right.get(key)];
    if (mine === undefined || other === undefined) return `${path}.${key} is in one of them only`;
    const found = differs(mine, other, `${path}.${key}`);
    if (found !== undefined) return found;
  }
  return undefined;
}
