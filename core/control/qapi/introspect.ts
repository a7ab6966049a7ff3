import type { Writable } from '../json/writer.ts';
import type { Command, Event } from './declare.ts';
import type { AnyType } from './types.ts';

// biome-ignore lint/suspicious/noExplicitAny: commands of all types together
export type AnyCommand = Command<any, any>;
// biome-ignore lint/suspicious/noExplicitAny: events of all types together
export type AnyEvent = Event<any>;

type Description = { readonly [member: string]: Writable };

/** Integers of all widths are one type to clients. */
const INTEGERS = new Set(['int', 'int8', 'int16', 'int32', 'int64', 'uint8', 'uint16', 'uint32', 'uint64', 'size']);

/**
 * The reply to `query-qmp-schema`: commands and events, then each type that they lead to. Names of types are masked by
 * numbers, as QEMU does, because clients shall look at commands and events only.
 */
export function introspect(
  commands: ReadonlyMap<string, AnyCommand>,
  events: ReadonlyMap<string, AnyEvent>,
): readonly Description[] {
  const masks = new Map<string, string>();
  const pending: AnyType[] = [];
  const seen = new Map<string, AnyType>();

  const use = (type: AnyType): string => {
    if (type.meta === 'array' && 'element' in type) {
      const name = `[${use(type.element as AnyType)}]`;
      remember(name, type);
      return name;
    }
    if (type.meta === 'builtin') {
      const name = INTEGERS.has(type.name) ? 'int' : type.name;
      remember(name, type);
      return name;
    }
    const name = maskOf(type);
    remember(name, type);
    return name;
  };
  const maskOf = (type: AnyType): string => {
    const key = type.name === 'q_obj-arg' || type.name === 'q_obj-event' ? identity(type) : type.name;
    const known = masks.get(key);
    if (known !== undefined) return known;
    const mask = String(masks.size);
    masks.set(key, mask);
    return mask;
  };
  const identities = new Map<AnyType, string>();
  const identity = (type: AnyType): string => {
    const known = identities.get(type) ?? `#${identities.size}`;
    identities.set(type, known);
    return known;
  };
  const remember = (name: string, type: AnyType): void => {
    if (seen.has(name)) return;
    seen.set(name, type);
    pending.push(type);
  };

  const result: Description[] = [];
  for (const [name, command] of commands) {
    result.push({
      name,
      'ret-type': use(command.returns),
      'meta-type': 'command',
      'arg-type': use(command.args),
      ...(command.oob && { 'allow-oob': true }),
      ...features(command.features),
    });
  }
  for (const [name, event] of events) {
    result.push({ name, 'meta-type': 'event', 'arg-type': use(event.data), ...features(event.features) });
  }
  for (let type = pending.shift(); type !== undefined; type = pending.shift()) {
    result.push({ name: use(type), 'meta-type': type.meta, ...type.describe(use), ...features(type.features) });
  }
  return result;
}

const features = (names: readonly string[]): { features?: readonly string[] } =>
  names.length > 0 ? { features: names } : {};
