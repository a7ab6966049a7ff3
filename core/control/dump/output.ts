import { close, open, write } from 'node:fs';
import { promisify } from 'node:util';
import { hostError, reason } from '../../block/io-error.ts';
import { hostPath } from '../../host/fd-sets.ts';
import { QmpError } from '../qapi/error.ts';

const BUSY_MS = 5;

/** A file, pipe or socket that takes a dump from its beginning to its end. */
export class DumpOutput {
  readonly #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** @param protocol `file:` with a path, or `fd:` with a name. @throws QmpError with QEMU's wording */
  static async open(protocol: string, named: (name: string) => number | undefined): Promise<DumpOutput> {
    if (protocol.startsWith('fd:')) {
      const name = protocol.slice('fd:'.length);
      const fd = named(name);
      if (fd === undefined) throw new QmpError(`File descriptor named '${name}' has not been found`);
      return new DumpOutput(fd);
    }
    if (!protocol.startsWith('file:')) throw new QmpError("Invalid parameter 'protocol'");
    const path = protocol.slice('file:'.length);
    try {
      return new DumpOutput(await promisify(open)(hostPath(path), 'w', 0o400));
    } catch (cause) {
      throw new QmpError(`Could not open '${path}': ${reason(hostError(cause))}`);
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      try {
        done += (await promisify(write)(this.#fd, bytes, done, bytes.length - done, null)).bytesWritten;
      } catch (error) {
        // A reader that is behind, on a pipe that the client made non-blocking.
        if (!(error instanceof Error) || Reflect.get(error, 'code') !== 'EAGAIN') throw error;
        await new Promise(resolve => setTimeout(resolve, BUSY_MS));
      }
    }
  }

  close(): Promise<void> {
    return promisify(close)(this.#fd);
  }
}
