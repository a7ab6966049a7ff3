import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Json, QmpMonitor } from './qmp-monitor.ts';
import type { RegisterScript, Step } from './register-script.ts';

/** A program that serves the qtest protocol: ours, or QEMU. */
export interface Player {
  readonly name: string;
  readonly command: readonly string[];
  /** Whether virtual time is the client's to step. */
  readonly stepsClock: boolean;
}

export const southbridge: Player = {
  name: 'Southbridge',
  command: [process.execPath, fileURLToPath(new URL('../../southbridge.js', import.meta.url)), '-accel', 'qtest'],
  stepsClock: true,
};

/**
 * The QEMU to compare with. Distributions ship it without the qtest accelerator, but its qtest server also answers beside
 * a stopped TCG. `SOUTHBRIDGE_ORACLE` names another binary, and with `SOUTHBRIDGE_ORACLE_ACCEL=qtest` time can be stepped.
 *
 * @returns undefined where there is no QEMU
 */
export function findQemu(): Player | undefined {
  const binary = process.env['SOUTHBRIDGE_ORACLE'] ?? 'qemu-system-x86_64';
  try {
    execFileSync(binary, ['--version'], { stdio: 'ignore' });
  } catch {
    return undefined;
  }
  const accel = process.env['SOUTHBRIDGE_ORACLE_ACCEL'] ?? 'tcg';
  return {
    name: 'QEMU',
    command: [binary, '-accel', accel, ...(accel === 'qtest' ? [] : ['-S'])],
    stepsClock: accel === 'qtest',
  };
}

const startTimeoutMs = 20_000;
/** How long a machine has for what it put off. */
const settleMs = 5;

/** Plays the script on a fresh machine and returns one answer a step, without the interrupt reports. */
export async function play(player: Player, script: RegisterScript): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), 'sb-oracle-'));
  const path = join(folder, 'qtest');
  const server = createServer();
  let child: ChildProcess | undefined;
  try {
    server.listen(path);
    await once(server, 'listening');
    const [program = '', ...args] = player.command;
    const plain = ['-display', 'none', '-monitor', 'none', '-serial', 'none', '-qtest', `unix:${path}`];
    const monitored = script.steps.some(step => step.monitor === true);
    const spawned = spawn(program, [...args, ...script.machine, ...plain, ...(monitored ? ['-qmp', 'stdio'] : [])]);
    child = spawned;
    const monitor = monitored ? new QmpMonitor(spawned.stdin, spawned.stdout) : undefined;
    if (monitor === undefined) spawned.stdout.resume();
    const socket = await connection(server, spawned, player);
    await monitor?.ask('{"execute":"qmp_capabilities"}');
    return await converse(socket, monitor, script.steps, player);
  } finally {
    // The next may want what this one has: a tap, a lock on an image.
    if (child !== undefined && child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    server.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

function connection(server: ReturnType<typeof createServer>, child: ChildProcess, player: Player): Promise<Socket> {
  return new Promise((resolve, reject) => {
    let stderr = '';
    child.stderr?.on('data', (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    const timer = setTimeout(() => reject(new Error(`${player.name} did not connect: ${stderr}`)), startTimeoutMs);
    const settle = (act: () => void): void => {
      clearTimeout(timer);
      act();
    };
    server.once('connection', socket => settle(() => resolve(socket)));
    child.once('error', error => settle(() => reject(error)));
    child.once('exit', code => settle(() => reject(new Error(`${player.name} exited with ${code}: ${stderr}`))));
  });
}

async function converse(
  socket: Socket,
  monitor: QmpMonitor | undefined,
  steps: readonly Step[],
  player: Player,
): Promise<string[]> {
  const answers = new Answers(socket, player, steps);
  for (let sent = 0; sent < steps.length; ) {
    const step = steps[sent];
    if (step?.monitor === true && monitor !== undefined) {
      answers.given.push(spoken(await monitor.ask(step.command)));
      sent++;
      continue;
    }
    const end = nextPause(steps, sent);
    socket.write(
      steps
        .slice(sent, end)
        .map(({ command }) => `${command}\n`)
        .join(''),
    );
    await answers.until(end);
    sent = end;
    if (sent < steps.length) await new Promise(resolve => setTimeout(resolve, settleMs));
  }
  socket.destroy();
  return answers.given;
}

/** What a command returns, or the description of its error. */
function spoken(reply: Readonly<Record<string, Json>>): string {
  if ('return' in reply) return JSON.stringify(reply['return']);
  return String(Reflect.get(Object(reply['error']), 'desc'));
}

/** The step before which the machine is to have answered those from `from` on. */
function nextPause(steps: readonly Step[], from: number): number {
  for (let index = from + 1; index < steps.length; index++) {
    if (steps[index - 1]?.settles === true || steps[index]?.monitor === true) return index;
  }
  return steps.length;
}

/** What a machine has answered to qtest commands. */
class Answers {
  readonly given: string[] = [];
  #failure: Error | undefined;
  #changed = (): void => {};

  constructor(socket: Socket, player: Player, steps: readonly Step[]) {
    let rest = '';
    socket.on('data', (chunk: Buffer) => {
      const lines = (rest + chunk.toString('latin1')).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) if (!line.startsWith('IRQ ')) this.given.push(line);
      this.#changed();
    });
    const failed = (error: Error): void => {
      this.#failure ??= error;
      this.#changed();
    };
    socket.once('error', failed);
    socket.once('close', () => {
      const at = this.given.length;
      failed(new Error(`${player.name} hung up at step ${at}: ${steps[at]?.command} (${steps[at]?.note})`));
    });
  }

  async until(count: number): Promise<void> {
    while (this.given.length < count) {
      if (this.#failure !== undefined) throw this.#failure;
      await new Promise<void>(resolve => {
        this.#changed = resolve;
      });
    }
  }
}

/** The steps where two lists of answers differ, in words. */
export function differences(script: RegisterScript, ours: readonly string[], theirs: readonly string[]): string[] {
  return script.steps.flatMap((step, index) => {
    const [our = '', their = ''] = [ours[index], theirs[index]];
    return sameAnswer(step, our, their) ? [] : [`#${index} ${step.note}: ${step.command}: ${our}, but QEMU: ${their}`];
  });
}

function sameAnswer(step: Step, ours: string, theirs: string): boolean {
  const [ourNumber, theirNumber] = [numeric(ours), numeric(theirs)];
  if (step.mask === undefined || ourNumber === undefined || theirNumber === undefined) return ours === theirs;
  return (ourNumber & step.mask) === (theirNumber & step.mask);
}

function numeric(answer: string): bigint | undefined {
  const match = /^OK (0x[0-9a-f]+)$/i.exec(answer);
  return match?.[1] === undefined ? undefined : BigInt(match[1]);
}
