import { isObject, type JsonObject } from '../json/value.ts';
import type { Command, Event } from '../qapi/declare.ts';
import type { QmpError } from '../qapi/error.ts';
import type { AnyCommand } from '../qapi/introspect.ts';
import * as block from '../qapi/schema/block.ts';
import * as blockExport from '../qapi/schema/block-export.ts';
import * as blockInfo from '../qapi/schema/block-info.ts';
import * as blockJobs from '../qapi/schema/block-jobs.ts';
import * as blockdev from '../qapi/schema/blockdev.ts';
import * as char from '../qapi/schema/char.ts';
import * as confidential from '../qapi/schema/confidential.ts';
import * as control from '../qapi/schema/control.ts';
import * as cpu from '../qapi/schema/cpu.ts';
import * as dirtyRate from '../qapi/schema/dirty-rate.ts';
import * as dump from '../qapi/schema/dump.ts';
import * as introspection from '../qapi/schema/introspect.ts';
import * as job from '../qapi/schema/job.ts';
import * as machine from '../qapi/schema/machine.ts';
import * as migration from '../qapi/schema/migration.ts';
import * as misc from '../qapi/schema/misc.ts';
import * as net from '../qapi/schema/net.ts';
import * as pci from '../qapi/schema/pci.ts';
import * as plugins from '../qapi/schema/plugins.ts';
import * as qom from '../qapi/schema/qom.ts';
import * as runState from '../qapi/schema/run-state.ts';
import * as stats from '../qapi/schema/stats.ts';
import * as tpm from '../qapi/schema/tpm.ts';
import * as transaction from '../qapi/schema/transaction.ts';
import * as ui from '../qapi/schema/ui.ts';
import * as virtio from '../qapi/schema/virtio.ts';

/** Every command that is declared, in the order of the reference. */
export const commands = {
  ...control.commands,
  ...introspection.commands,
  ...runState.commands,
  ...misc.commands,
  ...qom.commands,
  ...machine.commands,
  ...cpu.commands,
  ...confidential.commands,
  ...char.commands,
  ...block.commands,
  ...blockInfo.commands,
  ...blockdev.commands,
  ...blockJobs.commands,
  ...blockExport.commands,
  ...transaction.commands,
  ...job.commands,
  ...net.commands,
  ...pci.commands,
  ...migration.commands,
  ...dirtyRate.commands,
  ...dump.commands,
  ...ui.commands,
  ...tpm.commands,
  ...stats.commands,
  ...virtio.commands,
  ...plugins.commands,
};

export const events = {
  ...runState.events,
  ...misc.events,
  ...qom.events,
  ...machine.events,
  ...char.events,
  ...block.events,
  ...blockdev.events,
  ...blockJobs.events,
  ...blockExport.events,
  ...job.events,
  ...net.events,
  ...migration.events,
  ...dump.events,
  ...ui.events,
};

export type CommandName = keyof typeof commands;
export type EventName = keyof typeof events;
export type EventData<Name extends EventName> = (typeof events)[Name] extends Event<infer Data> ? Data : never;

/** What a command's handler takes and returns. It throws {@link QmpError}, or any error, whose message the client gets. */
export type Handler<Name extends CommandName, Context> =
  (typeof commands)[Name] extends Command<infer Args, infer Result>
    ? (args: Args, context: Context) => Result | Promise<Result>
    : never;

/** Handlers for some of the commands. */
export type Handlers<Context> = { readonly [Name in CommandName]?: Handler<Name, Context> };

/** A command with its handler, with the types forgotten. */
export interface Bound<Context> {
  readonly command: AnyCommand;
  handle(args: unknown, context: Context): unknown;
}

/** The commands that have handlers; only these exist for clients. */
export class CommandTable<Context> {
  readonly #bound = new Map<string, Bound<Context>>();

  add(handlers: Handlers<Context>): this {
    for (const name of Object.keys(handlers) as CommandName[]) {
      const handle = handlers[name] as ((args: unknown, context: Context) => unknown) | undefined;
      if (handle !== undefined) this.#bound.set(name, { command: commands[name], handle });
    }
    return this;
  }

  /** Lets through arguments of a command that are not in the schema: those of plugins' types, which check them. */
  widen(name: CommandName, accepts: (args: JsonObject) => boolean): this {
    const bound = this.#bound.get(name);
    if (bound === undefined) return this;
    const { args } = bound.command;
    const read: typeof args.read = (value, place) =>
      isObject(value) && accepts(value) ? value : args.read(value, place);
    this.#bound.set(name, { ...bound, command: { ...bound.command, args: { ...args, read } } });
    return this;
  }

  get(name: string): Bound<Context> | undefined {
    return this.#bound.get(name);
  }

  names(): string[] {
    return [...this.#bound.keys()];
  }

  /** In the order of the reference. */
  entries(): Map<string, AnyCommand> {
    const all: [string, AnyCommand][] = Object.entries(commands);
    return new Map(all.filter(([name]) => this.#bound.has(name)));
  }
}
