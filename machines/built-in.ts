import { TypeRegistry } from '../core/device/registry.ts';
import { registerDevices } from '../devices/index.ts';
import { registerMachines } from './index.ts';

/** The device and machine types that come with this program; each is loaded when it is asked for. */
export function builtInTypes(): TypeRegistry {
  const registry = new TypeRegistry();
  registerDevices(registry);
  registerMachines(registry);
  return registry;
}
