import type { Chardev } from '../../char/chardev.ts';
import { hex } from '../hex.ts';
import type { QtestLog } from './log.ts';
import type { QtestTarget } from './target.ts';
import { Words } from './words.ts';

const LF = 0x0a;
/** A request longer than this is not one: it is dropped, and the client told so. */
const MAX_LINE = 64 * 2 ** 20;
const ALL_ONES = 0xffff_ffff;
const WIDTHS: Readonly<Record<string, number>> = { b: 1, w: 2, l: 4, q: 8 };

type Command = (words: Words) => string;

/**
 * The qtest protocol: one line a request, one line a reply, and lines about intercepted interrupts in between. Requests
 * are answered as they come; all replies to one piece of input leave in one piece.
 */
export class QtestServer {
  readonly #chr: Chardev;
  readonly #target: QtestTarget;
  readonly #log: QtestLog | undefined;
  readonly #words = new Words();
  readonly #commands: ReadonlyMap<string, Command>;
  #partial: Buffer[] = [];
  #partialBytes = 0;
  #replies = '';
  #replying = false;
  #intercepted: string | undefined;
  readonly #levels = new Map<number, boolean>();

  constructor(chr: Chardev, target: QtestTarget, log?: QtestLog) {
    this.#chr = chr;
    this.#target = target;
    this.#log = log;
    this.#commands = this.#declare();
    chr.attach({
      answers: true,
      canReceive: () => 65536,
      receive: bytes => this.#receive(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)),
      event: event => {
        if (event === 'opened') {
          this.#levels.clear();
          this.#log?.opened();
        } else if (event === 'closed') {
          this.#partial = [];
          this.#partialBytes = 0;
          this.#log?.closed();
        }
      },
    });
  }

  dispose(): void {
    this.#chr.detach();
    this.#log?.dispose();
  }

  #receive(chunk: Buffer): void {
    this.#replying = true;
    let start = 0;
    let end = chunk.indexOf(LF);
    if (end >= 0 && this.#partialBytes > 0) {
      const line = Buffer.concat([...this.#partial, chunk.subarray(0, end)]);
      this.#partial = [];
      this.#partialBytes = 0;
      this.#execute(line, 0, line.length);
      start = end + 1;
      end = chunk.indexOf(LF, start);
    }
    while (end >= 0) {
      this.#execute(chunk, start, end);
      start = end + 1;
      end = chunk.indexOf(LF, start);
    }
    if (start < chunk.length) this.#keep(chunk.subarray(start));
    this.#replying = false;
    this.#flush();
  }

  #keep(rest: Buffer): void {
    this.#partial.push(Buffer.from(rest));
    this.#partialBytes += rest.length;
    if (this.#partialBytes <= MAX_LINE) return;
    this.#partial = [];
    this.#partialBytes = 0;
    this.#send('FAIL Line too long\n');
  }

  #execute(bytes: Buffer, start: number, end: number): void {
    this.#log?.received(bytes.toString('latin1', start, end));
    const words = this.#words;
    words.start(bytes, start, end);
    const name = words.text();
    const command = this.#commands.get(name);
    const reply = command === undefined ? `FAIL Unknown command '${name}'\n` : command(words);
    this.#target.settle();
    this.#send(reply);
  }

  #send(line: string): void {
    this.#log?.sent(line);
    this.#replies += line;
    if (!this.#replying) this.#flush();
  }

  #flush(): void {
    if (this.#replies === '') return;
    const replies = this.#replies;
    this.#replies = '';
    this.#chr.writeAll(replies);
  }

  #declare(): ReadonlyMap<string, Command> {
    const target = this.#target;
    const commands = new Map<string, Command>();
    for (const [letter, size] of Object.entries(WIDTHS)) {
      const mask = size === 1 ? 0xff : size === 2 ? 0xffff : ALL_ONES;
      if (size <= 4) {
        commands.set(`in${letter}`, words => {
          const port = words.number();
          if (!words.valid || port > 0xffff) return invalid(`in${letter}`);
          return `OK 0x${hex(target.portRead(port, size) >>> 0, 4)}\n`;
        });
        commands.set(`out${letter}`, words => {
          const port = words.number();
          words.number();
          if (!words.valid || port > 0xffff) return invalid(`out${letter}`);
          target.portWrite(port, size, (words.low & mask) >>> 0);
          return 'OK\n';
        });
      }
      commands.set(`read${letter}`, words => {
        const address = words.number();
        if (!words.valid) return invalid(`read${letter}`);
        const low = target.memoryRead(address, Math.min(size, 4)) >>> 0;
        const high = size === 8 ? target.memoryRead(address + 4, 4) >>> 0 : 0;
        return `OK 0x${hex(high, 8)}${hex(low, 8)}\n`;
      });
      commands.set(`write${letter}`, words => {
        const address = words.number();
        words.number();
        if (!words.valid) return invalid(`write${letter}`);
        target.memoryWrite(address, Math.min(size, 4), (words.low & mask) >>> 0);
        if (size === 8) target.memoryWrite(address + 4, 4, words.high);
        return 'OK\n';
      });
    }
    commands.set('read', words => this.#read(words, 'hex'));
    commands.set('b64read', words => this.#read(words, 'base64'));
    commands.set('write', words => this.#write(words, 'hex'));
    commands.set('b64write', words => this.#write(words, 'base64'));
    commands.set('memset', words => this.#memset(words));
    commands.set('endianness', () => 'OK little\n');
    if (target.advanceTo !== undefined) {
      const { advanceTo } = target;
      commands.set('clock_step', words => this.#clockStep(words, advanceTo));
      commands.set('clock_set', words => {
        const to = words.number();
        if (!words.valid) return invalid('clock_set');
        advanceTo.call(target, to);
        return `OK ${target.now()}\n`;
      });
    }
    commands.set('irq_intercept_in', words => this.#intercept(words.text(), 'in'));
    commands.set('irq_intercept_out', words => this.#intercept(words.text(), 'out'));
    commands.set('set_irq_in', words => this.#setInput(words));
    commands.set('module_load', () => 'FAIL\n');
    return commands;
  }

  #read(words: Words, encoding: 'hex' | 'base64'): string {
    const address = words.number();
    const size = words.number();
    if (!words.valid || size > MAX_LINE || (size === 0 && encoding === 'hex')) return invalid('read');
    const data = Buffer.alloc(size);
    this.#target.readBytes(address, data);
    return encoding === 'hex' ? `OK 0x${data.toString('hex')}\n` : `OK ${data.toString('base64')}\n`;
  }

  #write(words: Words, encoding: 'hex' | 'base64'): string {
    const address = words.number();
    const size = words.number();
    if (!words.valid || size > MAX_LINE) return invalid('write');
    const text = words.raw();
    if (text.length < 3) return 'ERR invalid argument size\n';
    const data = Buffer.alloc(size);
    const given =
      encoding === 'hex'
        ? Buffer.from(text.toString('latin1', 2), 'hex')
        : Buffer.from(text.toString('latin1'), 'base64');
    given.copy(data, 0, 0, size);
    this.#target.writeBytes(address, data);
    return 'OK\n';
  }

  #memset(words: Words): string {
    const address = words.number();
    const size = words.number();
    words.number();
    if (!words.valid || size > 2 ** 32) return invalid('memset');
    const piece = Buffer.alloc(Math.min(size, 2 ** 20), words.low & 0xff);
    for (let done = 0; done < size; done += piece.length) {
      this.#target.writeBytes(address + done, piece.subarray(0, size - done));
    }
    return 'OK\n';
  }

  #clockStep(words: Words, advanceTo: (targetNs: number) => void): string {
    const target = this.#target;
    const now = target.now();
    let to: number;
    if (words.done) {
      const deadline = target.nextDeadline();
      to = deadline === Number.POSITIVE_INFINITY ? now : Math.max(now, deadline);
    } else {
      to = now + words.number();
      if (!words.valid) return invalid('clock_step');
    }
    advanceTo.call(target, to);
    return `OK ${target.now()}\n`;
  }

  #intercept(path: string, side: 'in' | 'out'): string {
    if (this.#intercepted !== undefined) {
      return this.#intercepted === path ? 'OK\n' : 'FAIL IRQ intercept already enabled\n';
    }
    const known = this.#target.intercept(path, side, (pin, level) => {
      if ((this.#levels.get(pin) ?? false) === level) return;
      this.#levels.set(pin, level);
      this.#send(`IRQ ${level ? 'raise' : 'lower'} ${pin}\n`);
    });
    if (!known) return 'FAIL Unknown device\n';
    this.#intercepted = path;
    return 'OK\n';
  }

  #setInput(words: Words): string {
    const path = words.text();
    const name = words.text();
    const pin = words.number();
    words.number();
    if (!words.valid) return invalid('set_irq_in');
    const known = this.#target.setInput(path, name === 'unnamed-gpio-in' ? undefined : name, pin, words.low | 0);
    return known ? 'OK\n' : 'FAIL Unknown device\n';
  }
}

const invalid = (command: string): string => `FAIL Invalid arguments to '${command}'\n`;
