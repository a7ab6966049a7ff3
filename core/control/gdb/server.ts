import type { Vcpu } from '../../accel/accelerator.ts';
import type { Chardev } from '../../char/chardev.ts';
import type { Machine } from '../../machine/machine.ts';
import { readLinear, writeLinear } from '../debug/translate.ts';
import type { Program } from '../program.ts';
import { Breakpoints } from './breakpoints.ts';
import { framed, PacketReader } from './packets.ts';
import { REGISTERS, readRegister, targetXml, writeRegister } from './registers.ts';

const MAX_MEMORY = 0x2000;
const SIGINT = 'T02';
const SIGTRAP = 'T05';
const HARDWARE_KINDS = { '1': 'execute', '2': 'write', '3': 'access', '4': 'access' } as const;

/**
 * The remote protocol of gdb over one character device: registers, memory, breakpoints, watchpoints, single steps, several
 * CPUs as threads, and the human monitor as `monitor` commands.
 */
export class GdbServer {
  readonly #program: Program;
  readonly #machine: Machine;
  readonly #chr: Chardev;
  readonly #breakpoints: Breakpoints;
  readonly #reader: PacketReader;
  readonly #unlisten: () => void;
  #acknowledging = true;
  #lastSent: Buffer = Buffer.alloc(0);
  #queue: Promise<void> = Promise.resolve();
  /** A resume has been asked for, and its answer is due at the next stop. */
  #owesStop = false;
  #interrupting = false;
  #connected = false;
  #physical = false;
  /** CPUs that `Hg` and `Hc` chose, by index. */
  #general = 0;
  #stepping: number | undefined;

  constructor(program: Program, chr: Chardev) {
    this.#program = program;
    this.#machine = program.machine;
    this.#chr = chr;
    this.#breakpoints = new Breakpoints(
      this.#machine.memory,
      this.#machine.accelerator.caps.unlimitedBreakpoints ?? false,
    );
    this.#reader = new PacketReader(
      {
        packet: body => this.#enqueue(body),
        interrupt: () => this.#interrupt(),
        resend: () => this.#chr.writeAll(this.#lastSent),
      },
      good => {
        if (this.#acknowledging) this.#chr.writeAll(good ? '+' : '-');
      },
    );
    this.#unlisten = this.#machine.listen(event => {
      if (event === 'STOP') this.#stopped();
    });
    chr.attach({
      answers: true,
      canReceive: () => 4096,
      receive: bytes => this.#reader.feed(bytes),
      event: event => {
        if (event === 'opened') this.#open();
        else if (event === 'closed') this.#close();
      },
    });
  }

  dispose(): void {
    this.#unlisten();
    this.#close();
    this.#chr.detach();
  }

  get #vcpus(): readonly Vcpu[] {
    return this.#machine.vm.vcpus;
  }

  #vcpu(number: number): Vcpu | undefined {
    return this.#vcpus.find(({ index }) => index === number);
  }

  #open(): void {
    this.#connected = true;
    this.#acknowledging = true;
    this.#owesStop = false;
    this.#general = 0;
    this.#machine.stop('paused');
  }

  #close(): void {
    if (!this.#connected) return;
    this.#connected = false;
    this.#detach();
  }

  #detach(): void {
    this.#breakpoints.clear();
    for (const vcpu of this.#vcpus) vcpu.setDebug?.(undefined);
  }

  #enqueue(body: Buffer): void {
    this.#queue = this.#queue.then(() => this.#handle(body)).catch(error => this.#program.report.error(error));
  }

  async #handle(body: Buffer): Promise<void> {
    const reply = await this.#reply(body, body.toString('latin1'));
    if (reply !== undefined) this.#send(reply);
  }

  #send(reply: string | Buffer): void {
    this.#lastSent = framed(Buffer.isBuffer(reply) ? reply : Buffer.from(reply, 'latin1'));
    this.#chr.writeAll(this.#lastSent);
  }

  async #reply(body: Buffer, text: string): Promise<string | Buffer | undefined> {
    const rest = text.slice(1);
    switch (text[0]) {
      case '?':
        return `${SIGTRAP}thread:${thread(this.#general)};`;
      case 'g':
        return this.#readAll();
      case 'G':
        return this.#writeAll(Buffer.from(rest, 'hex'));
      case 'p':
        return this.#readOne(Number.parseInt(rest, 16));
      case 'P': {
        const [number = '', value = ''] = rest.split('=');
        return this.#writeOne(Number.parseInt(number, 16), Buffer.from(value, 'hex'));
      }
      case 'm':
        return this.#readMemory(rest);
      case 'M': {
        const [where = '', data = ''] = rest.split(':');
        return this.#writeMemory(where, Buffer.from(data, 'hex'));
      }
      case 'X': {
        const colon = body.indexOf(0x3a);
        return this.#writeMemory(text.slice(1, colon), body.subarray(colon + 1));
      }
      case 'Z':
      case 'z':
        return this.#breakpoint(text[0] === 'Z', rest);
      case 'c':
      case 'C':
        return this.#resume(undefined);
      case 's':
      case 'S':
        return this.#resume(this.#general);
      case 'H':
        return this.#choose(rest);
      case 'T':
        return this.#vcpu(Number.parseInt(rest, 16) - 1) === undefined ? 'E22' : 'OK';
      case 'D':
        this.#detach();
        this.#send('OK');
        this.#machine.start();
        return undefined;
      case 'k':
        this.#program.quit('host-signal');
        return undefined;
      case 'v':
        return this.#verbose(text);
      case 'q':
      case 'Q':
        return this.#query(text);
      default:
        return '';
    }
  }

  #verbose(text: string): string | undefined {
    if (text === 'vCont?') return 'vCont;c;C;s;S';
    if (!text.startsWith('vCont;')) return '';
    let step: number | undefined;
    for (const action of text.slice('vCont;'.length).split(';').reverse()) {
      const [kind = '', id] = action.split(':');
      if (kind.startsWith('s') || kind.startsWith('S'))
        step = id === undefined || id === '-1' ? this.#general : Number.parseInt(id, 16) - 1;
    }
    return this.#resume(step);
  }

  async #query(text: string): Promise<string | undefined> {
    if (text.startsWith('qSupported'))
      return `PacketSize=${(2 * MAX_MEMORY).toString(16)};qXfer:features:read+;vContSupported+;QStartNoAckMode+`;
    if (text === 'QStartNoAckMode') {
      this.#send('OK');
      this.#acknowledging = false;
      return undefined;
    }
    if (text.startsWith('qXfer:features:read:target.xml:'))
      return slice(targetXml(), text.slice('qXfer:features:read:target.xml:'.length));
    if (text === 'qC') return `QC${thread(this.#general)}`;
    if (text === 'qfThreadInfo') return `m${this.#vcpus.map(({ index }) => thread(index)).join(',')}`;
    if (text === 'qsThreadInfo') return 'l';
    if (text.startsWith('qThreadExtraInfo,')) {
      const vcpu = this.#vcpu(Number.parseInt(text.slice('qThreadExtraInfo,'.length), 16) - 1);
      return Buffer.from(`CPU#${vcpu?.index} [${vcpu?.halted ? 'halted ' : 'running'}]`).toString('hex');
    }
    if (text.startsWith('qRcmd,')) return this.#monitor(Buffer.from(text.slice('qRcmd,'.length), 'hex').toString());
    if (text === 'qAttached') return '1';
    if (text === 'qqemu.PhyMemMode') return this.#physical ? '1' : '0';
    if (text.startsWith('Qqemu.PhyMemMode:')) {
      this.#physical = text.endsWith('1');
      return 'OK';
    }
    return '';
  }

  async #monitor(line: string): Promise<string> {
    const { executeHmp } = await import('../hmp/execute.ts');
    const output = await executeHmp(this.#program, line, this.#general);
    for (let at = 0; at < output.length; at += MAX_MEMORY / 2) {
      this.#send(`O${Buffer.from(output.slice(at, at + MAX_MEMORY / 2)).toString('hex')}`);
    }
    return 'OK';
  }

  #choose(rest: string): string {
    const id = rest.slice(1);
    const index = id === '-1' || id === '0' ? this.#general : Number.parseInt(id, 16) - 1;
    if (this.#vcpu(index) === undefined) return 'E22';
    if (rest[0] === 'g') this.#general = index;
    return 'OK';
  }

  #readAll(): string {
    const cpu = this.#vcpu(this.#general)?.readState();
    return cpu === undefined ? 'E22' : REGISTERS.map(register => readRegister(register, cpu).toString('hex')).join('');
  }

  #writeAll(bytes: Buffer): string {
    const vcpu = this.#vcpu(this.#general);
    if (vcpu === undefined) return 'E22';
    const cpu = vcpu.readState();
    let at = 0;
    for (const register of REGISTERS) {
      if (!writeRegister(register, cpu, bytes.subarray(at))) break;
      at += register.bits / 8;
    }
    vcpu.writeState(cpu);
    return 'OK';
  }

  #readOne(number: number): string {
    const register = REGISTERS[number];
    const cpu = this.#vcpu(this.#general)?.readState();
    return register === undefined || cpu === undefined ? 'E14' : readRegister(register, cpu).toString('hex');
  }

  #writeOne(number: number, bytes: Buffer): string {
    const register = REGISTERS[number];
    const vcpu = this.#vcpu(this.#general);
    if (register === undefined || vcpu === undefined) return 'E14';
    const cpu = vcpu.readState();
    if (!writeRegister(register, cpu, bytes)) return 'E22';
    vcpu.writeState(cpu);
    return 'OK';
  }

  #readMemory(where: string): string {
    const { address, length } = place(where);
    if (length > MAX_MEMORY) return 'E22';
    const cpu = this.#vcpu(this.#general)?.readState();
    let bytes: Uint8Array | undefined;
    if (this.#physical || cpu === undefined) {
      bytes = new Uint8Array(length);
      this.#machine.memory.readBytes(Number(address), bytes, 0, length);
    } else bytes = readLinear(cpu, this.#machine.memory, address, length);
    if (bytes === undefined) return 'E14';
    this.#breakpoints.hide(bytes, address);
    return Buffer.from(bytes).toString('hex');
  }

  #writeMemory(where: string, data: Buffer): string {
    const { address, length } = place(where);
    if (data.length < length) return 'E22';
    const cpu = this.#vcpu(this.#general)?.readState();
    const bytes = data.subarray(0, length);
    const done =
      this.#physical || cpu === undefined
        ? this.#machine.memory.writeBytes(Number(address), bytes, 0, length)
        : writeLinear(cpu, this.#machine.memory, address, bytes);
    return done ? 'OK' : 'E14';
  }

  #breakpoint(insert: boolean, rest: string): string {
    const [type = '', addressText = '0', lengthText = '1'] = rest.split(',');
    const vcpu = this.#vcpu(this.#general);
    if (vcpu?.setDebug === undefined) return '';
    const address = BigInt(`0x${addressText}`);
    if (type === '0') {
      const done = insert
        ? this.#breakpoints.insertSoftware(vcpu.readState(), address)
        : this.#breakpoints.removeSoftware(address);
      return done ? 'OK' : 'E22';
    }
    if (type !== '1' && type !== '2' && type !== '3' && type !== '4') return '';
    const kind = HARDWARE_KINDS[type];
    const done = insert
      ? this.#breakpoints.insertHardware(kind, address, Number.parseInt(lengthText, 16))
      : this.#breakpoints.removeHardware(kind, address);
    return done ? 'OK' : 'E22';
  }

  /** Lets the machine run; with `step`, that CPU for one instruction. The answer comes when it stops. */
  #resume(step: number | undefined): string | undefined {
    const stepper = step === undefined ? undefined : this.#vcpu(step);
    if (stepper !== undefined && stepper.setDebug === undefined) return 'E22';
    this.#stepping = step;
    for (const vcpu of this.#vcpus) {
      vcpu.setDebug?.({
        singleStep: vcpu.index === step,
        softwareBreakpoints: this.#breakpoints.software,
        hardware: this.#breakpoints.hardware,
      });
    }
    this.#owesStop = true;
    this.#machine.start();
    return undefined;
  }

  #interrupt(): void {
    this.#interrupting = true;
    if (this.#machine.power.running) this.#machine.stop('paused');
    else this.#stopped();
  }

  #stopped(): void {
    if (!this.#owesStop || !this.#connected) return;
    this.#owesStop = false;
    const { debugStop } = this.#machine.power;
    const trapped = this.#machine.runState === 'debug' ? debugStop : undefined;
    if (trapped !== undefined) this.#general = trapped.cpu;
    else if (this.#stepping !== undefined) this.#general = this.#stepping;
    const signal =
      this.#interrupting || (trapped === undefined && this.#machine.runState === 'paused') ? SIGINT : SIGTRAP;
    this.#interrupting = false;
    this.#send(`${signal}thread:${thread(this.#general)};${this.#watched(trapped)}`);
  }

  #watched(trapped: Machine['power']['debugStop']): string {
    if (trapped?.trap?.kind !== 'hardware') return '';
    const hit = this.#breakpoints.hardware[trapped.trap.index];
    if (hit === undefined || hit.kind === 'execute') return '';
    return `${hit.kind === 'write' ? '' : 'a'}watch:${hit.address.toString(16)};`;
  }
}

const thread = (index: number): string => (index + 1).toString(16).padStart(2, '0');

/** `address,length` in hexadecimal. */
function place(text: string): { address: bigint; length: number } {
  const [address = '0', length = '0'] = text.split(',');
  return { address: BigInt(`0x${address || '0'}`), length: Number.parseInt(length, 16) || 0 };
}

/** A piece of a document, as qXfer asks for it: `offset,length`. */
function slice(document: string, where: string): string {
  const [offset = 0, length = 0] = where.split(',').map(text => Number.parseInt(text, 16));
  const piece = document.slice(offset, offset + length);
  return `${offset + length < document.length ? 'm' : 'l'}${piece}`;
}
