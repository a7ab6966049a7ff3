import { codePointAt, isCharacter } from './utf8.ts';
import { fromInteger, type Json, JsonFloat } from './value.ts';

/** The kinds of JSON tokens. */
export const Token = {
  LCURLY: 1,
  RCURLY: 2,
  LSQUARE: 3,
  RSQUARE: 4,
  COLON: 5,
  COMMA: 6,
  INTEGER: 7,
  FLOAT: 8,
  KEYWORD: 9,
  STRING: 10,
} as const;
export type TokenKind = (typeof Token)[keyof typeof Token];

/** A JSON text that does not parse; the message is QEMU's. */
export class JsonSyntaxError extends Error {
  override readonly name = 'JsonSyntaxError';
}

/** The tokens of one JSON value; `texts` holds the bytes of numbers, keywords and strings with their quotes. */
export interface Tokens {
  readonly kinds: TokenKind[];
  readonly texts: (Buffer | undefined)[];
}

/** Parses the tokens of one value, which the caller has limited in number and nesting. Throws {@link JsonSyntaxError}. */
export function parseTokens(tokens: Tokens): Json {
  return new TokenParser(tokens).value();
}

const DIGITS = /^[0-9a-fA-F]{4}$/;
const ESCAPES: ReadonlyMap<string, string> = new Map([
  ['"', '"'],
  ["'", "'"],
  ['\\', '\\'],
  ['/', '/'],
  ['b', '\b'],
  ['f', '\f'],
  ['n', '\n'],
  ['r', '\r'],
  ['t', '\t'],
]);

class TokenParser {
  readonly #tokens: Tokens;
  #at = 0;

  constructor(tokens: Tokens) {
    this.#tokens = tokens;
  }

  value(): Json {
    const kind = this.#tokens.kinds[this.#at];
    const text = this.#tokens.texts[this.#at];
    switch (kind) {
      case undefined:
        return fail('premature EOI');
      case Token.LCURLY:
        return this.#object();
      case Token.LSQUARE:
        return this.#array();
      case Token.INTEGER:
        this.#at++;
        return integer(text?.toString('latin1') ?? '');
      case Token.FLOAT:
        this.#at++;
        return float(text?.toString('latin1') ?? '');
      case Token.KEYWORD:
        this.#at++;
        return keyword(text?.toString('latin1') ?? '');
      case Token.STRING:
        this.#at++;
        return text === undefined ? '' : unquote(text);
      default:
        return fail('expecting value');
    }
  }

  #next(): TokenKind {
    return this.#tokens.kinds[this.#at++] ?? fail('premature EOI');
  }

  #object(): Json {
    this.#at++;
    const object: Record<string, Json> = Object.create(null);
    if (this.#tokens.kinds[this.#at] === Token.RCURLY) {
      this.#at++;
      return object;
    }
    for (;;) {
      const key = this.value();
      if (typeof key !== 'string') return fail('key is not a string in object');
      if (this.#next() !== Token.COLON) return fail('missing : in object pair');
      const value = this.value();
      if (key in object) return fail('duplicate key');
      object[key] = value;
      const separator = this.#next();
      if (separator === Token.RCURLY) return object;
      if (separator !== Token.COMMA) return fail('expected separator in dict');
    }
  }

  #array(): Json {
    this.#at++;
    const array: Json[] = [];
    if (this.#tokens.kinds[this.#at] === Token.RSQUARE) {
      this.#at++;
      return array;
    }
    for (;;) {
      array.push(this.value());
      const separator = this.#next();
      if (separator === Token.RSQUARE) return array;
      if (separator !== Token.COMMA) return fail('expected separator in list');
    }
  }
}

/** QEMU's messages end here, whatever a client sent. */
const MAX_MESSAGE = 1023;

function fail(message: string): never {
  throw new JsonSyntaxError(`JSON parse error, ${message.slice(0, MAX_MESSAGE)}`);
}

/** int64 where it fits, else uint64, else a double, as QEMU keeps numbers. */
function integer(text: string): Json {
  const narrow = Number(text);
  if (Number.isSafeInteger(narrow)) return narrow === 0 ? 0 : narrow;
  if (text.length > 21) return new JsonFloat(narrow);
  const wide = BigInt(text);
  return wide >= -(2n ** 63n) && wide < 2n ** 64n ? fromInteger(wide) : new JsonFloat(narrow);
}

function float(text: string): Json {
  const value = Number(text);
  return Number.isInteger(value) ? new JsonFloat(value) : value;
}

function keyword(text: string): Json {
  if (text === 'true') return true;
  if (text === 'false') return false;
  if (text === 'null') return null;
  return fail(`invalid keyword '${text}'`);
}

/** The text between the quotes: plain ASCII at once, anything else checked and decoded piece by piece. */
function unquote(token: Buffer): string {
  const end = token.length - 1;
  let plain = true;
  for (let at = 1; at < end && plain; at++) {
    const byte = token[at] ?? 0;
    plain = byte < 0x80 && byte !== 0x5c;
  }
  return plain ? token.toString('latin1', 1, end) : decode(token, end);
}

function decode(token: Buffer, end: number): string {
  const pieces: string[] = [];
  let at = 1;
  while (at < end) {
    if (token[at] === 0x5c) {
      const letter = String.fromCharCode(token[at + 1] ?? 0);
      if (letter === 'u') {
        const { text, length } = unicodeEscape(token, at, end);
        pieces.push(text);
        at += length;
      } else {
        pieces.push(ESCAPES.get(letter) ?? fail('invalid escape sequence in string'));
        at += 2;
      }
      continue;
    }
    const { codePoint, length } = codePointAt(token, at, end);
    if (codePoint < 0) return fail('invalid UTF-8 sequence in string');
    pieces.push(String.fromCodePoint(codePoint));
    at += length;
  }
  return pieces.join('');
}

/** `\uXXXX` or a surrogate pair of them (RFC 8259, section 7). */
function unicodeEscape(token: Buffer, at: number, end: number): { text: string; length: number } {
  const first = hex4(token, at + 2, end);
  let codePoint = first;
  let length = 6;
  if (first >= 0xd800 && first <= 0xdbff && token[at + 6] === 0x5c && token[at + 7] === 0x75) {
    const second = hex4(token, at + 8, end);
    const paired = second >= 0xdc00 && second <= 0xdfff;
    codePoint = paired ? 0x1_0000 + ((first & 0x3ff) << 10) + (second & 0x3ff) : -1;
    if (paired) length = 12;
  }
  if (!isCharacter(codePoint)) {
    return fail(
      `${token.toString('latin1', at, Math.min(at + length, token.length))} is not a valid Unicode character`,
    );
  }
  return { text: String.fromCodePoint(codePoint), length };
}

function hex4(token: Buffer, at: number, end: number): number {
  const text = token.toString('latin1', at, Math.min(at + 4, end));
  return DIGITS.test(text) ? Number.parseInt(text, 16) : -1;
}
