import type { AnyCommand, AnyEvent } from './introspect.ts';
import type { AnyType, ObjectType } from './types.ts';

type Described = Readonly<Record<string, unknown>>;

/** The reference of the monitor's commands, events and types, in Markdown: generated, so that it cannot be out of date. */
export function qmpReference(
  commands: Readonly<Record<string, AnyCommand>>,
  events: Readonly<Record<string, AnyEvent>>,
): string {
  const types = new Map<string, AnyType>();
  const pending: AnyType[] = [];
  const link = (type: AnyType): string => {
    if (type.meta === 'builtin') return `\`${type.name}\``;
    if (type.meta === 'array' && 'element' in type) return `list of ${link(type.element as AnyType)}`;
    if (!types.has(type.name)) {
      types.set(type.name, type);
      pending.push(type);
    }
    return `[${type.name}](#${anchor(type.name)})`;
  };
  const sections: string[] = [
    '# QMP reference',
    '',
    'Generated from `core/control/qapi/schema`. Members in brackets may be left out.',
    '',
    '## Commands',
    '',
  ];
  for (const [name, command] of Object.entries(commands)) {
    sections.push(`### ${name}`, '', `${command.summary}.`, '');
    sections.push(...table(command.args, link));
    if (command.returns.name !== 'q_empty') sections.push(`Returns ${link(command.returns)}.`, '');
    const notes = [
      ...(command.oob ? ['may be executed out of band'] : []),
      ...(command.preconfig ? ['may be executed before the machine is built'] : []),
      ...command.features,
    ];
    if (notes.length > 0) sections.push(`Notes: ${notes.join(', ')}.`, '');
  }
  sections.push('## Events', '');
  for (const [name, event] of Object.entries(events)) sections.push(`### ${name}`, '', ...table(event.data, link));
  sections.push('## Types', '');
  for (let type = pending.shift(); type !== undefined; type = pending.shift())
    sections.push(`### ${type.name}`, '', ...describe(type, link));
  return `${sections.join('\n').trimEnd()}\n`;
}

const anchor = (name: string): string => name.toLowerCase();

function table(type: ObjectType<unknown>, link: (type: AnyType) => string): string[] {
  const rows: string[] = [];
  const shown = new Map<string, AnyType>();
  const use = (member: AnyType): string => {
    const key = `@${shown.size}`;
    shown.set(key, member);
    return key;
  };
  const row = (entry: Described): string => {
    const member = shown.get(String(entry['type']));
    const name = 'default' in entry ? `[\`${String(entry['name'])}\`]` : `\`${String(entry['name'])}\``;
    return `| ${name} | ${member === undefined ? '' : link(member)} |`;
  };
  for (const entry of type.describeMembers(use)) rows.push(row(entry as Described));
  const variants = type.describeVariants(use);
  const lines = rows.length === 0 ? [] : ['| member | type |', '|---|---|', ...rows, ''];
  if (variants === undefined) return lines;
  const cases = variants.variants.flatMap(entry => {
    const { case: name, type: key } = entry as { readonly case: string; readonly type: string };
    const member = shown.get(key);
    return member === undefined || member.name === 'q_empty'
      ? []
      : [`- \`${variants.tag}\` = \`${name}\`: the members of ${link(member)}`];
  });
  return [...lines, ...cases, ...(cases.length > 0 ? [''] : [])];
}

function describe(type: AnyType, link: (type: AnyType) => string): string[] {
  if (type.meta === 'enum' && 'values' in type)
    return [`One of ${(type.values as readonly string[]).map(value => `\`${value}\``).join(', ')}.`, ''];
  if (type.meta === 'object') return table(type as ObjectType<unknown>, link);
  const members: AnyType[] = [];
  type.describe(member => {
    members.push(member);
    return '';
  });
  return [`One of these, told apart by its JSON type: ${members.map(link).join(', ')}.`, ''];
}
