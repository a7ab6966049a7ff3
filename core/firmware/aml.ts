/**
 * ACPI Machine Language (ACPI 6.4 chapter 20): each function encodes one grammar term and returns its bytes, so that a
 * table reads like the ASL it stands for.
 *
 * Where a term is expected, a number or bigint is an integer constant and a string is a name (`'_SB.PCI0'`, `'^BSEL'`,
 * `'\\_GPE'`); a string constant is written `text('...')`.
 */
import { SouthbridgeError } from '../errors.ts';

/** The encoding of one term, or of several in a row. */
export type Aml = Uint8Array;

/** What stands where the grammar asks for a TermArg. */
export type Term = Aml | number | bigint | string;

/** The terms of a body: anything falsy is left out, so that a condition reads in place. */
export type Body = readonly (Term | Body | false | undefined)[];

const EXT = 0x5b;
const NULL_NAME = 0x00;
const DUAL_NAME = 0x2e;
const MULTI_NAME = 0x2f;

/** Bytes one after the other. */
export function concat(...parts: readonly (Uint8Array | readonly number[])[]): Aml {
  let length = 0;
  for (const part of parts) length += part.length;
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** `size` bytes of an integer, the lowest first. */
export function littleEndian(value: number | bigint, size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  let rest = BigInt(value);
  for (let at = 0; at < size; at++) {
    bytes[at] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  return bytes;
}

export const u8 = (value: number | bigint): Uint8Array => littleEndian(value, 1);
export const u16 = (value: number | bigint): Uint8Array => littleEndian(value, 2);
export const u32 = (value: number | bigint): Uint8Array => littleEndian(value, 4);
export const u64 = (value: number | bigint): Uint8Array => littleEndian(value, 8);

function encode(term: Term): Aml {
  if (typeof term === 'string') return nameString(term);
  if (typeof term === 'number' || typeof term === 'bigint') return integer(term);
  return term;
}

/** Every term of a body, in order. */
export function block(body: Body): Aml {
  const parts: Uint8Array[] = [];
  for (const term of body) {
    if (term === false || term === undefined) continue;
    parts.push(isBody(term) ? block(term) : encode(term));
  }
  return concat(...parts);
}

function isBody(term: Term | Body): term is Body {
  return Array.isArray(term);
}

// 20.2.2 Name Objects Encoding

function nameSeg(segment: string, name: string): Uint8Array {
  if (!/^[A-Z_][A-Z0-9_]{0,3}$/.test(segment)) {
    throw new SouthbridgeError('ERR_AML_NAME', `'${segment}' in '${name}' is not an ACPI name segment`);
  }
  return Buffer.from(segment.padEnd(4, '_'), 'latin1');
}

/** NameString: an optional root or parent prefix and segments of at most four characters. */
export function nameString(name: string): Aml {
  const prefix = /^(\\|\^*)/.exec(name)?.[0] ?? '';
  const path = name.slice(prefix.length);
  const root = Buffer.from(prefix, 'latin1');
  if (path === '') return concat(root, [NULL_NAME]);
  const segments = path.split('.').map(segment => nameSeg(segment, name));
  if (segments.length === 1) return concat(root, ...segments);
  if (segments.length === 2) return concat(root, [DUAL_NAME], ...segments);
  return concat(root, [MULTI_NAME, segments.length], ...segments);
}

// 20.2.3 Data Objects Encoding

/** The shortest constant that holds `value`: ZeroOp, OneOp, or a byte, word, dword or qword. */
export function integer(value: number | bigint): Aml {
  if (value < 0 || value > 0xffff_ffff_ffff_ffffn) {
    throw new SouthbridgeError('ERR_AML_INTEGER', `${value} is not an ACPI integer`);
  }
  if (value <= 1) return Uint8Array.of(Number(value));
  if (value <= 0xff) return concat([0x0a], u8(value));
  if (value <= 0xffff) return concat([0x0b], u16(value));
  if (value <= 0xffff_ffff) return dword(value);
  return concat([0x0e], u64(value));
}

/** DWordConst, even for a value that would fit a shorter one: for what is patched later. */
export function dword(value: number | bigint): Aml {
  return concat([0x0c], u32(value));
}

/** String: ASCII with its terminating zero. */
export function text(value: string): Aml {
  return concat([0x0d], Buffer.from(value, 'latin1'), [0]);
}

/** DefBuffer of exactly these bytes, or of `size` bytes that start with them. */
export function buffer(bytes: Uint8Array | readonly number[], size: number = bytes.length): Aml {
  return concat([0x11], packaged(concat(integer(size), bytes)));
}

/** A Buffer holding `value` in UTF-16, with its terminating zero (ASL Unicode). */
export function unicode(value: string): Aml {
  return buffer(Buffer.from(`${value}\0`, 'utf16le'));
}

/** DefPackage of `count` elements; those not given stay uninitialized. */
export function pkg(elements: Body, count: number = elements.length): Aml {
  return concat([0x12], packaged(concat([count], block(elements))));
}

/** DefVarPackage: the number of elements is itself a term. */
export function varPackage(elements: Body, count: Term = elements.length): Aml {
  return concat([0x13], packaged(concat(encode(count), block(elements))));
}

/** EisaId (19.3.4): seven characters such as `PNP0A03`, compressed into a dword. */
export function eisaId(id: string): Aml {
  if (!/^[A-Z@[\\\]^_]{3}[0-9A-F]{4}$/.test(id)) {
    throw new SouthbridgeError('ERR_AML_EISAID', `'${id}' is not an EISA id such as PNP0A03`);
  }
  const letter = (at: number): number => id.charCodeAt(at) - 0x40;
  const vendor = (letter(0) << 10) | (letter(1) << 5) | letter(2);
  const product = Number.parseInt(id.slice(3), 16);
  return concat([0x0c, vendor >>> 8, vendor & 0xff, product >>> 8, product & 0xff]);
}

/** ToUUID (19.6.142): the first three groups are stored little-endian. */
export function uuid(value: string): Aml {
  return buffer(uuidBytes(value));
}

/** The 16 bytes of a UUID as ACPI, EFI and SMBIOS store them: the first three groups little-endian. */
export function uuidBytes(value: string): Uint8Array {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(value)) {
    throw new SouthbridgeError('ERR_UUID', `'${value}' is not a UUID`);
  }
  const bytes = Buffer.from(value.replaceAll('-', ''), 'hex');
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  return bytes;
}

// 20.2.4 Package Length Encoding

function packageLength(length: number, inclusive: boolean): Uint8Array {
  const own = length + 1 < 0x40 ? 1 : length + 2 < 0x1000 ? 2 : length + 3 < 0x10_0000 ? 3 : 4;
  const value = inclusive ? length + own : length;
  if (value >= 2 ** 28) throw new SouthbridgeError('ERR_AML_LENGTH', `an AML package of ${value} bytes is too long`);
  if (own === 1) return Uint8Array.of(value);
  const bytes = new Uint8Array(own);
  bytes[0] = ((own - 1) << 6) | (value & 0xf);
  for (let at = 1; at < own; at++) bytes[at] = (value >>> (8 * at - 4)) & 0xff;
  return bytes;
}

function packaged(content: Uint8Array): Aml {
  return concat(packageLength(content.length, true), content);
}

// 20.2.5.1 Namespace Modifier Objects

export function name(path: string, value: Term): Aml {
  return concat([0x08], nameString(path), encode(value));
}

export function scope(path: string, body: Body): Aml {
  return concat([0x10], packaged(concat(nameString(path), block(body))));
}

export function alias(source: string, path: string): Aml {
  return concat([0x06], nameString(source), nameString(path));
}

// 20.2.5.2 Named Objects

export function device(path: string, body: Body): Aml {
  return concat([EXT, 0x82], packaged(concat(nameString(path), block(body))));
}

/** DefProcessor, deprecated since ACPI 6.0 in favour of Device, and all that ACPI 1.0 systems know. */
export function processor(path: string, id: number, pblk: number, pblkLength: number, body: Body): Aml {
  const content = concat(nameString(path), [id], u32(pblk), [pblkLength], block(body));
  return concat([EXT, 0x83], packaged(content));
}

export function method(path: string, args: number, body: Body, serialized?: 'serialized'): Aml {
  const flags = args | (serialized === undefined ? 0 : 1 << 3);
  return concat([0x14], packaged(concat(nameString(path), [flags], block(body))));
}

export function mutex(path: string, syncLevel = 0): Aml {
  return concat([EXT, 0x01], nameString(path), [syncLevel]);
}

const objectTypes = { unknown: 0, integer: 1, buffer: 3, package: 4, device: 6, method: 8 } as const;

export function external(path: string, type: keyof typeof objectTypes = 'unknown', args = 0): Aml {
  return concat([0x15], nameString(path), [objectTypes[type], args]);
}

const regionSpaces = { systemMemory: 0, systemIO: 1, pciConfig: 2, embeddedControl: 3, smbus: 4, cmos: 5 } as const;

export function region(path: string, space: keyof typeof regionSpaces, offset: Term, length: Term): Aml {
  return concat([EXT, 0x80], nameString(path), [regionSpaces[space]], encode(offset), encode(length));
}

const accessTypes = { any: 0, byte: 1, word: 2, dword: 3, qword: 4, buffer: 5 } as const;
const updateRules = { preserve: 0, writeAsOnes: 1, writeAsZeros: 2 } as const;

export interface FieldRules {
  readonly access: keyof typeof accessTypes;
  readonly update: keyof typeof updateRules;
  readonly lock?: true;
}

/** DefField. The units are `[name, bits]`; a name of '' skips that many bits. */
export function field(regionPath: string, rules: FieldRules, units: readonly (readonly [string, number])[]): Aml {
  const flags = accessTypes[rules.access] | (rules.lock === true ? 1 << 4 : 0) | (updateRules[rules.update] << 5);
  const list = units.map(([unit, bits]) =>
    concat(unit === '' ? [0x00] : nameSeg(unit, unit), packageLength(bits, false)),
  );
  return concat([EXT, 0x81], packaged(concat(nameString(regionPath), [flags], ...list)));
}

export function createDwordField(source: Term, byteIndex: Term, path: string): Aml {
  return concat([0x8a], encode(source), encode(byteIndex), nameString(path));
}

export function createQwordField(source: Term, byteIndex: Term, path: string): Aml {
  return concat([0x8f], encode(source), encode(byteIndex), nameString(path));
}

export function createField(source: Term, bitIndex: Term, bits: Term, path: string): Aml {
  return concat([EXT, 0x13], encode(source), encode(bitIndex), encode(bits), nameString(path));
}

// 20.2.5.3 Statement Opcodes

export function when(predicate: Term, body: Body): Aml {
  return concat([0xa0], packaged(concat(encode(predicate), block(body))));
}

export function otherwise(body: Body): Aml {
  return concat([0xa1], packaged(block(body)));
}

export function whileLoop(predicate: Term, body: Body): Aml {
  return concat([0xa2], packaged(concat(encode(predicate), block(body))));
}

export const breakLoop: Aml = Uint8Array.of(0xa5);

export function ret(value: Term): Aml {
  return concat([0xa4], encode(value));
}

export function notify(target: Term, value: Term): Aml {
  return concat([0x86], encode(target), encode(value));
}

export function release(mutexPath: string): Aml {
  return concat([EXT, 0x27], nameString(mutexPath));
}

export function sleep(milliseconds: Term): Aml {
  return concat([EXT, 0x22], encode(milliseconds));
}

// 20.2.5.4 Expression Opcodes

const NO_TARGET: Aml = Uint8Array.of(NULL_NAME);

/** `timeout` in milliseconds; 0xffff waits for ever. */
export function acquire(mutexPath: string, timeout = 0xffff): Aml {
  return concat([EXT, 0x23], nameString(mutexPath), u16(timeout));
}

/** Invocation of a control method. */
export function call(path: string, ...args: readonly Term[]): Aml {
  return concat(nameString(path), block(args));
}

export function store(source: Term, target: Term): Aml {
  return concat([0x70], encode(source), encode(target));
}

export function increment(target: Term): Aml {
  return concat([0x75], encode(target));
}

export function derefOf(reference: Term): Aml {
  return concat([0x83], encode(reference));
}

export function sizeOf(object: Term): Aml {
  return concat([0x87], encode(object));
}

export function index(source: Term, at: Term): Aml {
  return concat([0x88], encode(source), encode(at), NO_TARGET);
}

export function objectType(object: Term): Aml {
  return concat([0x8e], encode(object));
}

function unary(opcode: number): (operand: Term, target?: Term) => Aml {
  return (operand, target = NO_TARGET) => concat([opcode], encode(operand), encode(target));
}

export const toBuffer = unary(0x96);
export const toHexString = unary(0x98);
export const toInteger = unary(0x99);

function binary(opcode: number): (left: Term, right: Term, target?: Term) => Aml {
  return (left, right, target = NO_TARGET) => concat([opcode], encode(left), encode(right), encode(target));
}

export const add = binary(0x72);
export const concatenate = binary(0x73);
export const subtract = binary(0x74);
export const shiftLeft = binary(0x79);
export const shiftRight = binary(0x7a);
export const and = binary(0x7b);
export const or = binary(0x7d);

function comparison(opcode: number): (left: Term, right: Term) => Aml {
  return (left, right) => concat([opcode], encode(left), encode(right));
}

export const lAnd = comparison(0x90);
export const lOr = comparison(0x91);
export const lEqual = comparison(0x93);
export const lGreater = comparison(0x94);
export const lLess = comparison(0x95);

export function lNot(operand: Term): Aml {
  return concat([0x92], encode(operand));
}

/** LGreaterEqual is LNot of LLess (20.2.5.4). */
export function lGreaterEqual(left: Term, right: Term): Aml {
  return lNot(lLess(left, right));
}

// 20.2.6 Miscellaneous Objects

export const debug: Aml = Uint8Array.of(EXT, 0x31);

/** Arg0 to Arg6. */
export function arg(position: 0 | 1 | 2 | 3 | 4 | 5 | 6): Aml {
  return Uint8Array.of(0x68 + position);
}

/** Local0 to Local7. */
export function local(position: 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7): Aml {
  return Uint8Array.of(0x60 + position);
}
