import { readFileSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import type { Accelerator } from '../accel/accelerator.ts';
import type { DeviceType } from '../device/device-type.ts';
import { type PropSet, parseProperties } from '../device/property.ts';
import type { TypeRegistry } from '../device/registry.ts';
import { didYouMean, SouthbridgeError } from '../errors.ts';
import type { MachineType } from '../machine/machine-type.ts';
import { BUILT_IN_SINKS } from '../trace/sinks/sinks.ts';
import { importPlugin } from './modules.ts';
import {
  type BackendType,
  isPlugin,
  type OpenTraceSink,
  PLUGIN_API,
  type PluginParts,
  partsOf,
  type TraceContext,
  type TraceSinkType,
} from './plugin.ts';
import { findPlugin, type PluginSource } from './source.ts';

/** What came from where. */
export interface LoadedPlugin {
  readonly name: string;
  /** Empty where neither the module nor a package.json says. */
  readonly version: string;
  /** The plugin API that it was written for. */
  readonly api: string;
  readonly file: string;
  /** What stands before the names of its types; empty for most. */
  readonly prefix: string;
  readonly parts: Required<PluginParts>;
  /** How often it has been loaded again. */
  readonly reloads: number;
  /** Why the last attempt to load it again failed; empty where it did not. */
  readonly problem: string;
}

export interface LoadOptions {
  /** Put before the name of each type, so that two versions of a plugin can be there at once. */
  readonly prefix?: string;
  /** Where relative paths and packages are looked for; default: the current folder. */
  readonly from?: string;
}

/** The plugins of one program: loads them, checks that they fit, and keeps what they bring. */
export class PluginHost {
  readonly plugins: LoadedPlugin[] = [];
  readonly accelerators = new Map<string, Accelerator>();
  readonly backends = new Map<string, BackendType>();
  readonly traceSinks = new Map<string, TraceSinkType>();
  readonly #registry: TypeRegistry;

  constructor(registry: TypeRegistry) {
    this.#registry = registry;
  }

  /**
   * Loads a plugin and registers all that it brings, or nothing.
   * @param given path of a file or folder, or name of a package
   * @throws SouthbridgeError ERR_PLUGIN_NOT_FOUND, ERR_PLUGIN_LOAD, ERR_PLUGIN_API, ERR_PLUGIN_EMPTY, ERR_TYPE_EXISTS
   */
  async load(given: string, options: LoadOptions = {}): Promise<LoadedPlugin> {
    const source = findPlugin(given, options.from);
    const prefix = options.prefix ?? '';
    const loaded = source.file.endsWith('.json')
      ? await this.#readMachine(source, prefix)
      : await readPlugin(source, prefix);
    this.#register(loaded);
    this.plugins.push(loaded);
    return loaded;
  }

  /**
   * Loads a plugin again: its device types take the place of those before, for devices to come. Machine types, backends and the rest
   * stay as they are.
   * @returns the plugin, and how to go back
   * @throws SouthbridgeError as {@link load}, and ERR_PLUGIN_RELOAD where it no longer brings a type; nothing is changed then
   */
  async reload(plugin: LoadedPlugin): Promise<{ readonly plugin: LoadedPlugin; undo(): void }> {
    const read = await readPlugin(plugin, plugin.prefix);
    const names = read.parts.devices.map(({ type }) => type);
    const missing = plugin.parts.devices.find(({ type }) => !names.includes(type));
    if (missing !== undefined)
      throw new SouthbridgeError(
        'ERR_PLUGIN_RELOAD',
        `${plugin.file} no longer brings '${missing.type}'`,
        'restart the machine',
      );
    const origin = { source: plugin.name, version: read.version };
    const known = plugin.parts.devices.map(({ type }) => type);
    const added = read.parts.devices.filter(({ type }) => !known.includes(type));
    for (const type of added) this.#registry.refuseTaken(type.type, origin);
    for (const type of read.parts.devices) {
      if (added.includes(type)) this.#registry.registerDevice(type, origin);
      else this.#registry.replaceDevice(type);
    }
    const loaded: LoadedPlugin = {
      ...plugin,
      version: read.version,
      parts: { ...plugin.parts, devices: read.parts.devices },
      reloads: plugin.reloads + 1,
      problem: '',
    };
    this.#exchange(plugin, loaded);
    return {
      plugin: loaded,
      undo: () => {
        for (const type of plugin.parts.devices) this.#registry.replaceDevice(type);
        this.#exchange(loaded, plugin);
      },
    };
  }

  /** Notes why a plugin could not be loaded again. */
  failed(plugin: LoadedPlugin, error: unknown): void {
    const current = this.plugins.find(({ file, prefix }) => file === plugin.file && prefix === plugin.prefix);
    const problem = error instanceof Error ? error.message : String(error);
    if (current !== undefined) this.#exchange(current, { ...current, problem });
  }

  #exchange(before: LoadedPlugin, after: LoadedPlugin): void {
    const index = this.plugins.findIndex(({ file, prefix }) => file === before.file && prefix === before.prefix);
    if (index >= 0) this.plugins[index] = after;
  }

  /** Opens a trace sink by name. @throws SouthbridgeError ERR_TRACE_SINK with the nearest name, ERR_PROPERTY_* */
  openTraceSink(name: string, input: Readonly<Record<string, unknown>>, context: TraceContext): OpenTraceSink {
    const type = this.traceSinks.get(name) ?? BUILT_IN_SINKS.find(sink => sink.name === name);
    if (type === undefined) {
      const known = [...BUILT_IN_SINKS.map(sink => sink.name), ...this.traceSinks.keys()];
      const hint = didYouMean(name, known, '-trace-sink help');
      throw new SouthbridgeError('ERR_TRACE_SINK', `there is no trace sink '${name}'`, hint);
    }
    return type.open(checked(type.name, type.properties, input), context);
  }

  /** A machine type in a JSON file, and the plugins that it needs. */
  async #readMachine(source: PluginSource, prefix: string): Promise<LoadedPlugin> {
    const { DataPlace } = await import('../machine/data/format.ts');
    const { machineFromJson } = await import('../machine/data/machine-data.ts');
    const place = new DataPlace(basename(source.file));
    const needs = await neededPlugins(source.file);
    for (const [index, needed] of needs.entries()) {
      try {
        await this.#loadOnce(needed, dirname(source.file));
      } catch (error) {
        throw place.member('plugins').element(index).located(error);
      }
    }
    const machine = await machineFromJson(readFileSync(source.file, 'utf8'), basename(source.file), this.#registry);
    const nothing = { devices: [], backends: [], traceSinks: [], accelerators: [] };
    const parts = { ...nothing, machines: [prefixedMachine(machine, prefix)] };
    return {
      name: source.name,
      version: source.version,
      api: PLUGIN_API,
      file: source.file,
      prefix,
      parts,
      reloads: 0,
      problem: '',
    };
  }

  /** Several machines may need the same plugin. */
  async #loadOnce(given: string, from: string): Promise<void> {
    const { file } = findPlugin(given, from);
    if (!this.plugins.some(plugin => plugin.file === file)) await this.load(given, { from });
  }

  #register({ parts, name, version }: LoadedPlugin): void {
    const origin = { source: name, version };
    for (const { type, aliases } of [...parts.devices, ...parts.machines])
      for (const known of [type, ...aliases]) this.#registry.refuseTaken(known, origin);
    const named: readonly (readonly [Map<string, unknown>, string, unknown])[] = [
      ...parts.backends.map(each => [this.backends, each.type, each] as const),
      ...parts.traceSinks.map(each => [this.traceSinks, each.name, each] as const),
      ...parts.accelerators.map(each => [this.accelerators, each.name, each] as const),
    ];
    for (const [map, key] of named) {
      if (!map.has(key)) continue;
      const hint = `load one of them with 'prefix=': -plugin ${name},prefix=old-`;
      throw new SouthbridgeError('ERR_TYPE_EXISTS', `'${key}' of ${name} is already there, from another plugin`, hint);
    }
    for (const type of parts.devices) this.#registry.registerDevice(type, origin);
    for (const type of parts.machines) this.#registry.registerMachine(type, origin);
    for (const [map, key, value] of named) map.set(key, value);
  }
}

/** The `plugins` of a machine file; what else is wrong with it is said later. */
async function neededPlugins(file: string): Promise<readonly string[]> {
  const { readMachine } = await import('../machine/data/read.ts');
  const { DataPlace } = await import('../machine/data/format.ts');
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    return [];
  }
  return readMachine(value, new DataPlace(basename(file))).plugins ?? [];
}

/** Validates what the user gave for a backend or a sink. */
export function checked(
  owner: string,
  properties: PropSet,
  input: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> {
  for (const name of Object.keys(input)) {
    if (Object.hasOwn(properties, name)) continue;
    const hint = didYouMean(name, Object.keys(properties), '-plugin help');
    throw new SouthbridgeError('ERR_PROPERTY_UNKNOWN', `Property '${owner}.${name}' not found`, hint);
  }
  return parseProperties(owner, properties, input);
}

/** Imports the module, and names its types as they will be known. */
export async function readPlugin(
  source: Omit<PluginSource, 'api'> & { readonly api?: string | undefined },
  prefix: string,
): Promise<LoadedPlugin> {
  const module = await importPlugin(source.file);
  const declared = Object.values(module).find(isPlugin);
  const name = declared?.name ?? source.name;
  const version = declared?.version ?? source.version;
  const api = declared?.api ?? source.api ?? PLUGIN_API;
  checkApi(`${name} ${version}`.trimEnd(), api);
  const given: PluginParts = declared ?? partsOf(module);
  const parts = {
    devices: (given.devices ?? []).map(type => prefixedDevice(type, prefix)),
    machines: (given.machines ?? []).map(type => prefixedMachine(type, prefix)),
    backends: (given.backends ?? []).map(type => ({ ...type, type: prefix + type.type })),
    traceSinks: (given.traceSinks ?? []).map(type => ({ ...type, name: prefix + type.name })),
    accelerators: given.accelerators ?? [],
  };
  if (Object.values(parts).every(list => list.length === 0)) {
    throw new SouthbridgeError(
      'ERR_PLUGIN_EMPTY',
      `${source.file} brings nothing`,
      `export device types, machine types, or 'export default plugin({ api: '${PLUGIN_API}', devices: [...] })'`,
    );
  }
  return { name, version, api, file: source.file, prefix, parts, reloads: 0, problem: '' };
}

const prefixedDevice = (type: DeviceType, prefix: string): DeviceType =>
  prefix === ''
    ? type
    : type.renamed(
        prefix + type.type,
        type.aliases.map(alias => prefix + alias),
      );

const prefixedMachine = (type: MachineType, prefix: string): MachineType =>
  prefix === ''
    ? type
    : { ...type, type: prefix + type.type, aliases: type.aliases.map(alias => prefix + alias), isDefault: false };

/** Refuses what was written for another major version, or for a newer minor one. */
function checkApi(plugin: string, api: string): void {
  const [major, minor] = versionOf(api) ?? [];
  const [ourMajor = 0, ourMinor = 0] = versionOf(PLUGIN_API) ?? [];
  const problem = (message: string, hint: string): SouthbridgeError =>
    new SouthbridgeError('ERR_PLUGIN_API', `plugin ${plugin} ${message}`, hint);
  if (major === undefined || minor === undefined)
    throw problem(`has no plugin API version, but '${api}'`, `api: '${PLUGIN_API}'`);
  const both = `is for plugin API ${api}, this program has ${PLUGIN_API}`;
  if (major < ourMajor) throw problem(both, 'update the plugin');
  if (major > ourMajor || minor > ourMinor) throw problem(both, 'update southbridge, or use an older plugin');
}

function versionOf(text: string): readonly [major: number, minor: number] | undefined {
  const match = /^(\d+)\.(\d+)$/.exec(text);
  return match === null ? undefined : [Number(match[1]), Number(match[2])];
}
