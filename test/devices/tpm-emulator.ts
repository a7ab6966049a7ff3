/**
 * A TPM in a process of its own, with swtpm's control channel. Its arguments are the socket's path, its version and its capabilities;
 * it tells its parent what it was told. It knows three commands: {@link ECHO}, {@link HANG} until it is cancelled, and that it
 * continues its self test; all others fail.
 */
import { readSync, rmSync, writeSync } from 'node:fs';
import { createServer } from 'node:net';
import { FdSocket } from '../../core/char/fd-socket.ts';
import { FdWatcher, READABLE } from '../../core/host/event-fd.ts';

const [path = '', version = '2.0', capabilities = '0'] = process.argv.slice(2);
const [ECHO, HANG, SELF_TEST, HUGE] = [0x1000, 0x1001, 0x53, 0x1002];
const tell = (message: object): void => {
  process.send?.(message);
};

const tag = version === '2.0' ? 0x8001 : 0xc4;
let hanging: (() => void) | undefined;

function answer(code: number, payload: Buffer, size = 10 + payload.length): Buffer {
  const bytes = Buffer.alloc(10 + payload.length);
  bytes.writeUInt16BE(tag, 0);
  bytes.writeUInt32BE(size, 2);
  bytes.writeUInt32BE(code, 6);
  payload.copy(bytes, 10);
  return bytes;
}

/** Serves commands at `fd`, which is as it was given: one that waits. */
function serve(fd: number): void {
  const room = Buffer.alloc(8192);
  let held = 0;
  const watcher = new FdWatcher(fd, () => {
    const got = readSync(fd, room, held, room.length - held, null);
    if (got === 0) {
      watcher.close();
      tell({ closed: true });
      return;
    }
    held += got;
    if (held < 10 || held < room.readUInt32BE(2)) return;
    const command = Buffer.from(room.subarray(0, held));
    held = 0;
    const code = command.readUInt32BE(6);
    tell({ command: code, length: command.length });
    if (code === ECHO) writeSync(fd, answer(0, command.subarray(10)));
    else if (code === SELF_TEST) writeSync(fd, answer(0, Buffer.alloc(0)));
    else if (code === HUGE) writeSync(fd, answer(0, Buffer.alloc(0), 0x10_0000));
    else if (code === HANG) hanging = () => writeSync(fd, answer(0x909, Buffer.alloc(0)));
    else writeSync(fd, answer(0x101, Buffer.alloc(0)));
  });
  watcher.watch(READABLE);
}

const words = (...values: number[]): Buffer => {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [index, value] of values.entries()) bytes.writeUInt32BE(value, 4 * index);
  return bytes;
};

/** Bytes of parameters by command; what else there is, is data. */
const PARAMETERS: Readonly<Record<number, number>> = { 2: 4, 5: 4, 11: 4, 12: 12, 13: 12, 17: 4, 19: 4 };
const NAMES: Readonly<Record<number, string>> = {
  2: 'INIT',
  3: 'SHUTDOWN',
  5: 'SET_LOCALITY',
  9: 'CANCEL',
  11: 'RESET_ESTABLISHED',
  14: 'STOP',
  17: 'SET_BUFFERSIZE',
  19: 'LOCK_STORAGE',
};

function control(command: number, parameter: number, blob: Buffer): Buffer {
  const name = NAMES[command];
  if (name !== undefined) tell({ control: name, parameter });
  switch (command) {
    case 1:
      return words(0, Number(capabilities));
    case 4:
      return words(0, 0);
    case 9:
      hanging?.();
      hanging = undefined;
      return words(0);
    case 12: {
      // The first parameter are flags.
      const contents = Buffer.from(`state ${blob.readUInt32BE(4)}`);
      return Buffer.concat([words(0, 0, contents.length, contents.length), contents]);
    }
    case 13:
      tell({ blob: blob.subarray(12).toString(), type: blob.readUInt32BE(4) });
      return words(0);
    case 17:
      return words(0, parameter === 0 ? 2048 : parameter, 128, 4096);
    default:
      return words(0);
  }
}

const server = createServer({ pauseOnConnect: true }, socket => {
  const stream = FdSocket.adopt(socket);
  if (stream === undefined) throw new Error('a socket without a descriptor');
  let held = Buffer.alloc(0);
  stream.on('data', (chunk: Buffer) => {
    held = Buffer.concat([held, chunk]);
    while (held.length >= 4) {
      const command = held.readUInt32BE(0);
      let end = 4 + (PARAMETERS[command] ?? 0);
      if (held.length < end) return;
      if (command === 13) end += held.readUInt32BE(12);
      if (held.length < end) return;
      const parameters = held.subarray(4, end);
      held = held.subarray(end);
      if (command === 16) for (const fd of stream.takeFds(Number.POSITIVE_INFINITY)) serve(fd);
      stream.write(control(command, parameters.length < 4 ? 0 : parameters.readUInt32BE(0), parameters));
    }
  });
});
rmSync(path, { force: true });
server.listen(path, () => tell({ listening: true }));
