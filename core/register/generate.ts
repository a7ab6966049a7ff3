import { describeMap, type FieldInfo, type RegisterInfo } from './introspect.ts';
import type { RegisterMap } from './map.ts';

/** The reference tables of a map, in Markdown: the registers, then the fields of each register that has some. */
export function markdownReference(map: RegisterMap): string {
  const registers = describeMap(map);
  const rows = registers.map(register => [
    offsetText(register),
    code(register.name),
    String(register.width),
    code(register.access),
    code(hex(register.reset)),
    [register.doc, register.when && `while ${code(register.when)}`, register.sticky && 'survives resets']
      .filter(Boolean)
      .join('; '),
  ]);
  const table = markdownTable(['Offset', 'Register', 'Bits', 'Access', 'Reset', 'Description'], rows);
  return [`## ${map.name}`, table, ...registers.filter(({ fields }) => fields.length > 0).map(fieldTable)].join('\n\n');
}

function fieldTable(register: RegisterInfo): string {
  const rows = register.fields.map(field => [
    field.width === 1 ? String(field.low) : `${field.low + field.width - 1}:${field.low}`,
    code(field.name),
    code(field.access),
    [
      field.doc,
      Object.entries(field.choices)
        .map(([name, value]) => `${value} ${code(name)}`)
        .join(', '),
      field.implemented ? '' : 'not implemented',
    ]
      .filter(Boolean)
      .join('; '),
  ]);
  return `### ${register.name}\n\n${markdownTable(['Bits', 'Field', 'Access', 'Description'], rows)}`;
}

function offsetText({ offset, count, stride }: RegisterInfo): string {
  return count === undefined ? code(hex(offset)) : `${code(hex(offset))} + ${stride}·i, i < ${count}`;
}

function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map(cell => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

const code = (text: string): string => `\`${text}\``;

/**
 * A C header for authors of drivers. Of a register, `MAP_REGISTER` is the offset, of an array with the index as parameter; of a
 * field, `MAP_REGISTER_FIELD` are its bits in place, with `_SHIFT` where it has several, and its named values, in place too.
 */
export function cHeader(map: RegisterMap): string {
  const prefix = leading(constantName(map.name));
  const names = new Names();
  const registers = describeMap(map);
  // Offsets first, so that they keep their names where a field of another register would have the same.
  const offsets = registers.map(register => {
    const name = names.take(`${prefix}_${constantName(register.name)}`);
    const { count, offset, stride } = register;
    const what = count === undefined ? `${name} ${hex(offset)}` : `${name}(i) (${hex(offset)} + (i) * ${hex(stride)})`;
    return `#define ${what} /* ${summary(register)} */`;
  });
  const fields = registers.flatMap(register => {
    const owner = `${prefix}_${constantName(register.name)}`;
    const suffix = register.width === 64 ? 'ull' : 'u';
    return register.fields.flatMap(field => {
      const name = names.take(`${owner}_${constantName(field.name)}`, `${owner}__${constantName(field.name)}`);
      const lines = [`#define ${name} ${hex(inPlace(field, ones(field)))}${suffix} /* ${fieldSummary(field)} */`];
      if (field.width > 1) lines.push(`#define ${names.take(`${name}_SHIFT`, `${name}__SHIFT`)} ${field.low}`);
      for (const [choice, value] of Object.entries(field.choices)) {
        const choiceName = names.take(`${name}_${constantName(choice)}`, `${name}__${constantName(choice)}`);
        lines.push(`#define ${choiceName} ${hex(inPlace(field, value))}${suffix}`);
      }
      return lines;
    });
  });
  const guard = `${prefix}_REGISTERS_H`;
  return [
    `/* Registers of ${comment(map.name)}: generated from its register map. */`,
    `#ifndef ${guard}`,
    `#define ${guard}`,
    '',
    ...offsets,
    '',
    ...fields,
    '',
    '#endif',
    '',
  ].join('\n');
}

/** Rust constants for authors of drivers: offsets, and a module with the fields of each register that has some. */
export function rustConstants(map: RegisterMap): string {
  const registers = describeMap(map);
  const offsets = registers.map(register => {
    const { count, offset, stride } = register;
    const name = leading(constantName(register.name));
    const doc = `/// ${comment(summary(register))}`;
    if (count === undefined) return `${doc}\npub const ${name}: usize = ${hex(offset)};`;
    return `${doc}\npub const fn ${rustName(name)}(index: usize) -> usize {\n    ${hex(offset)} + index * ${hex(stride)}\n}`;
  });
  const modules = registers.filter(({ fields }) => fields.length > 0).map(rustModule);
  return [
    `//! Registers of ${comment(map.name)}: generated from its register map.`,
    '',
    ...offsets,
    ...modules,
    '',
  ].join('\n');
}

function rustModule(register: RegisterInfo): string {
  const type = `u${register.width}`;
  const names = new Names();
  const lines = register.fields.flatMap(field => {
    const name = names.take(leading(constantName(field.name)));
    const constants = [
      `    /// ${comment(fieldSummary(field))}`,
      `    pub const ${name}: ${type} = ${hex(inPlace(field, ones(field)))};`,
    ];
    if (field.width > 1) constants.push(`    pub const ${names.take(`${name}_SHIFT`)}: u32 = ${field.low};`);
    for (const [choice, value] of Object.entries(field.choices)) {
      constants.push(
        `    pub const ${names.take(`${name}_${constantName(choice)}`)}: ${type} = ${hex(inPlace(field, value))};`,
      );
    }
    return constants;
  });
  return `\npub mod ${rustName(leading(constantName(register.name)))} {\n${lines.join('\n')}\n}`;
}

/** Hands out each name once. */
class Names {
  readonly #taken = new Set<string>();

  /** `name`, or else `instead`, or else that with underscores until it is free. */
  take(name: string, instead = `${name}_`): string {
    let free = this.#taken.has(name) ? instead : name;
    while (this.#taken.has(free)) free += '_';
    this.#taken.add(free);
    return free;
  }
}

const RUST_KEYWORDS = new Set(
  'as async await box break const continue do dyn else enum extern false final fn for if impl in let loop macro match mod move mut override priv pub ref return static struct trait true try type typeof unsafe unsized use virtual where while yield abstract become'.split(
    ' ',
  ),
);

function rustName(constant: string): string {
  const name = constant.toLowerCase();
  // `self`, `super` and `crate` cannot be raw identifiers.
  if (['self', 'super', 'crate'].includes(name)) return `${name}_`;
  return RUST_KEYWORDS.has(name) ? `r#${name}` : name;
}

/** `ich9-ahci` and `toRam` as the name of a constant: `ICH9_AHCI`, `TO_RAM`. */
function constantName(name: string): string {
  return name
    .replace(/([a-z0-9])([A-Z])/g, '$1_$2')
    .replace(/\W/g, '_')
    .toUpperCase();
}

/** Names do not begin with digits. */
function leading(name: string): string {
  return /^\d/.test(name) ? `_${name}` : name;
}

function summary({ width, access, reset, when, doc, count }: RegisterInfo): string {
  const facts = [`${count === undefined ? '' : `${count} of `}${width} bits`, access, `reset ${hex(reset)}`];
  if (when !== '') facts.push(`while ${when}`);
  return comment(`${facts.join(', ')}${doc === '' ? '' : `: ${doc}`}`);
}

function fieldSummary({ access, doc, implemented }: FieldInfo): string {
  return comment(`${access}${implemented ? '' : ', not implemented'}${doc === '' ? '' : `: ${doc}`}`);
}

/** On one line, and not ending a comment. */
function comment(text: string): string {
  return text.replace(/\s+/g, ' ').replaceAll('*/', '* /');
}

function ones({ width }: FieldInfo): number {
  return 2 ** width - 1;
}

function inPlace({ low }: FieldInfo, value: number): bigint {
  return BigInt(value) << BigInt(low);
}

function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`;
}
