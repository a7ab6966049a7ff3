import { readFileSync } from 'node:fs';
import { hostError, reason } from '../../block/io-error.ts';
import { didYouMean, SouthbridgeError } from '../../errors.ts';
import { parseJson } from '../json/stream.ts';
import { isObject, type Json, type JsonObject } from '../json/value.ts';
import { GROUPS, type GroupName } from './groups.ts';
import { HelpWanted, OptionError, Opts, parseKeyval, parseOpts } from './opts.ts';
import { OPTIONS, type OptionSpec } from './table.ts';

/** An error at a place: an option of the command line or a line of a configuration file. */
export class LocatedError extends SouthbridgeError {
  readonly location: string | undefined;

  constructor(location: string | undefined, cause: Error) {
    super(
      cause instanceof SouthbridgeError ? cause.code : 'ERR_OPTION',
      cause.message,
      cause instanceof SouthbridgeError ? cause.hint : undefined,
      { cause },
    );
    this.name = 'LocatedError';
    this.location = location;
  }
}

/** Runs `action`, and names the place in the error that it may throw. */
export function located<T>(location: string | undefined, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof HelpWanted || error instanceof LocatedError || !(error instanceof Error)) throw error;
    throw new LocatedError(location, error);
  }
}

/** One option as given. */
export interface GivenOption {
  readonly name: string;
  /** Its argument; empty for an option that takes none. */
  readonly value: string;
  /** For error messages: `-device foo`. */
  readonly location: string;
}

/** Values of an option with parameters, and where they came from. */
export interface GivenOpts {
  readonly opts: Opts;
  readonly location: string;
}

/** Values of an option in the stricter syntax or JSON. */
export interface GivenObject {
  readonly value: JsonObject;
  /** True where the values are strings that a type has to convert. */
  readonly keyval: boolean;
  readonly location: string;
}

/** Asked for a listing (`-machine help`) that only the registry can give. */
export interface HelpRequest {
  readonly option: string;
  readonly value: string;
}

/** What the user asked for, checked for syntax. */
export class CommandLine {
  readonly program: string;
  readonly given: GivenOption[] = [];
  readonly groups = new Map<GroupName, GivenOpts[]>();
  readonly objects = new Map<string, GivenObject[]>();
  /** The first help that was asked for. */
  help: HelpRequest | undefined;

  constructor(program: string) {
    this.program = program;
  }

  has(name: string): boolean {
    return this.given.some(option => option.name === name);
  }

  /** The argument of the last such option. */
  last(name: string): string | undefined {
    return this.given.findLast(option => option.name === name)?.value;
  }

  all(name: string): readonly GivenOption[] {
    return this.given.filter(option => option.name === name);
  }

  opts(group: GroupName): readonly GivenOpts[] {
    return this.groups.get(group) ?? [];
  }

  /** The one set of values of a group whose options add up, empty where none was given. */
  merged(group: GroupName): Opts {
    return this.opts(group)[0]?.opts ?? new Opts(GROUPS[group]);
  }

  object(name: string): readonly GivenObject[] {
    return this.objects.get(name) ?? [];
  }

  addOpts(group: GroupName, opts: Opts, location: string): void {
    const known = this.groups.get(group) ?? [];
    known.push({ opts, location });
    this.groups.set(group, known);
  }

  addObject(name: string, value: JsonObject, keyval: boolean, location: string): void {
    const known = this.objects.get(name) ?? [];
    known.push({ value, keyval, location });
    this.objects.set(name, known);
  }
}

/** Spellings that mean another option. */
const ALIASES: ReadonlyMap<string, string> = new Map([
  ['M', 'machine'],
  ['h', 'help'],
]);

const DRIVES: ReadonlyMap<string, string> = new Map([
  ['fda', 'if=floppy,index=0'],
  ['fdb', 'if=floppy,index=1'],
  ['hda', 'index=0,media=disk'],
  ['hdb', 'index=1,media=disk'],
  ['hdc', 'index=2,media=disk'],
  ['hdd', 'index=3,media=disk'],
  ['cdrom', 'index=2,media=cdrom'],
  ['pflash', 'if=pflash'],
  ['sd', 'if=sd'],
  ['mtdblock', 'if=mtd'],
]);

/**
 * Parses the arguments behind the program's name. Nothing is opened but the files of `-readconfig`.
 * @throws LocatedError with QEMU's wording
 */
export function parseCommandLine(program: string, args: readonly string[]): CommandLine {
  const line = new CommandLine(program);
  for (let index = 0; index < args.length; index++) {
    const word = args[index] ?? '';
    if (!word.startsWith('-') || word === '-') {
      addDrive(line, { name: 'hda', value: word, location: word });
      continue;
    }
    const name = word.startsWith('--') ? word.slice(2) : word.slice(1);
    const spec = OPTIONS.get(name);
    if (spec === undefined) {
      const hint = didYouMean(name, OPTIONS.keys(), `${program} -help`);
      throw new LocatedError(word, new OptionError('invalid option', hint));
    }
    let value = '';
    if (spec.arg !== undefined) {
      const next = args[++index];
      if (next === undefined) throw new LocatedError(word, new OptionError('requires an argument'));
      value = next;
    }
    const location = spec.arg === undefined ? word : `${word} ${value}`;
    if (spec.foreign === true)
      throw new LocatedError(location, new OptionError('Option not supported for this target'));
    accept(line, { name: ALIASES.get(name) ?? name, value, location }, spec);
  }
  return line;
}

/** Network backends in the stricter syntax; the others take a parameter several times. */
const MODERN_NETDEV = /^(type=)?(stream|dgram)(,|$)/;

function accept(line: CommandLine, option: GivenOption, spec: OptionSpec): void {
  const { name, value, location } = option;
  line.given.push(option);
  try {
    located(location, () => {
      if (name === 'readconfig') readConfig(line, value);
      else if (name === 'set') setParameter(line, value);
      else if (name === 'global') addGlobal(line, value, location);
      else if (DRIVES.has(name)) addDrive(line, option);
      else if (value.startsWith('{') && (spec.keyval !== undefined || name === 'device')) addJson(line, option);
      else if (name === 'netdev' && !MODERN_NETDEV.test(value)) addGroup(line, 'netdev', value, location);
      else if (spec.keyval !== undefined) addKeyval(line, option, spec.keyval);
      else if (spec.group !== undefined) addGroup(line, spec.group, value, location);
    });
  } catch (error) {
    if (!(error instanceof HelpWanted)) throw error;
    line.help ??= { option: name, value };
  }
}

function addDrive(line: CommandLine, { name, value, location }: GivenOption): void {
  const opts = parseOpts(GROUPS.drive, DRIVES.get(name) ?? '');
  opts.set('file', value);
  line.addOpts('drive', opts, location);
}

function addJson(line: CommandLine, { name, value, location }: GivenOption): void {
  const json = parseJson(value);
  if (!isObject(json)) throw new OptionError('JSON argument must be an object');
  line.addObject(name, json, false, location);
}

/** Options whose repetitions add up to one object. */
const MERGED_OBJECTS = new Set(['machine', 'smp']);

function addKeyval(line: CommandLine, { name, value, location }: GivenOption, implied: string | true): void {
  const object = parseKeyval(value, implied === true ? undefined : implied);
  const first = MERGED_OBJECTS.has(name) ? line.objects.get(name)?.[0] : undefined;
  if (first === undefined) line.addObject(name, object, true, location);
  else line.objects.set(name, [{ value: merge(first.value, object), keyval: true, location }]);
}

function merge(base: JsonObject, over: JsonObject): JsonObject {
  const result: Record<string, Json> = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const known = result[key];
    result[key] = isObject(known) && isObject(value) ? merge(known, value) : value;
  }
  return result;
}

function addGroup(line: CommandLine, name: GroupName, value: string, location: string): void {
  const group = GROUPS[name];
  const merged = 'merge' in group ? line.groups.get(name)?.[0]?.opts : undefined;
  if (merged !== undefined) {
    merged.parse(value);
    return;
  }
  const opts = parseOpts(group, value);
  if (opts.id !== undefined && line.opts(name).some(other => other.opts.id === opts.id)) {
    throw new OptionError(`Duplicate ID '${opts.id}' for ${group.name}`);
  }
  line.addOpts(name, opts, location);
}

/** `-global driver.property=value`, or the long form with three keys. */
function addGlobal(line: CommandLine, value: string, location: string): void {
  const short = /^([^.=,]+)\.([^=,]+)=(.*)$/s.exec(value);
  if (short === null) {
    const opts = parseOpts(GROUPS.global, value);
    if (!opts.has('driver') || !opts.has('property') || !opts.has('value')) {
      throw new OptionError("options 'driver', 'property', and 'value' are required");
    }
    line.addOpts('global', opts, location);
    return;
  }
  const opts = new Opts(GROUPS.global);
  ['driver', 'property', 'value'].forEach((key, index) => {
    opts.set(key, short[index + 1] ?? '');
  });
  line.addOpts('global', opts, location);
}

const isGroup = (name: string): name is GroupName => Object.hasOwn(GROUPS, name);

/** `-set group.id.arg=value`. */
function setParameter(line: CommandLine, text: string): void {
  const match = /^([^.]{1,63})\.([^.]{1,63})\.([^=]{1,63})=(.*)$/s.exec(text);
  if (match === null) throw new OptionError(`can't parse: "${text}"`);
  const [, group = '', id = '', key = '', value = ''] = match;
  if (!isGroup(group))
    throw new OptionError(`There is no option group '${group}'`, didYouMean(group, Object.keys(GROUPS)));
  const found = line.opts(group).find(entry => entry.opts.id === id);
  if (found !== undefined) {
    found.opts.set(key, value);
    return;
  }
  const index = line.object(group).findIndex(entry => entry.value['id'] === id);
  const object = line.object(group)[index];
  if (object === undefined) throw new OptionError(`there is no ${group} "${id}" defined`);
  line.objects.get(group)?.splice(index, 1, { ...object, value: { ...object.value, [key]: value } });
}

/** `[group "id"]` and `key = "value"` lines (QEMU's -readconfig). */
function readConfig(line: CommandLine, path: string): void {
  let text: string;
  try {
    text = readFileSync(path === '-' ? 0 : path, 'utf8');
  } catch (cause) {
    throw new OptionError(`Could not open '${path}': ${reason(hostError(cause))}`);
  }
  let section: { group: string; id: string | undefined; values: [string, string][]; location: string } | undefined;
  const flush = (): void => {
    if (section !== undefined) addSection(line, section);
    section = undefined;
  };
  text.split('\n').forEach((raw, index) => {
    const location = `${path}:${index + 1}`;
    const content = raw.trim();
    if (content === '' || content.startsWith('#')) return;
    const header = /^\[\s*([\w-]+)(?:\s+"([^"]*)")?\s*\]$/.exec(content);
    const value = /^([\w.-]+)\s*=\s*"([^"]*)"$/.exec(content);
    if (header !== null) {
      flush();
      section = { group: header[1] ?? '', id: header[2], values: [], location };
    } else if (value === null) throw new LocatedError(location, new OptionError('parse error'));
    else if (section === undefined) throw new LocatedError(location, new OptionError('no group defined'));
    else section.values.push([value[1] ?? '', value[2] ?? '']);
  });
  flush();
}

function addSection(
  line: CommandLine,
  section: { group: string; id: string | undefined; values: [string, string][]; location: string },
): void {
  const { group, id, values, location } = section;
  located(location, () => {
    const spec = OPTIONS.get(group === 'smp-opts' ? 'smp' : group);
    if (spec?.keyval !== undefined) {
      const text = [...(id === undefined ? [] : [['id', id]]), ...values];
      const keyval = text.map(([key, value]) => `${key}=${value?.replaceAll(',', ',,')}`).join(',');
      addKeyval(line, { name: group === 'smp-opts' ? 'smp' : group, value: keyval, location }, true);
      return;
    }
    if (!isGroup(group)) throw new OptionError(`There is no option group '${group}'`);
    const base: (typeof GROUPS)[GroupName] = GROUPS[group];
    const merged = 'merge' in base ? line.groups.get(group)?.[0]?.opts : undefined;
    const opts = merged ?? new Opts(base, id);
    for (const [key, value] of values) opts.set(key, value);
    if (merged === undefined) line.addOpts(group, opts, location);
  });
}
