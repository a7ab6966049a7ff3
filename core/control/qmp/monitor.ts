import type { Chardev } from '../../char/chardev.ts';
import { SouthbridgeError } from '../../errors.ts';
import type { JsonSyntaxError } from '../json/parser.ts';
import { JsonStream } from '../json/stream.ts';
import { isObject, type Json, type JsonObject } from '../json/value.ts';
import { type Writable, writeJson } from '../json/writer.ts';
import { QmpError, type QmpErrorClass } from '../qapi/error.ts';
import { ROOT } from '../qapi/types.ts';
import { VERSION_INFO } from '../version.ts';
import type { Bound } from './catalog.ts';
import type { EventHub } from './events.ts';

/** Requests of one client that may wait; more is not read until there is room. */
const MAX_QUEUE = 8;
/** Bytes that are taken from the device at once. */
const READ_SIZE = 65536;

/** What a monitor needs of the program around it. */
export interface QmpHost {
  readonly events: EventHub;
  /** The command of that name, or undefined; loads what it needs. */
  find(name: string): Promise<Bound<QmpSession> | undefined>;
  /** Throws a QmpError where the command cannot be executed yet: before the machine is built, or while the program ends. */
  admit(name: string, bound: Bound<QmpSession>): void;
}

/** What a handler knows about the client that called it. */
export interface QmpSession {
  readonly monitor: QmpMonitor;
  /** True while executed out of band. */
  readonly outOfBand: boolean;
}

interface Request {
  readonly value?: Json;
  readonly error?: JsonSyntaxError;
}

/** One QMP server on one character device. */
export class QmpMonitor {
  readonly #host: QmpHost;
  readonly #chr: Chardev;
  readonly #pretty: boolean;
  readonly #stream: JsonStream;
  #queue: Request[] = [];
  #busy = false;
  #connected = false;
  #negotiated = false;
  #oob = false;
  readonly #unlisten: () => void;

  constructor(host: QmpHost, chr: Chardev, pretty = false) {
    this.#host = host;
    this.#chr = chr;
    this.#pretty = pretty;
    this.#stream = new JsonStream({
      value: value => this.#accept({ value }),
      error: error => this.#accept({ error }),
    });
    this.#unlisten = host.events.listen(event => {
      if (this.#connected && this.#negotiated) this.send(event);
    });
    chr.attach({
      answers: true,
      canReceive: () => (this.#queue.length >= (this.#oob ? MAX_QUEUE : 1) ? 0 : READ_SIZE),
      receive: bytes => this.#stream.feed(Buffer.from(bytes)),
      event: event => {
        if (event === 'opened') this.#opened();
        else if (event === 'closed') this.#closed();
      },
    });
  }

  /** The character device that the client is on: for file descriptors that came with a command. */
  get chr(): Chardev {
    return this.#chr;
  }

  send(message: Writable): void {
    const text = writeJson(message, this.#pretty);
    this.#chr.writeAll(this.#pretty ? `${text.replaceAll('\n', '\r\n')}\r\n` : `${text}\r\n`);
  }

  /** `qmp_capabilities`. */
  negotiate(enable: readonly 'oob'[]): void {
    if (this.#negotiated) {
      throw new QmpError('Capabilities negotiation is already complete, command ignored', 'CommandNotFound');
    }
    this.#oob = enable.includes('oob');
    this.#negotiated = true;
  }

  dispose(): void {
    this.#unlisten();
    this.#chr.detach();
  }

  #opened(): void {
    this.#connected = true;
    this.#negotiated = false;
    this.#oob = false;
    this.send({ QMP: { version: VERSION_INFO, capabilities: ['oob'] } });
  }

  #closed(): void {
    this.#connected = false;
    this.#queue = [];
    this.#stream.reset();
    this.#chr.acceptInput();
  }

  #accept(request: Request): void {
    const { value } = request;
    if (this.#oob && isObject(value) && 'exec-oob' in value && !('execute' in value)) {
      void this.#execute(value, true);
      return;
    }
    this.#queue.push(request);
    if (!this.#busy) void this.#drain();
  }

  async #drain(): Promise<void> {
    this.#busy = true;
    for (let request = this.#queue.shift(); request !== undefined; request = this.#queue.shift()) {
      if (request.error !== undefined) this.#fail(new QmpError(request.error.message), undefined);
      else await this.#execute(request.value ?? null, false);
    }
    this.#busy = false;
    this.#chr.acceptInput();
  }

  async #execute(request: Json, outOfBand: boolean): Promise<void> {
    const id = isObject(request) ? request['id'] : undefined;
    try {
      const { name, args } = checkRequest(request, this.#oob);
      const result = await this.#call(name, args, outOfBand);
      if (result !== undefined) this.#reply({ return: result.value, ...(id !== undefined && { id: id as Writable }) });
    } catch (error) {
      this.#fail(error, id);
    }
  }

  async #call(name: string, args: Json, outOfBand: boolean): Promise<{ value: Writable } | undefined> {
    const bound = this.#negotiated || name === 'qmp_capabilities' ? await this.#host.find(name) : undefined;
    if (bound === undefined) {
      const message = this.#negotiated
        ? `The command ${name} has not been found`
        : "Expecting capabilities negotiation with 'qmp_capabilities'";
      throw new QmpError(message, 'CommandNotFound');
    }
    if (outOfBand && !bound.command.oob) throw new QmpError(`The command ${name} does not support OOB`);
    this.#host.admit(name, bound);
    const parsed = bound.command.args.read(args, ROOT);
    const value = await bound.handle(parsed, { monitor: this, outOfBand });
    if (bound.command.silent) return undefined;
    return { value: (value ?? {}) as Writable };
  }

  #reply(message: Writable): void {
    if (this.#connected) this.send(message);
  }

  #fail(error: unknown, id: Json | undefined): void {
    const { errorClass, description } = describe(error);
    this.#reply({
      ...(id !== undefined && { id: id as Writable }),
      error: { class: errorClass, desc: description },
    });
  }
}

/** Errors of the layers below that have a class of their own. */
const CLASSES: ReadonlyMap<string, QmpErrorClass> = new Map([
  ['ERR_DEVICE_NOT_FOUND', 'DeviceNotFound'],
  ['ERR_DEVICE_NOT_ACTIVE', 'DeviceNotActive'],
]);

/** Class and text that a client gets for an error of any kind; what is not meant for clients loses nothing but its class. */
function describe(error: unknown): { errorClass: QmpErrorClass; description: string } {
  if (error instanceof QmpError) return { errorClass: error.class, description: error.message };
  const code = error instanceof SouthbridgeError ? error.code : '';
  return {
    errorClass: CLASSES.get(code) ?? 'GenericError',
    description: error instanceof Error ? error.message : String(error),
  };
}

/** Checks the outer form of a request, in the order of its members. */
function checkRequest(request: Json, oobAllowed: boolean): { name: string; args: JsonObject } {
  if (!isObject(request)) throw new QmpError('QMP input must be a JSON object');
  let execute: string | undefined;
  let name = '';
  let args: JsonObject = {};
  for (const [key, value] of Object.entries(request)) {
    if (key === 'execute' || (key === 'exec-oob' && oobAllowed)) {
      if (typeof value !== 'string') throw new QmpError(`QMP input member '${key}' must be a string`);
      if (execute !== undefined) throw new QmpError(`QMP input member '${key}' clashes with '${execute}'`);
      execute = key;
      name = value;
    } else if (key === 'arguments') {
      if (!isObject(value)) throw new QmpError("QMP input member 'arguments' must be an object");
      args = value;
    } else if (key !== 'id') throw new QmpError(`QMP input member '${key}' is unexpected`);
  }
  if (execute === undefined) throw new QmpError("QMP input lacks member 'execute'");
  return { name, args };
}
