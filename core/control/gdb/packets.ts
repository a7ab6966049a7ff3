const DOLLAR = 0x24;
const HASH = 0x23;
const ESCAPE = 0x7d;
const INTERRUPT = 0x03;
const MAX_PACKET = 0x10000;

/** What comes out of a debugger's bytes. */
export interface PacketSink {
  packet(body: Buffer): void;
  interrupt(): void;
  /** The debugger wants the last packet again. */
  resend(): void;
}

/** Takes apart the remote protocol's framing: `$body#checksum`, escapes, acknowledgements (GDB manual, appendix E.1). */
export class PacketReader {
  readonly #sink: PacketSink;
  readonly #acknowledge: (good: boolean) => void;
  #body: number[] | undefined;
  #checksum: string | undefined;

  constructor(sink: PacketSink, acknowledge: (good: boolean) => void) {
    this.#sink = sink;
    this.#acknowledge = acknowledge;
  }

  feed(bytes: Uint8Array): void {
    for (const byte of bytes) this.#byte(byte);
  }

  #byte(byte: number): void {
    if (this.#checksum !== undefined) {
      this.#checksum += String.fromCharCode(byte);
      if (this.#checksum.length === 2) this.#finish();
    } else if (this.#body !== undefined) {
      if (byte === HASH) this.#checksum = '';
      else if (byte === DOLLAR) this.#body = [];
      else if (this.#body.length < MAX_PACKET) this.#body.push(byte);
    } else if (byte === DOLLAR) this.#body = [];
    else if (byte === INTERRUPT) this.#sink.interrupt();
    else if (byte === 0x2d) this.#sink.resend();
  }

  #finish(): void {
    const raw = this.#body ?? [];
    const expected = Number.parseInt(this.#checksum ?? '', 16);
    this.#body = undefined;
    this.#checksum = undefined;
    const good = raw.reduce((sum, byte) => (sum + byte) & 0xff, 0) === expected;
    this.#acknowledge(good);
    if (good) this.#sink.packet(unescaped(raw));
  }
}

function unescaped(raw: readonly number[]): Buffer {
  const body: number[] = [];
  for (let at = 0; at < raw.length; at++) {
    const byte = raw[at] ?? 0;
    body.push(byte === ESCAPE ? (raw[++at] ?? 0) ^ 0x20 : byte);
  }
  return Buffer.from(body);
}

/** A packet around `body`, in which `#`, `$`, `}` and `*` are escaped. */
export function framed(body: Buffer): Buffer {
  const bytes: number[] = [];
  for (const byte of body) {
    if (byte === HASH || byte === DOLLAR || byte === ESCAPE || byte === 0x2a) bytes.push(ESCAPE, byte ^ 0x20);
    else bytes.push(byte);
  }
  const sum = bytes.reduce((total, byte) => (total + byte) & 0xff, 0);
  return Buffer.from([DOLLAR, ...bytes, ...Buffer.from(`#${sum.toString(16).padStart(2, '0')}`)]);
}
