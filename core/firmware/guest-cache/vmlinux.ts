import { gunzipSync } from 'node:zlib';
import { SouthbridgeError } from '../../errors.ts';
import { isElf } from '../../loader/elf.ts';
import { linuxPayload, parseLinux } from '../../loader/linux.ts';
import { run } from './process.ts';

/** Programs that decompress what Linux is compressed with, by the magic number of their formats. */
const FORMATS = [
  { magic: [0xfd, 0x37, 0x7a, 0x58, 0x5a], program: 'xz', args: ['-d', '-c', '--single-stream'] },
  { magic: [0x28, 0xb5, 0x2f, 0xfd], program: 'zstd', args: ['-d', '-c'] },
  { magic: [0x5d, 0x00, 0x00], program: 'xz', args: ['-d', '-c', '--format=lzma'] },
  { magic: [0x42, 0x5a, 0x68], program: 'bzip2', args: ['-d', '-c'] },
] as const;

/** The kernel build appends the uncompressed size to the payload (scripts/Makefile.lib, size_append). */
const SIZE_APPENDED = 4;

/**
 * The vmlinux within a bzImage.
 *
 * @throws SouthbridgeError ERR_IMAGE_FORMAT where it is compressed in an unknown way, ERR_PROGRAM_MISSING where the host
 * lacks the program that decompresses it
 */
export async function decompressKernel(bzImage: Uint8Array): Promise<Uint8Array> {
  const payload = linuxPayload(parseLinux(bzImage));
  const compressed = payload.subarray(0, -SIZE_APPENDED);
  const begins = (magic: readonly number[]): boolean => magic.every((byte, index) => payload[index] === byte);
  let kernel: Uint8Array | undefined;
  if (begins([0x1f, 0x8b])) kernel = gunzipSync(payload);
  const format = FORMATS.find(({ magic }) => begins(magic));
  if (format !== undefined) {
    kernel = await run(format.program, format.args, { input: compressed, hint: `install ${format.program}` });
  }
  if (kernel === undefined || !isElf(kernel)) {
    throw new SouthbridgeError('ERR_IMAGE_FORMAT', 'the kernel is compressed in a way that is not known here');
  }
  return kernel;
}
