import { SouthbridgeError } from '../errors.ts';
import { PciDevice } from '../pci/pci-device.ts';
import type { RegisterMap } from '../register/register.ts';
import type { SavedRecord, SavedValue } from '../state/fields.ts';
import type { Device } from './device.ts';
import type { DeviceType } from './device-type.ts';

/** A device that has taken another's place. */
export interface Replacement {
  readonly device: Device;
  /** What could not be carried over, in words; empty where all was. */
  readonly notes: readonly string[];
}

/**
 * Puts a device of `type` in the place of `old`: on its bus, at its address, with its properties, backends and wires, and with its
 * state as far as both declare the same. The guest must not be running.
 * @throws SouthbridgeError ERR_REPLACE, ERR_STATE_* or what the new device says; `old`'s model is then back, with its state
 */
export function replaceDevice(old: Device, type: DeviceType): Replacement {
  const { bus } = old;
  if (bus.kind === 'System') throw refuse(old, 'the machine has wired it by code');
  if (old.buses.some(each => each.devices.length > 0)) throw refuse(old, 'there are devices on its buses');
  const saved = old.save();
  const given = propertiesFor(old, type);
  bus.unplug(old);
  let device: Device | undefined;
  try {
    device = bus.plug(type, {}, given, old.id);
    const notes: string[] = [];
    device.restore(carriedOver(old, device, saved, notes));
    takeWires(old, device);
    device.redrive();
    return { device, notes };
  } catch (error) {
    if (device !== undefined) bus.unplug(device);
    putBack(old, saved);
    throw error;
  }
}

function refuse(device: Device, reason: string): SouthbridgeError {
  return new SouthbridgeError(
    'ERR_REPLACE',
    `${device.path} (${device.typeName}) cannot be replaced: ${reason}`,
    'restart the machine',
  );
}

/** The old one's properties that the new type has too, and its address. */
function propertiesFor(old: Device, type: DeviceType): Record<string, unknown> {
  const values: Readonly<Record<string, unknown>> = old.props;
  const known = Object.entries(values).filter(
    ([name, value]) => value !== undefined && Object.hasOwn(type.properties, name),
  );
  return { ...Object.fromEntries(known), ...(old instanceof PciDevice && { addr: old.devfn }) };
}

/** A model that is out cannot be plugged in again, so the old one comes back as another instance of its type. */
function putBack(old: Device, saved: SavedRecord): void {
  const again = old.bus.plug(old.ownType, {}, propertiesFor(old, old.ownType), old.id);
  again.restore(saved);
  takeWires(old, again);
  again.redrive();
}

function takeWires(old: Device, device: Device): void {
  for (const [list, pins] of old.outputPins) {
    const own = device.outputPins.get(list) ?? [];
    for (const [index, pin] of pins.entries()) {
      const next = own[index];
      if (next !== undefined && !next.connected) next.takeOver(pin);
    }
  }
  for (const [list, pins] of old.inputPins) {
    const own = device.inputPins.get(list) ?? [];
    // Whoever drives the old pin goes on doing so.
    for (const [index, pin] of pins.entries()) {
      const next = own[index];
      if (next !== undefined) pin.connect(level => next.set(level));
    }
  }
}

/** The old state in the shape of the new one: what only the new one declares is as after a reset. */
function carriedOver(old: Device, device: Device, saved: SavedRecord, notes: string[]): SavedRecord {
  const fresh = device.save();
  const merged = merge(fresh, saved, '', notes);
  const before = saved['registers'];
  const after = fresh['registers'];
  if (!Array.isArray(before) || !Array.isArray(after)) return asRecord(merged);
  const registers = after.map((bytes, index) => {
    const [from, to] = [old.banks[index]?.map, device.banks[index]?.map];
    const [source, target] = [before[index], bytes];
    if (from === undefined || to === undefined || !(source instanceof Uint8Array) || !(target instanceof Uint8Array))
      return bytes;
    return registersOf(from, to, source, target, notes);
  });
  return { ...asRecord(merged), registers };
}

const isRecord = (value: SavedValue): value is SavedRecord =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array);
const asRecord = (value: SavedValue): SavedRecord => (isRecord(value) ? value : {});

function merge(fresh: SavedValue, saved: SavedValue, path: string, notes: string[]): SavedValue {
  if (!isRecord(fresh) || !isRecord(saved)) return saved;
  const members = Object.entries(fresh).map(([name, value]) => {
    const known = saved[name];
    const where = path === '' ? name : `${path}.${name}`;
    if (known !== undefined) return [name, merge(value, known, where, notes)] as const;
    notes.push(`${where} is new`);
    return [name, value] as const;
  });
  for (const name of Object.keys(saved))
    if (!(name in fresh)) notes.push(`${path === '' ? name : `${path}.${name}`} is gone`);
  return Object.fromEntries(members);
}

/** The words of registers by name, where they have the same form. */
function registersOf(
  from: RegisterMap,
  to: RegisterMap,
  source: Uint8Array,
  target: Uint8Array,
  notes: string[],
): Uint8Array {
  const result = target.slice();
  for (const entry of to.layout) {
    const known = from.layout.find(each => each.name === entry.name);
    const same = known !== undefined && known.words === entry.words && known.count === entry.count;
    if (!same) notes.push(`${to.name}.${entry.name} is ${known === undefined ? 'new' : 'of another form'}`);
    else {
      const bytes = 4 * entry.words * entry.count;
      result.set(source.subarray(4 * known.slot, 4 * known.slot + bytes), 4 * entry.slot);
    }
  }
  for (const { name } of from.layout)
    if (!to.layout.some(entry => entry.name === name)) notes.push(`${to.name}.${name} is gone`);
  return result;
}
