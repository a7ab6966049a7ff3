import { CHALLENGE_SIZE, isAnswer, newChallenge } from './authentication.ts';
import type { ByteWriter } from './byte-writer.ts';
import { SECURITY } from './protocol.ts';
import type { VncServer } from './server.ts';
import { SUBTYPE, subtypeOf, VERSION as VENCRYPT_VERSION, type VncTls } from './vencrypt.ts';

const VERSION = 'RFB 003.008\n';
const VERSIONS = [3, 4, 5, 7, 8];

/** In place of a number of bytes: the conversation goes on in a TLS session. */
export const SECURE = Number.POSITIVE_INFINITY;

/** How a client gets in. */
export interface VncEntry {
  /** Nobody asks for anything: somebody else has done that. */
  readonly skipAuthentication?: boolean;
  /** TLS lies beneath already (a websocket's): the name in the client's certificate, where that has been checked. */
  readonly secured?: { readonly peer: string | undefined };
}

/** The conversation is over: the client broke the rules, or may not come in. */
export class EndOfConversation extends Error {}

/** What comes before the first picture: the version, and who the client is (RFC 6143, sections 7.1.1 and 7.1.2). */
export class Handshake {
  readonly #server: VncServer;
  readonly #entry: VncEntry;
  readonly #out: ByteWriter;
  readonly #flush: () => void;
  #minor = 8;

  /** @param flush sends what `out` holds */
  constructor(server: VncServer, entry: VncEntry, out: ByteWriter, flush: () => void) {
    this.#server = server;
    this.#entry = entry;
    this.#out = out;
    this.#flush = flush;
  }

  /** Each `yield` says how many bytes come next, or {@link SECURE}. @throws EndOfConversation */
  *run(): Generator<number, void, Buffer> {
    yield* this.#agreeOnVersion();
    yield* this.#authenticate();
  }

  *#agreeOnVersion(): Generator<number, void, Buffer> {
    this.#out.bytes(Buffer.from(VERSION, 'latin1'));
    this.#flush();
    const match = /^RFB (\d{3})\.(\d{3})\n$/.exec((yield VERSION.length).toString('latin1'));
    if (match === null) throw new EndOfConversation();
    const minor = Number(match[2]);
    if (Number(match[1]) !== 3 || !VERSIONS.includes(minor)) {
      this.#out.u32(SECURITY.INVALID);
      this.#flush();
      throw new EndOfConversation();
    }
    // Some clients say 3.4 or 3.5, which are to be treated as 3.3.
    this.#minor = minor < 7 ? 3 : minor;
  }

  *#authenticate(): Generator<number, void, Buffer> {
    const { tls, password } = this.#server.options;
    const within = password ? SECURITY.VNC : SECURITY.NONE;
    const secured = tls === undefined || this.#entry.secured !== undefined;
    const type = this.#entry.skipAuthentication ? SECURITY.NONE : secured ? within : SECURITY.VENCRYPT;
    if (this.#minor === 3) {
      // The oldest version knows two types only.
      this.#out.u32(type === SECURITY.VENCRYPT ? SECURITY.INVALID : type);
      this.#flush();
      if (type === SECURITY.VENCRYPT) throw new EndOfConversation();
    } else {
      this.#out.u8(1).u8(type);
      this.#flush();
      const [chosen] = yield 1;
      if (chosen !== type) this.#refuse();
    }
    if (tls !== undefined && type === SECURITY.VENCRYPT) {
      yield* this.#veNCrypt(tls, password);
      if (password) yield* this.#askForPassword();
      else this.#out.u32(0);
    } else if (type === SECURITY.VNC) yield* this.#askForPassword();
    else if (this.#minor >= 8) this.#out.u32(0);
    this.#flush();
  }

  *#veNCrypt(tls: VncTls, password: boolean): Generator<number, void, Buffer> {
    this.#out.bytes(VENCRYPT_VERSION);
    this.#flush();
    if (!(yield VENCRYPT_VERSION.length).equals(VENCRYPT_VERSION)) this.#end(1);
    const subtype = SUBTYPE[subtypeOf(tls, password)];
    this.#out.u8(0).u8(1).u32(subtype);
    this.#flush();
    if ((yield 4).readUInt32BE(0) !== subtype) this.#end(0);
    this.#out.u8(1);
    this.#flush();
    yield SECURE;
  }

  #end(answer: number): never {
    this.#out.u8(answer);
    this.#flush();
    throw new EndOfConversation();
  }

  *#askForPassword(): Generator<number, void, Buffer> {
    const challenge = newChallenge();
    this.#out.bytes(challenge);
    this.#flush();
    const answer = yield CHALLENGE_SIZE;
    const password = this.#server.validPassword;
    if (password === undefined || !isAnswer(challenge, password, answer)) this.#refuse();
    this.#out.u32(0);
  }

  #refuse(): never {
    this.#out.u32(1);
    if (this.#minor >= 8) {
      const reason = Buffer.from('Authentication failed\0', 'latin1');
      this.#out.u32(reason.length).bytes(reason);
    }
    this.#flush();
    throw new EndOfConversation();
  }
}
