import type { Device } from '../../device/device.ts';
import { Device as DeviceClass } from '../../device/device.ts';
import type { Machine } from '../../machine/machine.ts';
import type { QtestTarget } from './target.ts';

/** A machine as the qtest protocol drives it. Its clock is only the client's where nothing else runs the guest. */
export function machineTarget(machine: Machine): QtestTarget {
  const { ports, memory } = machine;
  const clock = machine.clocks.virtual;
  const still = machine.accelerator.name === 'qtest';
  return {
    portRead: (port, size) => ports.read(port, size),
    portWrite: (port, size, value) => ports.write(port, size, value),
    memoryRead: (address, size) => memory.read(address, size),
    memoryWrite: (address, size, value) => memory.write(address, size, value),
    readBytes: (address, into) => void memory.readBytes(address, into, 0, into.length),
    writeBytes: (address, bytes) => void memory.writeBytes(address, bytes, 0, bytes.length),
    now: () => clock.now(),
    nextDeadline: () => clock.nextDeadlineNs,
    advanceTo: still ? target => clock.advanceTo(target) : undefined,
    settle() {
      if (still) clock.settle();
    },
    intercept(path, side, observer) {
      const device = deviceAt(machine, path);
      if (device === undefined) return false;
      const pins = (side === 'in' ? device.inputPins : device.outputPins).get('') ?? [];
      pins.forEach((pin, index) => pin.intercept(level => observer(index, level)));
      return true;
    },
    setInput(path, name, pin, level) {
      const device = deviceAt(machine, path);
      if (device === undefined) return false;
      device.inputPins.get(name ?? '')?.[pin]?.set(level !== 0);
      return true;
    },
  };
}

/** By absolute path, or by the end of a path that only one object has (`ioapic`). */
function deviceAt(machine: Machine, path: string): Device | undefined {
  const node = machine.root.resolve(path);
  return node instanceof DeviceClass ? node : undefined;
}
