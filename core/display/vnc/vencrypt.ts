/** VeNCrypt 0.2: a TLS session in the middle of the handshake ("RFB protocol" of the community, section 7.2.9). */
import type { Duplex } from 'node:stream';

/** What makes a viewer's connection a TLS session. */
export interface VncTls {
  readonly kind: 'x509' | 'anon';
  /** @returns the session, and the name in the client's certificate where that has been checked; fails where nobody may come in */
  secure(stream: Duplex): Promise<{ readonly session: Duplex; readonly peer: string | undefined }>;
}

/** What follows inside the session, by QAPI's names (VncVencryptSubAuth). */
export const SUBTYPE = { 'tls-none': 257, 'tls-vnc': 258, 'x509-none': 260, 'x509-vnc': 261 } as const;
export type VeNCryptSubtype = keyof typeof SUBTYPE;

export const subtypeOf = ({ kind }: VncTls, password: boolean): VeNCryptSubtype =>
  `${kind === 'x509' ? 'x509' : 'tls'}-${password ? 'vnc' : 'none'}`;

export const VERSION = Buffer.from([0, 2]);
