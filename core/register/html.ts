import { describeMap, type FieldInfo, type RegisterInfo } from './introspect.ts';
import type { RegisterMap } from './map.ts';

const STYLE = `body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0 }
th, td { border: 1px solid #999; padding: .2em .6em; text-align: left; vertical-align: top }
code { font-family: monospace }
.bits td { text-align: center; font-size: 12px }
.reserved { color: #888 }`;

/** The reference of register maps as one page of HTML that needs nothing else: tables, and each register's bits as a picture. */
export function htmlReference(maps: readonly RegisterMap[], title: string): string {
  const body = maps.map(section).join('\n');
  return `<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>${text(title)}</title>\n<style>${STYLE}</style>\n</head>\n<body>\n<h1>${text(title)}</h1>\n${body}\n</body>\n</html>\n`;
}

function section(map: RegisterMap): string {
  const registers = describeMap(map);
  const rows = registers.map(register => [
    offset(register),
    `<a href="#${anchor(map, register)}">${code(register.name)}</a>`,
    String(register.width),
    code(register.access),
    code(hex(register.reset)),
    text(
      [register.doc, register.when && `while ${register.when}`, register.sticky && 'survives resets']
        .filter(Boolean)
        .join('; '),
    ),
  ]);
  const overview = table(['Offset', 'Register', 'Bits', 'Access', 'Reset', 'Description'], rows);
  return `<h2>${text(map.name)}</h2>\n${overview}\n${registers.map(register => detail(map, register)).join('\n')}`;
}

function detail(map: RegisterMap, register: RegisterInfo): string {
  const head = `<h3 id="${anchor(map, register)}">${text(register.name)}</h3>`;
  if (register.fields.length === 0) return head;
  const rows = register.fields.map(field => [
    bitsOf(field),
    code(field.name),
    code(field.access),
    text([field.doc, choices(field), field.implemented ? '' : 'not implemented'].filter(Boolean).join('; ')),
  ]);
  return `${head}\n${picture(register)}\n${table(['Bits', 'Field', 'Access', 'Description'], rows)}`;
}

/** The register from its highest bit to bit 0: each field as wide as it has bits. */
function picture({ fields, width }: RegisterInfo): string {
  const cells: string[] = [];
  let next: number = width;
  const reserved = (count: number): void => {
    if (count > 0) cells.push(`<td class="reserved" colspan="${count}">reserved</td>`);
  };
  for (const field of [...fields].reverse()) {
    reserved(next - field.low - field.width);
    cells.push(`<td colspan="${field.width}">${text(field.name)}<br>${bitsOf(field)}</td>`);
    next = field.low;
  }
  reserved(next);
  return `<table class="bits"><tr>${cells.join('')}</tr></table>`;
}

const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  `<table>\n<tr>${head.map(cell => `<th>${cell}</th>`).join('')}</tr>\n${rows
    .map(row => `<tr>${row.map(cell => `<td>${cell}</td>`).join('')}</tr>`)
    .join('\n')}\n</table>`;

const anchor = (map: RegisterMap, { name }: RegisterInfo): string => `${map.name}-${name}`.replace(/[^\w-]/g, '-');
const bitsOf = ({ low, width }: FieldInfo): string => (width === 1 ? String(low) : `${low + width - 1}:${low}`);
const choices = ({ choices: named }: FieldInfo): string =>
  Object.entries(named)
    .map(([name, value]) => `${value} ${name}`)
    .join(', ');
const offset = ({ offset: at, count, stride }: RegisterInfo): string =>
  count === undefined ? code(hex(at)) : `${code(hex(at))} + ${stride}·i, i &lt; ${count}`;
const code = (value: string): string => `<code>${text(value)}</code>`;
const hex = (value: number | bigint): string => `0x${value.toString(16)}`;
const text = (value: string): string =>
  value.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
