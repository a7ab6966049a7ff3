import { type FSWatcher, watch } from 'node:fs';
import { basename, dirname } from 'node:path';
import { replaceDevice } from '../device/replace.ts';
import type { Machine } from '../machine/machine.ts';
import type { LoadedPlugin, PluginHost } from './host.ts';

/** An editor writes a file in several steps. */
const SETTLE_MS = 100;

/** Who is told what came of a reload. */
export interface ReloadReport {
  info(message: string): void;
  error(error: unknown): void;
}

/**
 * Loads a plugin again whenever a source beside it changes, and replaces its devices in the machine, which take their state over.
 * Where that does not work, the old model goes on, and the error says why.
 */
export class PluginWatcher {
  readonly #plugins: PluginHost;
  readonly #machine: () => Machine;
  readonly #report: ReloadReport;
  readonly #watcher: FSWatcher;
  #plugin: LoadedPlugin;
  #timer: NodeJS.Timeout | undefined;
  #busy: Promise<void> = Promise.resolve();

  constructor(plugin: LoadedPlugin, plugins: PluginHost, machine: () => Machine, report: ReloadReport) {
    this.#plugin = plugin;
    this.#plugins = plugins;
    this.#machine = machine;
    this.#report = report;
    this.#watcher = watch(dirname(plugin.file), (_event, name) => {
      if (name === null || /\.[cm]?[jt]s$/.test(name)) this.#soon();
    });
  }

  dispose(): void {
    clearTimeout(this.#timer);
    this.#watcher.close();
  }

  #soon(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#busy = this.#busy.then(() => this.#reload());
    }, SETTLE_MS);
  }

  async #reload(): Promise<void> {
    try {
      const { plugin, undo } = await this.#plugins.reload(this.#plugin);
      const machine = this.#machine();
      const running = machine.power.running;
      if (running) machine.stop();
      try {
        const notes = replaceAll(machine, plugin);
        this.#plugin = plugin;
        this.#report.info(`${basename(plugin.file)} loaded again${notes.length === 0 ? '' : `: ${notes.join('; ')}`}`);
      } catch (error) {
        undo();
        throw error;
      } finally {
        if (running) machine.start();
      }
    } catch (error) {
      this.#plugins.failed(this.#plugin, error);
      this.#report.error(error);
    }
  }
}

/** All devices of the plugin's types; where one fails, those that were replaced before it stay. */
function replaceAll(machine: Machine, plugin: LoadedPlugin): string[] {
  return [...machine.devices()].flatMap(device => {
    const type = plugin.parts.devices.find(each => each.type === device.typeName);
    return type === undefined ? [] : replaceDevice(device, type).notes;
  });
}
