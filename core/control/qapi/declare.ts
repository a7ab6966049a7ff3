import { empty, type Infer, type Members, type MemberValues, type ObjectType, type QapiType, struct } from './types.ts';

/** One QMP command as declared: what it takes and returns, and when it may be called. */
export interface Command<Args, Result> {
  readonly summary: string;
  readonly args: ObjectType<Args>;
  readonly returns: QapiType<Result>;
  readonly features: readonly string[];
  /** It may be executed out of band (`exec-oob`). */
  readonly oob: boolean;
  /** It may be executed before the machine is built (`-preconfig`). */
  readonly preconfig: boolean;
  /** It sends no reply where it succeeds. */
  readonly silent: boolean;
}

/** One QMP event and its data. */
export interface Event<Data> {
  readonly data: ObjectType<Data>;
  readonly features: readonly string[];
}

interface CommandParts<Returns> {
  readonly returns?: Returns;
  readonly features?: readonly string[];
  readonly oob?: boolean;
  readonly preconfig?: boolean;
  readonly silent?: boolean;
}

type Nothing = Record<never, never>;
// biome-ignore lint/suspicious/noConfusingVoidType: it is the return type of handlers
type ResultOf<Returns> = Returns extends QapiType<infer T> ? T : void;

const isType = (value: object): value is ObjectType<unknown> => 'meta' in value && typeof value.meta === 'string';

/** Declares a command; `args` is a structure or union, or just the members. */
export function command<Returns extends QapiType<unknown> | undefined = undefined>(
  summary: string,
  parts: CommandParts<Returns>,
): Command<Nothing, ResultOf<Returns>>;
export function command<Args, Returns extends QapiType<unknown> | undefined = undefined>(
  summary: string,
  parts: CommandParts<Returns> & { readonly args: ObjectType<Args> },
): Command<Args, ResultOf<Returns>>;
export function command<M extends Members, Returns extends QapiType<unknown> | undefined = undefined>(
  summary: string,
  parts: CommandParts<Returns> & { readonly args: M },
): Command<MemberValues<M>, ResultOf<Returns>>;
export function command(
  summary: string,
  parts: CommandParts<QapiType<unknown> | undefined> & { readonly args?: ObjectType<unknown> | Members },
): Command<unknown, unknown> {
  const { args = empty, returns = empty, features = [], oob = false, preconfig = false, silent = false } = parts;
  return { summary, args: isType(args) ? args : struct('q_obj-arg', args), returns, features, oob, preconfig, silent };
}

export function event<Data>(data: ObjectType<Data>, features?: readonly string[]): Event<Data>;
export function event<M extends Members>(data: M, features?: readonly string[]): Event<MemberValues<M>>;
export function event(data: ObjectType<unknown> | Members, features: readonly string[] = []): Event<unknown> {
  return { data: isType(data) ? data : struct('q_obj-event', data), features };
}

/** The value of a declared type: what handlers take and return. */
export type Value<Type> = Infer<Type>;

/** What a declared command takes. */
export type Args<C> = C extends Command<infer A, infer _> ? A : never;
