import { JsonSyntaxError, parseTokens, Token, type TokenKind, type Tokens } from './parser.ts';
import type { Json } from './value.ts';

/** QEMU's limits on one value: bytes of its tokens, their number, and nesting. */
export const MAX_TOKEN_BYTES = 64 * 2 ** 20;
export const MAX_TOKENS = 2 * 2 ** 20;
export const MAX_NESTING = 1024;
/** How much of a wrong token an error repeats, in bytes. */
const MAX_STRAY = 4096;

/** Receives each value, or the error in its place, in the order of the text. */
export interface JsonSink {
  value(value: Json): void;
  error(error: JsonSyntaxError): void;
}

const State = {
  START: 0,
  RECOVERY: 1,
  STRING: 2,
  ESCAPE: 3,
  ZERO: 4,
  DIGITS: 5,
  SIGN: 6,
  POINT: 7,
  FRACTION: 8,
  EXPONENT: 9,
  EXPONENT_SIGN: 10,
  EXPONENT_DIGITS: 11,
  KEYWORD: 12,
} as const;
type StateKind = (typeof State)[keyof typeof State];

const STRUCTURE: ReadonlyMap<number, TokenKind> = new Map([
  [0x7b, Token.LCURLY],
  [0x7d, Token.RCURLY],
  [0x5b, Token.LSQUARE],
  [0x5d, Token.RSQUARE],
  [0x3a, Token.COLON],
  [0x2c, Token.COMMA],
]);

const isDigit = (byte: number): boolean => byte >= 0x30 && byte <= 0x39;
const isLower = (byte: number): boolean => byte >= 0x61 && byte <= 0x7a;
const isSpace = (byte: number): boolean => byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;

/**
 * JSON values out of a stream of bytes, however it is cut. Beyond RFC 8259 it takes single-quoted strings, as QMP does.
 * After an error it picks up again at the next structural character, control character, or byte FE or FF.
 */
export class JsonStream {
  readonly #sink: JsonSink;
  #state: StateKind = State.START;
  /** Bytes of the present token that earlier chunks held. */
  #carried: Buffer[] = [];
  #carriedBytes = 0;
  #quote = 0;
  #tokens: Tokens = { kinds: [], texts: [] };
  #tokenBytes = 0;
  #braces = 0;
  #brackets = 0;

  constructor(sink: JsonSink) {
    this.#sink = sink;
  }

  /** Forgets an unfinished value: the peer has gone. */
  reset(): void {
    this.#state = State.START;
    this.#dropToken();
    this.#clear();
  }

  /** The stream has ended: what is unfinished is an error, except nothing at all. */
  end(): void {
    if (this.#state !== State.START) this.feed(Buffer.from([this.#state === State.RECOVERY ? 0x0a : 0x20]));
    if (this.#state !== State.START) this.#stray(Buffer.alloc(0), 0, 0);
    if (this.#tokens.kinds.length > 0) this.#emit();
    this.reset();
  }

  /** The chunk's bytes must stay as they are until the value that they belong to is complete. */
  feed(chunk: Buffer): void {
    let start = 0;
    let at = 0;
    while (at < chunk.length) {
      const byte = chunk[at] ?? 0;
      switch (this.#state) {
        case State.START: {
          start = at++;
          if (isSpace(byte)) break;
          const structure = STRUCTURE.get(byte);
          if (structure !== undefined) this.#token(structure, undefined, 1);
          else if (!this.#begin(byte)) this.#stray(chunk, start, at);
          break;
        }
        case State.RECOVERY:
          if ((byte < 0x20 && byte !== 0x09) || byte >= 0xfe || STRUCTURE.has(byte)) this.#state = State.START;
          else at++;
          break;
        case State.STRING:
          at = this.#string(chunk, start, at);
          break;
        case State.ESCAPE:
          at++;
          if (byte >= 0x20 && byte <= 0xfd) this.#state = State.STRING;
          else this.#stray(chunk, start, at);
          break;
        default:
          at = this.#word(chunk, start, at, byte);
      }
    }
    if (this.#state > State.RECOVERY) this.#carry(chunk, start);
  }

  #begin(byte: number): boolean {
    if (byte === 0x22 || byte === 0x27) {
      this.#quote = byte;
      this.#state = State.STRING;
    } else if (byte === 0x30) this.#state = State.ZERO;
    else if (isDigit(byte)) this.#state = State.DIGITS;
    else if (byte === 0x2d) this.#state = State.SIGN;
    else if (isLower(byte)) this.#state = State.KEYWORD;
    else return false;
    return true;
  }

  /** Inside a string: up to its end, a backslash, a byte that cannot be, or the end of the chunk. */
  #string(chunk: Buffer, start: number, at: number): number {
    while (at < chunk.length) {
      const byte = chunk[at++] ?? 0;
      if (byte === this.#quote) {
        this.#finish(Token.STRING, chunk, start, at);
        return at;
      }
      if (byte === 0x5c) {
        this.#state = State.ESCAPE;
        return at;
      }
      if (byte < 0x20 || byte > 0xfd) {
        this.#stray(chunk, start, at);
        return at;
      }
    }
    return at;
  }

  /** Inside a number or keyword; its end is only seen by the byte behind it, which is not consumed. */
  #word(chunk: Buffer, start: number, at: number, byte: number): number {
    const next = nextState(this.#state, byte);
    if (typeof next === 'number') {
      this.#state = next;
      return at + 1;
    }
    if (next === undefined) {
      this.#stray(chunk, start, at + 1);
      return at + 1;
    }
    this.#finish(next.token, chunk, start, at);
    return at;
  }

  #finish(kind: TokenKind, chunk: Buffer, start: number, end: number): void {
    const text = this.#text(chunk, start, end);
    this.#dropToken();
    this.#state = State.START;
    this.#token(kind, text, text.length);
  }

  #text(chunk: Buffer, start: number, end: number): Buffer {
    const here = chunk.subarray(this.#carriedBytes > 0 ? 0 : start, end);
    return this.#carriedBytes > 0 ? Buffer.concat([...this.#carried, here]) : here;
  }

  #carry(chunk: Buffer, start: number): void {
    const rest = chunk.subarray(this.#carriedBytes > 0 ? 0 : start);
    this.#carried.push(Buffer.from(rest));
    this.#carriedBytes += rest.length;
    if (this.#carriedBytes > MAX_TOKEN_BYTES) {
      this.#dropToken();
      this.#state = State.START;
      this.#abandon(new JsonSyntaxError('JSON token size limit exceeded'));
    }
  }

  #dropToken(): void {
    this.#carried = [];
    this.#carriedBytes = 0;
  }

  #stray(chunk: Buffer, start: number, end: number): void {
    const text = this.#text(chunk, start, end).toString('latin1', 0, MAX_STRAY);
    this.#dropToken();
    this.#state = State.RECOVERY;
    const terminator = text.indexOf('\0');
    this.#abandon(
      new JsonSyntaxError(`JSON parse error, stray '${terminator < 0 ? text : text.slice(0, terminator)}'`),
    );
  }

  #token(kind: TokenKind, text: Buffer | undefined, length: number): void {
    if (kind === Token.LCURLY) this.#braces++;
    else if (kind === Token.RCURLY) this.#braces--;
    else if (kind === Token.LSQUARE) this.#brackets++;
    else if (kind === Token.RSQUARE) this.#brackets--;
    const limit = this.#exceeded(length);
    if (limit !== undefined) {
      this.#abandon(new JsonSyntaxError(`JSON ${limit} limit exceeded`));
      return;
    }
    this.#tokenBytes += length;
    this.#tokens.kinds.push(kind);
    this.#tokens.texts.push(text);
    const open = (this.#braces > 0 || this.#brackets > 0) && this.#braces >= 0 && this.#brackets >= 0;
    if (!open) this.#emit();
  }

  #exceeded(length: number): string | undefined {
    if (this.#tokenBytes + length + 1 > MAX_TOKEN_BYTES) return 'token size';
    if (this.#tokens.kinds.length + 1 > MAX_TOKENS) return 'token count';
    return this.#braces + this.#brackets > MAX_NESTING ? 'nesting depth' : undefined;
  }

  #emit(): void {
    const tokens = this.#tokens;
    this.#clear();
    let value: Json;
    try {
      value = parseTokens(tokens);
    } catch (error) {
      if (!(error instanceof JsonSyntaxError)) throw error;
      this.#sink.error(error);
      return;
    }
    this.#sink.value(value);
  }

  #abandon(error: JsonSyntaxError): void {
    this.#clear();
    this.#sink.error(error);
  }

  #clear(): void {
    this.#tokens = { kinds: [], texts: [] };
    this.#tokenBytes = 0;
    this.#braces = 0;
    this.#brackets = 0;
  }
}

/** Where `byte` leads from inside a number or keyword: a state, the token that it ends, or undefined where it is wrong. */
function nextState(state: StateKind, byte: number): StateKind | { readonly token: TokenKind } | undefined {
  switch (state) {
    case State.SIGN:
      return byte === 0x30 ? State.ZERO : isDigit(byte) ? State.DIGITS : undefined;
    case State.ZERO:
      if (isDigit(byte)) return undefined;
      return byte === 0x2e ? State.POINT : INTEGER;
    case State.DIGITS:
      if (isDigit(byte)) return State.DIGITS;
      if (byte === 0x2e) return State.POINT;
      return (byte | 0x20) === 0x65 ? State.EXPONENT : INTEGER;
    case State.POINT:
      return isDigit(byte) ? State.FRACTION : undefined;
    case State.FRACTION:
      if (isDigit(byte)) return State.FRACTION;
      return (byte | 0x20) === 0x65 ? State.EXPONENT : FLOAT;
    case State.EXPONENT:
      if (byte === 0x2b || byte === 0x2d) return State.EXPONENT_SIGN;
      return isDigit(byte) ? State.EXPONENT_DIGITS : undefined;
    case State.EXPONENT_SIGN:
      return isDigit(byte) ? State.EXPONENT_DIGITS : undefined;
    case State.EXPONENT_DIGITS:
      return isDigit(byte) ? State.EXPONENT_DIGITS : FLOAT;
    default:
      return isLower(byte) ? State.KEYWORD : KEYWORD;
  }
}

const INTEGER = { token: Token.INTEGER } as const;
const FLOAT = { token: Token.FLOAT } as const;
const KEYWORD = { token: Token.KEYWORD } as const;

/** Parses one whole JSON text, as the option argument of `-device` or `-blockdev`. Throws {@link JsonSyntaxError}. */
export function parseJson(text: string): Json {
  const values: Json[] = [];
  let failure: JsonSyntaxError | undefined;
  const stream = new JsonStream({
    value: value => values.push(value),
    error: error => {
      failure ??= error;
    },
  });
  stream.feed(Buffer.from(text));
  stream.end();
  if (failure !== undefined) throw failure;
  const [value] = values;
  if (value === undefined || values.length > 1) throw new JsonSyntaxError('JSON parse error, expecting value');
  return value;
}
