import type { Accelerator } from '../accel/accelerator.ts';
import type { DeviceType } from '../device/device-type.ts';
import type { PropSet, PropValues } from '../device/property.ts';
import type { Machine } from '../machine/machine.ts';
import type { MachineType } from '../machine/machine-type.ts';

/**
 * The version of what plugins see. The major number changes when a plugin that worked might not; the minor one when there is
 * something new, which a plugin that asks for it needs.
 */
export const PLUGIN_API = '1.0';

/** A kind of host-side object of a plugin's own: `-object TYPE,id=...` makes one, `prop.backend(kind)` of a device finds it. */
export interface BackendType {
  readonly type: string;
  /** What devices ask for. */
  readonly kind: string;
  readonly summary: string;
  readonly properties: PropSet;
  create(id: string, props: Readonly<Record<string, unknown>>): Backend | Promise<Backend>;
}

/** What a device gets from `prop.backend(kind)`: this and whatever the kind's users agree on. */
export interface Backend {
  /** The user's name of it. */
  readonly id: string;
  /** Lets go of the host. */
  dispose?(): void;
}

/** Somewhere for trace lines to go: `-trace-sink NAME[,property=value]`. */
export interface TraceSinkType {
  readonly name: string;
  readonly summary: string;
  readonly properties: PropSet;
  open(props: Readonly<Record<string, unknown>>, context: TraceContext): OpenTraceSink;
}

/** What a sink may ask about the moment of an event. */
export interface TraceContext {
  /** The address of the guest's instruction under way; undefined where no CPU runs. */
  programCounter(): number | undefined;
}

export interface OpenTraceSink {
  /** The machine has been built, and runs soon. */
  built?(machine: Machine): void;
  /** One event: its name, its text, and virtual time in nanoseconds. */
  write(event: string, detail: string, timeNs: number): void;
  /** The program ends: write out what is held. */
  dispose?(): void;
}

/** All that a plugin may bring. */
export interface PluginParts {
  readonly devices?: readonly DeviceType[];
  readonly machines?: readonly MachineType[];
  readonly backends?: readonly BackendType[];
  readonly traceSinks?: readonly TraceSinkType[];
  readonly accelerators?: readonly Accelerator[];
}

export interface PluginDefinition extends PluginParts {
  /** The plugin API that it was written for: {@link PLUGIN_API} of that day. */
  readonly api: string;
  /** By default the package's, or the file's. */
  readonly name?: string;
  readonly version?: string;
}

/** A plugin: the default export of its module. */
export interface Plugin extends PluginDefinition {
  readonly isPlugin: true;
}

/** Declares a plugin. A single file may do without, and just export its types. */
export function plugin(definition: PluginDefinition): Plugin {
  return { ...definition, isPlugin: true };
}

/** Declares a kind of backend with typed properties. */
export function backendType<S extends PropSet>(definition: {
  readonly type: string;
  readonly kind: string;
  readonly summary: string;
  readonly properties?: S;
  create(id: string, props: PropValues<S>): Backend | Promise<Backend>;
}): BackendType {
  return {
    ...definition,
    properties: definition.properties ?? {},
    create: (id, props) => definition.create(id, props as PropValues<S>),
  };
}

/** Declares a trace sink with typed properties. */
export function traceSink<S extends PropSet>(definition: {
  readonly name: string;
  readonly summary: string;
  readonly properties?: S;
  open(props: PropValues<S>, context: TraceContext): OpenTraceSink;
}): TraceSinkType {
  return {
    ...definition,
    properties: definition.properties ?? {},
    open: (props, context) => definition.open(props as PropValues<S>, context),
  };
}

const has = (value: unknown, ...names: string[]): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && names.every(name => name in value);

const isDevice = (value: unknown): value is DeviceType => has(value, 'type', 'make', 'bars', 'properties');
const isMachine = (value: unknown): value is MachineType => has(value, 'type', 'build', 'defaultRam');
const isBackend = (value: unknown): value is BackendType => has(value, 'type', 'kind', 'create', 'properties');
const isSink = (value: unknown): value is TraceSinkType => has(value, 'name', 'open', 'properties');
const isAccelerator = (value: unknown): value is Accelerator => has(value, 'name', 'caps', 'createVm');
export const isPlugin = (value: unknown): value is Plugin => has(value, 'isPlugin', 'api');

/** What a module without a plugin declaration exports, by what it looks like. */
export function partsOf(module: Readonly<Record<string, unknown>>): Required<PluginParts> {
  const exported = [...new Set(Object.values(module))];
  return {
    devices: exported.filter(isDevice),
    machines: exported.filter(isMachine),
    backends: exported.filter(isBackend),
    traceSinks: exported.filter(isSink),
    accelerators: exported.filter(isAccelerator),
  };
}
