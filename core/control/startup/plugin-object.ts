import { ObjectNode, type PropertyValue } from '../../device/object.ts';
import { checked, type PluginHost } from '../../plugin/host.ts';
import type { Backend, BackendType } from '../../plugin/plugin.ts';
import type { JsonObject } from '../json/value.ts';
import { QmpError } from '../qapi/error.ts';
import type { Backends } from './backends.ts';

/** An object that the user made of a plugin's backend type. */
export class PluginObject extends ObjectNode {
  readonly id: string;
  readonly backend: Backend;

  constructor(type: BackendType, id: string, values: Readonly<Record<string, unknown>>, backend: Backend) {
    super(type.type);
    this.id = id;
    this.backend = backend;
    for (const [name, property] of Object.entries(type.properties)) {
      const value = values[name];
      this.defineProperty({ name, type: property.type, get: (): PropertyValue => property.format(value) });
    }
    this.defineProperty({ name: 'type', type: 'string', get: () => this.typeName });
  }
}

/** Makes objects of the types that plugins bring, and finds them for devices. */
export class PluginObjects {
  readonly #plugins: PluginHost;
  readonly #objects = new Map<string, { readonly kind: string; readonly object: PluginObject }>();

  constructor(plugins: PluginHost, backends: Backends) {
    this.#plugins = plugins;
    backends.extend((kind, id) => this.#find(kind, id));
  }

  /** Whether these are values for a type of a plugin's. */
  accepts(values: JsonObject): boolean {
    return this.#plugins.backends.has(String(values['qom-type']));
  }

  /** @throws SouthbridgeError ERR_PROPERTY_* where a value does not fit, or what the type throws */
  async make(values: JsonObject): Promise<PluginObject> {
    const { 'qom-type': name, id, ...input } = values;
    const type = this.#plugins.backends.get(String(name));
    if (type === undefined) throw new QmpError(`Invalid parameter type for 'qom-type'`);
    if (typeof id !== 'string') throw new QmpError("Parameter 'id' is missing");
    const props = checked(type.type, type.properties, input);
    const object = new PluginObject(type, id, props, await type.create(id, props));
    this.#objects.set(id, { kind: type.kind, object });
    return object;
  }

  drop(object: PluginObject): void {
    this.#objects.delete(object.id);
    object.backend.dispose?.();
  }

  dispose(): void {
    for (const { object } of [...this.#objects.values()]) this.drop(object);
  }

  #find(kind: string, id: string): Backend | undefined {
    const found = this.#objects.get(id);
    return found?.kind === kind ? found.object.backend : undefined;
  }
}
