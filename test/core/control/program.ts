import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const HELP_PROGRAM = 'southbridge';
const ENTRY = fileURLToPath(new URL('../../../southbridge.js', import.meta.url));

/** One line-oriented connection. */
export class Lines {
  readonly socket: Socket;
  #buffer = '';
  readonly #waiting: ((line: string) => void)[] = [];
  readonly #lines: string[] = [];

  constructor(socket: Socket) {
    this.socket = socket;
    socket.setEncoding('utf8').on('data', (text: string) => {
      this.#buffer += text;
      for (let end = this.#buffer.indexOf('\n'); end >= 0; end = this.#buffer.indexOf('\n')) {
        const line = this.#buffer.slice(0, end).replace(/\r$/, '');
        this.#buffer = this.#buffer.slice(end + 1);
        const next = this.#waiting.shift();
        if (next === undefined) this.#lines.push(line);
        else next(line);
      }
    });
    socket.on('error', () => undefined);
  }

  next(): Promise<string> {
    const line = this.#lines.shift();
    return line === undefined ? new Promise(resolve => this.#waiting.push(resolve)) : Promise.resolve(line);
  }

  send(text: string | Uint8Array): void {
    this.socket.write(text);
  }
}

type Message = Readonly<Record<string, unknown>>;

/** The program as a process of its own, with a QMP and a qtest connection, started as libqtest starts an emulator. */
export class RunningProgram {
  readonly process: ChildProcess;
  readonly qmpLines: Lines;
  readonly qtest: Lines;
  readonly events: Message[] = [];
  readonly greeting: Message;

  private constructor(child: ChildProcess, qmp: Lines, qtest: Lines, greeting: Message) {
    this.process = child;
    this.qmpLines = qmp;
    this.qtest = qtest;
    this.greeting = greeting;
  }

  static async start(...args: string[]): Promise<RunningProgram> {
    const folder = mkdtempSync(join(tmpdir(), 'southbridge-'));
    const [qtestPath, qmpPath] = [join(folder, 'qtest'), join(folder, 'qmp')];
    const servers = [await listen(qtestPath), await listen(qmpPath)] as const;
    const accepted = Promise.all(servers.map(server => once(server, 'connection') as Promise<[Socket]>));
    const fixed = [
      '-qtest',
      `unix:${qtestPath}`,
      '-qtest-log',
      '/dev/null',
      '-chardev',
      `socket,path=${qmpPath},id=char0`,
    ];
    const child = spawn(
      process.execPath,
      [ENTRY, ...fixed, '-mon', 'chardev=char0,mode=control', '-display', 'none', ...args, '-accel', 'qtest'],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    let complaints = '';
    child.stderr.on('data', (chunk: Buffer) => {
      complaints += chunk.toString();
    });
    const ended = once(child, 'exit').then(([code]) => {
      throw new Error(`the program ended with status ${code}: ${complaints}`);
    });
    let connections: [[Socket], [Socket]];
    try {
      connections = (await Promise.race([accepted, ended])) as [[Socket], [Socket]];
    } finally {
      ended.catch(() => undefined);
      for (const server of servers) server.close();
      rmSync(folder, { recursive: true });
    }
    const [[qtest], [qmp]] = connections;
    const lines = new Lines(qmp);
    return new RunningProgram(child, lines, new Lines(qtest), JSON.parse(await lines.next()));
  }

  /** The reply to one request; events that come before it are kept. */
  async request(text: string | Uint8Array): Promise<Message> {
    this.qmpLines.send(text);
    for (;;) {
      const message: Message = JSON.parse(await this.qmpLines.next());
      if (!('event' in message)) return message;
      this.events.push(message);
    }
  }

  async execute(name: string, args?: object): Promise<Message> {
    return this.request(`${JSON.stringify({ execute: name, ...(args && { arguments: args }) })}\n`);
  }

  async command(line: string): Promise<string> {
    this.qtest.send(`${line}\n`);
    return this.qtest.next();
  }

  /** Ends it by `signal` and returns its exit status. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    const exited = once(this.process, 'exit');
    this.process.kill(signal);
    const [code] = (await exited) as [number | null];
    return code;
  }
}

async function listen(path: string): Promise<Server> {
  const server = createServer().listen(path);
  await once(server, 'listening');
  return server;
}

/** Runs the program with nothing connected until it ends by itself; returns its exit status and what it said. */
export async function runToEnd(...args: string[]): Promise<{ code: number | null; errors: string }> {
  const child = spawn(process.execPath, [ENTRY, '-display', 'none', ...args, '-accel', 'qtest'], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let errors = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, errors };
}
