import { inOrder } from './member-order.ts';
import { type Json, JsonFloat } from './value.ts';

/** Members whose value is undefined are left out, so that replies can be built from optional parts. */
export type Writable =
  | null
  | boolean
  | number
  | bigint
  | string
  | JsonFloat
  | readonly Writable[]
  | { readonly [name: string]: Writable | undefined };

/** JSON in QEMU's form: `, ` and `: ` between, ASCII only; with `pretty`, four spaces a level. */
export function writeJson(value: Writable | Json, pretty = false): string {
  return pretty ? prettyText(value, '\n') : text(value);
}

const SPECIAL = /["\\]|[^ -~]/g;
const SHORT: Readonly<Record<string, string>> = {
  '"': '\\"',
  '\\': '\\\\',
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
};

function quote(value: string): string {
  const escaped = value.replace(
    SPECIAL,
    unit => SHORT[unit] ?? `\\u${unit.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0')}`,
  );
  return `"${escaped}"`;
}

/** A double with the 17 digits that QEMU prints, and never as an integer. */
function float(value: number): string {
  const digits = String(value);
  return Number.isInteger(value) && !digits.includes('e') ? `${digits}.0` : digits;
}

function scalar(value: Writable): string | undefined {
  if (typeof value === 'string') return quote(value);
  if (value === null || typeof value === 'boolean' || typeof value === 'number' || typeof value === 'bigint') {
    return String(value);
  }
  return value instanceof JsonFloat ? float(value.value) : undefined;
}

function text(value: Writable): string {
  const simple = scalar(value);
  if (simple !== undefined) return simple;
  if (Array.isArray(value)) return `[${value.map(text).join(', ')}]`;
  const members: string[] = [];
  for (const [name, member] of inOrder(Object.entries(value as Readonly<Record<string, Writable | undefined>>))) {
    if (member !== undefined) members.push(`${quote(name)}: ${text(member)}`);
  }
  return `{${members.join(', ')}}`;
}

function prettyText(value: Writable, indent: string): string {
  const simple = scalar(value);
  if (simple !== undefined) return simple;
  const inner = `${indent}    `;
  if (Array.isArray(value)) {
    return value.length === 0
      ? `[${indent}]`
      : `[${inner}${value.map(item => prettyText(item, inner)).join(`,${inner}`)}${indent}]`;
  }
  const members: string[] = [];
  for (const [name, member] of inOrder(Object.entries(value as Readonly<Record<string, Writable | undefined>>))) {
    if (member !== undefined) members.push(`${quote(name)}: ${prettyText(member, inner)}`);
  }
  return members.length === 0 ? `{${indent}}` : `{${inner}${members.join(`,${inner}`)}${indent}}`;
}
