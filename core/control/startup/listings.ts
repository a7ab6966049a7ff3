import { FEATURES } from '../../cpu/features.ts';
import { CPU_NAMES } from '../../cpu/model.ts';
import type { TypeRegistry } from '../../device/registry.ts';
import type { PluginHost } from '../../plugin/host.ts';
import { PLUGIN_API } from '../../plugin/plugin.ts';
import { BUILT_IN_SINKS } from '../../trace/sinks/sinks.ts';
import { CHARDEV_KINDS } from '../char/spec.ts';
import type { CommandLine } from '../options/command-line.ts';
import { isHelp } from '../options/numbers.ts';
import { NetClientDriver } from '../qapi/schema/net.ts';
import { ObjectType } from '../qapi/schema/qom.ts';
import { ACCELERATOR_NAMES } from './accelerators.ts';
import { AUDIO_DRIVER_LIST, CARD_LIST } from './audio-option.ts';
import { requireCreatable } from './devices.ts';
import { machineRequest } from './machine-config.ts';
import { ROM_FOLDERS } from './rom-images.ts';
import type { Listing } from './wanted-listing.ts';

const TITLES: readonly (readonly [category: string, title: string])[] = [
  ['bridge', 'Controller/Bridge/Hub'],
  ['usb', 'USB'],
  ['storage', 'Storage'],
  ['network', 'Network'],
  ['input', 'Input'],
  ['display', 'Display'],
  ['sound', 'Sound'],
  ['misc', 'Misc'],
  ['cpu', 'CPU'],
  ['watchdog', 'Watchdog'],
  ['uncategorized', 'Uncategorized'],
];

/** Where the types come from that QEMU's clients know. */
const BUILT_IN = 'southbridge';

const TPMDEV_LIST = 'Supported TPM types (choose only one):\n    emulator   TPM emulator backend driver\n';

/** The text of a listing. */
export async function listing(
  wanted: Listing,
  line: CommandLine,
  registry: TypeRegistry,
  plugins: PluginHost,
): Promise<string> {
  switch (wanted) {
    case 'plugins':
      return pluginList(plugins);
    case 'machines':
      return machineList(registry);
    case 'machine-options': {
      const words = line.help?.value.split(',') ?? [];
      const named = words.find(word => !isHelp(word) && !/^(?!type=).*=/.test(word));
      return machineOptions(registry, named?.replace(/^type=/, '') ?? machineRequest(line).type ?? 'pc');
    }
    case 'rom-folders': {
      const folders = line.all('L').flatMap(({ value }) => (isHelp(value) ? [] : [value]));
      return [...folders, ...ROM_FOLDERS].map(folder => `${folder}\n`).join('');
    }
    case 'audio-drivers':
      return AUDIO_DRIVER_LIST;
    case 'sound-cards':
      return CARD_LIST;
    case 'cpus':
      return cpuList();
    case 'accelerators':
      return `Accelerators supported in QEMU binary:\n${[...ACCELERATOR_NAMES, 'tcg', ...plugins.accelerators.keys()].join('\n')}\n`;
    case 'chardevs':
      return `Available chardev backend types: \n${CHARDEV_KINDS.map(kind => `  ${kind}\n`).join('')}`;
    case 'image-formats': {
      const { blockGraph } = await import('../../block/block.ts');
      const names = [...blockGraph().drivers()].map(({ name }) => name).sort();
      return `Supported formats: ${names.join(' ')}\nSupported formats (read-only): ${names.join(' ')}\n`;
    }
    case 'tpmdevs':
      return TPMDEV_LIST;
    case 'network-cards':
      return cardList(registry);
    case 'netdevs': {
      const kinds = NetClientDriver.values.filter(kind => kind !== 'nic' && kind !== 'none');
      return `Available netdev backend types:\n${kinds.map(kind => `${kind}\n`).join('')}`;
    }
    case 'objects':
      return `List of user creatable objects:\n${[...ObjectType.values, ...plugins.backends.keys()].map(name => `  ${name}\n`).join('')}`;
    case 'trace-sinks': {
      const sinks = [...BUILT_IN_SINKS, ...plugins.traceSinks.values()];
      return `Trace sinks:\n${sinks.map(sink => `  ${sink.name.padEnd(12)} ${sink.summary}\n`).join('')}`;
    }
    case 'log-items':
      return 'Log items (comma separated):\nguest_errors, unimp, int, cpu_reset, exec, trace:GLOB\n';
    case 'devices': {
      const device = line.opts('device').find(({ opts }) => isHelp(opts.string('driver')) || opts.has('help'));
      const driver = device?.opts.string('driver') ?? /^([^,]+),/.exec(line.help?.value ?? '')?.[1] ?? 'help';
      return isHelp(driver) ? deviceList(registry) : deviceHelp(registry, driver);
    }
  }
}

/** `-plugin help` and `info plugins`. */
export function pluginList({ plugins }: PluginHost): string {
  if (plugins.length === 0) return `No plugins; their API is ${PLUGIN_API}\n`;
  return plugins
    .map(({ name, version, api, file, prefix, parts }) => {
      const lists = [
        ['device', parts.devices.map(each => [each.type, each.summary])],
        ['machine', parts.machines.map(each => [each.type, each.summary])],
        ['object', parts.backends.map(each => [each.type, each.summary])],
        ['trace-sink', parts.traceSinks.map(each => [each.name, each.summary])],
        ['accel', parts.accelerators.map(each => [each.name, each.summary])],
      ] as const;
      const rows = lists.flatMap(([option, all]) =>
        all.map(([type, summary]) => `  -${option} ${type}`.padEnd(30) + ` ${summary}\n`),
      );
      const head = [name, version, `(API ${api}${prefix === '' ? '' : `, prefix '${prefix}'`})`].filter(Boolean);
      return `${head.join(' ')} from ${file}\n${rows.join('')}`;
    })
    .join('');
}

async function cardList(registry: TypeRegistry): Promise<string> {
  await registry.loadAll();
  const cards = registry.devices().filter(({ bus, properties }) => bus === 'PCI' && 'netdev' in properties);
  return `Supported NIC models:\n${cards.map(({ type }) => `${type}\n`).join('')}`;
}

async function machineList(registry: TypeRegistry): Promise<string> {
  await registry.loadAll();
  const rows = registry
    .machines()
    .flatMap(type => [
      ...type.aliases.map(alias => [alias, `${type.summary} (alias of ${type.type})`] as const),
      [type.type, `${type.summary}${type.isDefault ? ' (default)' : ''}`] as const,
    ]);
  return `Supported machines are:\n${rows.map(([name, summary]) => `${name.padEnd(20)} ${summary}\n`).join('')}`;
}

async function machineOptions(registry: TypeRegistry, name: string): Promise<string> {
  const type = await registry.requireMachine(name);
  const rows = Object.entries(type.options).map(
    ([option, { type: kind, help }]) =>
      `  ${`${option}=<${kind}>`.padEnd(24)}${help === undefined ? '' : ` - ${help}`}`,
  );
  return `${type.type}-machine options:\n${rows.sort().join('\n')}\n`;
}

/** Models that are not a certain processor; QEMU lists them last. */
const SPECIAL_MODELS: readonly string[] = ['base', 'host', 'max'];

function cpuList(): string {
  const names = [...CPU_NAMES.keys()].filter(name => !SPECIAL_MODELS.includes(name)).sort();
  names.push(...SPECIAL_MODELS);
  return `Available CPUs:\n${names.map(name => `x86 ${name}\n`).join('')}\nRecognized CPUID flags:\n${wrap(FEATURES)}\n`;
}

function wrap(words: readonly string[]): string {
  const lines: string[] = [];
  let line = ' ';
  for (const word of words) {
    if (line.length + word.length + 1 > 76) {
      lines.push(line);
      line = ' ';
    }
    line += ` ${word}`;
  }
  return [...lines, line].join('\n');
}

export async function deviceList(registry: TypeRegistry): Promise<string> {
  await registry.loadAll();
  const devices = registry.devices().filter(type => type.userCreatable);
  const sections = TITLES.flatMap(([category, title]) => {
    const rows = devices
      .filter(type => type.category === category)
      .map(type => {
        const alias = type.aliases[0] === undefined ? '' : `, alias "${type.aliases[0]}"`;
        const bus = type.bus === 'System' ? '' : `, bus ${type.bus}`;
        return `name "${type.type}"${bus}${alias}, desc "${type.summary}"\n`;
      });
    return rows.length === 0 ? [] : [`${title} devices:\n${rows.join('')}`];
  });
  return `${sections.join('\n')}`;
}

export async function deviceHelp(registry: TypeRegistry, driver: string): Promise<string> {
  const type = await requireCreatable(registry, driver);
  const own = registry.origin(type.type).source !== BUILT_IN;
  const rows = Object.entries(type.properties)
    .filter(([, property]) => property.listed !== 'no')
    .map(([name, property]) => {
      const about = property.description ?? (own ? property.help : undefined);
      const shown = property.default !== undefined && property.listed === 'yes';
      const value = shown ? property.format(property.default) : undefined;
      const fallback = shown ? ` (default: ${typeof value === 'string' ? JSON.stringify(value) : String(value)})` : '';
      const left = `  ${name}=<${property.type}>`;
      return about === undefined && !shown ? left : `${left.padEnd(24)} - ${about ?? ''}${fallback}`;
    });
  return rows.length === 0
    ? `There are no options for ${driver}.\n`
    : `${driver} options:\n${rows.sort().join('\n')}\n`;
}
