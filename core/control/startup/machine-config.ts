import { readFileSync } from 'node:fs';
import type { PropertyValue } from '../../device/object.ts';
import { userTable } from '../../firmware/acpi-table-option.ts';
import type { BootConfig, MachineConfig } from '../../machine/machine-config.ts';
import type { MachineType } from '../../machine/machine-type.ts';
import { isObject, type Json, type JsonObject, toInteger } from '../json/value.ts';
import { type CommandLine, located } from '../options/command-line.ts';
import { parseBool, parseSigned, parseSizeOrRange } from '../options/numbers.ts';
import { OptionError, type Opts } from '../options/opts.ts';
import { numaOption } from './numa-option.ts';
import { completeTopology, type TopologyRequest } from './topology.ts';

/** The parts of a machine's configuration that come from backends, made before it. */
export type BackendParts = Pick<MachineConfig, 'serials' | 'parallels' | 'drives' | 'flash' | 'nics' | 'vga'>;

/** Parameters of `-machine` that every machine has; the rest is its type's. */
const COMMON = new Set([
  'type',
  'accel',
  'kernel',
  'initrd',
  'append',
  'dtb',
  'smp',
  'boot',
  'memory',
  'graphics',
  'firmware',
  'memory-backend',
  'dump-guest-core',
  'mem-merge',
  'kernel-irqchip',
  'kernel_irqchip',
  'usb',
  'suppress-vmdesc',
  'iommu',
  'dt-compatible',
  'phandle-start',
  'dumpdtb',
  'confidential-guest-support',
  'memory-encryption',
  'kvm-shadow-mem',
]);

export interface MachineRequest {
  readonly type: string | undefined;
  readonly options: JsonObject;
  readonly location: string | undefined;
}

/** `-machine`, all occurrences together. */
export function machineRequest(line: CommandLine): MachineRequest {
  const given = line.object('machine')[0];
  const type = given?.value['type'];
  return { type: typeof type === 'string' ? type : undefined, options: given?.value ?? {}, location: given?.location };
}

export function machineConfig(line: CommandLine, type: MachineType, parts: BackendParts): MachineConfig {
  const request = machineRequest(line);
  const { options, location } = request;
  const text = (name: string): string | undefined => {
    const value = options[name];
    return typeof value === 'string' ? value : undefined;
  };
  const memory = memoryConfig(line, type);
  const graphics = text('graphics');
  return {
    ...memory,
    ...parts,
    cpus: located(line.object('smp')[0]?.location ?? location, () =>
      completeTopology(topologyRequest(line, options), type),
    ),
    cpuModel: line.last('cpu'),
    name: line.merged('name').string('guest'),
    uuid: located(line.all('uuid').at(-1)?.location, () => uuid(line.last('uuid'))),
    bios: line.last('bios') ?? text('firmware'),
    kernel: line.last('kernel') ?? text('kernel'),
    initrd: line.last('initrd') ?? text('initrd'),
    append: line.last('append') ?? text('append'),
    dtb: line.last('dtb') ?? text('dtb'),
    boot: bootConfig(line.merged('boot-opts')),
    rtc: rtcConfig(line.merged('rtc')),
    numa: line.opts('numa').map(({ opts, location: where }) => located(where, () => numaOption(opts))),
    defaults: !line.has('nodefaults'),
    graphics: graphics === undefined ? !line.has('nographic') : parseBool(graphics) !== false,
    optionRoms: line
      .opts('option-rom')
      .map(({ opts }) => ({ file: opts.string('romfile') ?? '', bootIndex: opts.number('bootindex') ?? -1 })),
    fwCfg: line.opts('fw_cfg').map(({ opts, location: where }) => located(where, () => fwCfgEntry(opts))),
    smbios: line.opts('smbios').map(({ opts }) => Object.fromEntries(opts.entries())),
    acpi: !line.has('no-acpi') && text('acpi') !== 'off',
    acpiTables: line
      .opts('acpi')
      .map(({ opts, location: where }) => located(where, () => acpiTable(Object.fromEntries(opts.entries())))),
    noReboot: line.has('no-reboot'),
    globals: line.opts('global').map(({ opts }) => ({
      driver: opts.string('driver') ?? '',
      property: opts.string('property') ?? '',
      value: opts.string('value') ?? '',
    })),
    options: typeOptions(options, line, type),
  };
}

/** Machine options that are the type's own; switches of older options that mean the same are added where it has them. */
function typeOptions(
  options: JsonObject,
  line: CommandLine,
  type: MachineType,
): Readonly<Record<string, PropertyValue>> {
  const result: Record<string, PropertyValue> = {};
  if (line.has('no-hpet') && 'hpet' in type.options) result['hpet'] = 'off';
  if (line.has('no-acpi') && 'acpi' in type.options) result['acpi'] = 'off';
  if (line.has('no-fd-bootchk') && 'fd-bootchk' in type.options) result['fd-bootchk'] = 'off';
  if ((line.has('usb') || line.has('usbdevice')) && 'usb' in type.options) result['usb'] = 'on';
  for (const [name, value] of Object.entries(options)) {
    const dashed = name.replaceAll('_', '-');
    if (COMMON.has(name) && !(name in type.options)) continue;
    result[dashed in type.options ? dashed : name] = plain(value);
  }
  return result;
}

function plain(value: Json): PropertyValue {
  if (Array.isArray(value)) return value.map(plain);
  if (isObject(value)) return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, plain(member)]));
  return typeof value === 'object' && value !== null && 'value' in value
    ? Number(value.value)
    : (value as PropertyValue);
}

function memoryConfig(
  line: CommandLine,
  type: MachineType,
): Pick<MachineConfig, 'ramSize' | 'maxRamSize' | 'ramSlots'> {
  const given = line.opts('memory')[0];
  if (given === undefined) return { ramSize: type.defaultRam, maxRamSize: type.defaultRam, ramSlots: 0 };
  return located(given.location, () => {
    const { opts } = given;
    const text = opts.string('size');
    const parsed = text === undefined ? BigInt(type.defaultRam) : parseSizeOrRange(text, 'M');
    if (typeof parsed !== 'bigint') throw new OptionError('ram size too large');
    const ramSize = Math.ceil(Number(parsed) / 8192) * 8192;
    const slots = opts.number('slots') ?? 0;
    const maxRamSize = opts.size('maxmem');
    if (maxRamSize === undefined) {
      if (slots > 0) throw new OptionError('slots specified but no max-size');
      return { ramSize, maxRamSize: ramSize, ramSlots: 0 };
    }
    if (maxRamSize < ramSize) {
      throw new OptionError(
        `invalid value of maxmem: maximum memory size (0x${maxRamSize.toString(16)}) must be at least the initial memory size (0x${ramSize.toString(16)})`,
      );
    }
    if (slots > 0 && maxRamSize === ramSize) {
      throw new OptionError(
        `invalid value of maxmem: memory slots were specified but maximum memory size (0x${maxRamSize.toString(16)}) is equal to the initial memory size (0x${ramSize.toString(16)})`,
      );
    }
    return { ramSize, maxRamSize, ramSlots: slots };
  });
}

const TOPOLOGY_KEYS = ['cpus', 'sockets', 'dies', 'clusters', 'cores', 'threads', 'maxcpus'] as const;

function topologyRequest(line: CommandLine, machine: JsonObject): TopologyRequest {
  const nested = machine['smp'];
  const given: JsonObject = { ...(isObject(nested) ? nested : {}), ...line.object('smp')[0]?.value };
  const request: Record<string, number> = {};
  for (const [name, value] of Object.entries(given)) {
    const key = TOPOLOGY_KEYS.find(candidate => candidate === name);
    if (key === undefined) throw new OptionError(`Parameter 'smp.${name}' is unexpected`);
    const parsed = typeof value === 'string' ? parseSigned(value) : toInteger(value);
    if (parsed === undefined) throw new OptionError(`Parameter 'smp.${name}' expects integer`);
    if (parsed < 0n || parsed > 0x7fff_ffffn) throw new OptionError(`Parameter 'smp.${name}' expects uint64`);
    request[key] = Number(parsed);
  }
  return request;
}

/** Drive letters that a PC boots from (QEMU's `-boot order=`). */
const BOOT_LETTERS = /^[a-p]*$/;

function bootOrder(order: string | undefined, key: string): string | undefined {
  if (order === undefined) return undefined;
  if (!BOOT_LETTERS.test(order)) {
    throw new OptionError(`Invalid boot device '${order.replace(/[a-p]/g, '')[0]}'`, `see '-help', ${key}`);
  }
  const twice = [...order].find((letter, index) => order.indexOf(letter) !== index);
  if (twice !== undefined) throw new OptionError(`Boot device '${twice}' was given twice`);
  return order;
}

function bootConfig(opts: Opts): BootConfig {
  const order = bootOrder(opts.string('order'), 'order');
  const once = bootOrder(opts.string('once'), 'once');
  const menu = opts.bool('menu');
  const strict = opts.bool('strict');
  const splash = opts.string('splash');
  const splashTimeMs = opts.number('splash-time');
  const reboot = opts.string('reboot-timeout');
  const rebootTimeoutMs = reboot === undefined ? undefined : Number(parseSigned(reboot) ?? -2n);
  return {
    ...(order !== undefined && { order }),
    ...(once !== undefined && { once }),
    ...(menu !== undefined && { menu }),
    ...(strict !== undefined && { strict }),
    ...(splash !== undefined && { splash }),
    ...(splashTimeMs !== undefined && { splashTimeMs }),
    ...(rebootTimeoutMs !== undefined && { rebootTimeoutMs }),
  };
}

const DATE = /^(\d{4})-(\d{1,2})-(\d{1,2})(?:T(\d{1,2}):(\d{1,2}):(\d{1,2}))?$/;

function rtcConfig(opts: Opts): MachineConfig['rtc'] {
  const base = opts.string('base') ?? 'utc';
  const clock = opts.string('clock') ?? 'host';
  const driftfix = opts.string('driftfix') ?? 'none';
  if (clock !== 'host' && clock !== 'rt' && clock !== 'vm') throw new OptionError(`invalid option value '${clock}'`);
  if (driftfix !== 'none' && driftfix !== 'slew') throw new OptionError(`invalid option value '${driftfix}'`);
  if (base === 'utc' || base === 'localtime') return { base, clock, driftfix };
  const match = DATE.exec(base);
  if (match === null) {
    throw new OptionError('invalid datetime format', "valid formats: '2006-06-17T16:01:21' or '2006-06-17'");
  }
  const [year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0] = match
    .slice(1)
    .map(part => Number(part ?? 0));
  return { base: Date.UTC(year, month - 1, day, hour, minute, second), clock, driftfix };
}

function uuid(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  if (!/^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/i.test(text)) {
    throw new OptionError('failed to parse UUID string: wrong format');
  }
  return text.toLowerCase();
}

function acpiTable(parameters: Readonly<Record<string, string>>): Uint8Array {
  return userTable(parameters, readable).bytes;
}

/** The contents of a file, or undefined where it cannot be read. */
function readable(path: string): Uint8Array | undefined {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
}

function fwCfgEntry(opts: Opts): { name: string; contents: Uint8Array } {
  const name = opts.string('name');
  const file = opts.string('file');
  const string = opts.string('string');
  const sources = [file, string, opts.string('gen_id')].filter(source => source !== undefined && source !== '');
  if (name === undefined || name === '' || sources.length !== 1) {
    throw new OptionError('name, plus exactly one of file, string and gen_id, are needed');
  }
  if (name.length > 55) throw new OptionError('name too long (max. 55 char)');
  if (string !== undefined && string !== '') return { name, contents: Buffer.from(string) };
  const contents = readable(file ?? '');
  if (contents === undefined) {
    throw new OptionError(`can't load ${file}: Failed to open file “${file}”: No such file or directory`);
  }
  return { name, contents };
}
