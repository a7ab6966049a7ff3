import type { RunningProgram } from '../core/control/program.ts';

/** Where the guest of a test keeps its DMA requests, and what they move. */
const REQUEST = 0x7_0000;
const BUFFER = 0x7_1000;
const SELECT = 8;
const READ = 2;
const WRITE = 0x10;
const FILE_DIR = 0x19;
const ENTRY_SIZE = 64;

const hex = (value: number): string => `0x${value.toString(16)}`;

/** A guest of the machine that uses fw_cfg by DMA, over qtest. */
export class FwCfgGuest {
  readonly #program: RunningProgram;

  constructor(program: RunningProgram) {
    this.#program = program;
  }

  /** The selector of the file of that name; undefined where there is none. */
  async find(name: string): Promise<number | undefined> {
    const count = (await this.read(FILE_DIR, 4)).readUInt32BE(0);
    const directory = await this.read(FILE_DIR, 4 + ENTRY_SIZE * count);
    for (let at = 4; at < directory.length; at += ENTRY_SIZE)
      if (directory.toString('latin1', at + 8, at + ENTRY_SIZE).replace(/\0.*$/s, '') === name)
        return directory.readUInt16BE(at + 4);
    return undefined;
  }

  async read(selector: number, length: number): Promise<Buffer> {
    await this.#transfer((selector << 16) | SELECT | READ, length);
    return Buffer.from(
      (await this.#program.command(`read ${hex(BUFFER)} ${hex(length)}`)).slice('OK 0x'.length),
      'hex',
    );
  }

  /** Writes a file from its beginning on; false where the device refuses. */
  async write(name: string, bytes: Uint8Array): Promise<boolean> {
    const selector = await this.find(name);
    if (selector === undefined) return false;
    await this.#program.command(`write ${hex(BUFFER)} ${hex(bytes.length)} 0x${Buffer.from(bytes).toString('hex')}`);
    return this.#transfer((selector << 16) | SELECT | WRITE, bytes.length);
  }

  async #transfer(control: number, length: number): Promise<boolean> {
    const request = Buffer.alloc(16);
    request.writeUInt32BE(control >>> 0, 0);
    request.writeUInt32BE(length, 4);
    request.writeBigUInt64BE(BigInt(BUFFER), 8);
    await this.#program.command(`write ${hex(REQUEST)} 0x10 0x${request.toString('hex')}`);
    await this.#program.command('outl 0x514 0');
    const address = Buffer.alloc(4);
    address.writeUInt32LE(REQUEST);
    await this.#program.command(`outl 0x518 ${hex(address.readUInt32BE(0))}`);
    return (await this.#program.command(`readl ${hex(REQUEST)}`)) === 'OK 0x0000000000000000';
  }
}
