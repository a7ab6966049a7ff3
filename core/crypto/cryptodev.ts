/** What does a guest's cryptography on the host (`-object cryptodev-backend-builtin`): Node's own, which is OpenSSL's. */
export interface CryptoBackend {
  readonly id: string;
  /** Whether a device has it; two cannot. */
  readonly used: boolean;
  /** Takes it; the object cannot be deleted until what is returned is called. */
  claim(): () => void;
}
