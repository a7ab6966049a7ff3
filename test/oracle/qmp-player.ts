import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type Json, QmpMonitor } from './qmp-monitor.ts';
import type { Player } from './qtest-player.ts';

/** One QMP command and what must agree in its answer. */
export interface Question {
  readonly execute: string;
  readonly arguments?: Readonly<Record<string, Json>>;
  /**
   * Picks what is compared out of the answer. Default: all of it. An answer with an error is compared by class and text.
   */
  readonly compare?: (answer: Json) => Json;
}

/** Asks each question on a fresh machine that stays stopped; one answer each, events left out. */
export async function ask(player: Player, machine: readonly string[], questions: readonly Question[]): Promise<Json[]> {
  const folder = mkdtempSync(join(tmpdir(), 'sb-oracle-'));
  const path = join(folder, 'qmp');
  const server = createServer();
  let child: ChildProcess | undefined;
  try {
    server.listen(path);
    await once(server, 'listening');
    const [program = '', ...args] = player.command;
    const control = ['-chardev', `socket,id=char0,path=${path}`, '-mon', 'chardev=char0,mode=control'];
    child = spawn(program, [...args, ...machine, '-display', 'none', ...control], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let stderr = '';
    child.stderr?.on('data', (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    const gone = once(child, 'exit').then(([code]) => {
      throw new Error(`${player.name} exited with ${code}: ${stderr}`);
    });
    const [socket] = (await Promise.race([once(server, 'connection'), gone])) as [Socket];
    return await Promise.race([converse(socket, questions), gone]);
  } finally {
    child?.removeAllListeners('exit');
    child?.kill('SIGKILL');
    server.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What the program prints for options that ask for a listing. */
export async function listing(player: Player, args: readonly string[]): Promise<string[]> {
  const [program = ''] = player.command;
  const entry = player.command.filter(word => word.endsWith('.js'));
  const { stdout } = await promisify(execFile)(program, [...entry, ...args]);
  return stdout.split('\n');
}

async function converse(socket: Socket, questions: readonly Question[]): Promise<Json[]> {
  const answers: Json[] = [];
  const monitor = new QmpMonitor(socket, socket);
  await monitor.ask('{"execute": "qmp_capabilities"}');
  for (const { execute, arguments: args } of questions) {
    const answer = await monitor.ask(JSON.stringify({ execute, ...(args && { arguments: args }) }));
    answers.push('return' in answer ? (answer['return'] ?? null) : { error: answer['error'] ?? null });
  }
  socket.destroy();
  return answers;
}

/** Keys by which the elements of QAPI's lists are told apart, so that order does not matter. */
const NAMES = [
  'name',
  'typename',
  'option',
  'qom-path',
  'device',
  'label',
  'id',
  'parameter',
  'type',
  'node-name',
  'capability',
];

/** Where two answers differ: a path and both values. What only QEMU has is told, what only we have too. */
export function compareJson(ours: Json | undefined, theirs: Json | undefined, path = ''): string[] {
  if (ours === undefined) return [`${path}: missing here, QEMU: ${brief(theirs)}`];
  if (theirs === undefined) return [`${path}: ${brief(ours)}, which QEMU has not`];
  if (Array.isArray(ours) && Array.isArray(theirs)) return compareLists(ours, theirs, path);
  if (isRecord(ours) && isRecord(theirs)) {
    const keys = new Set([...Object.keys(ours), ...Object.keys(theirs)]);
    return [...keys].flatMap(key => compareJson(ours[key], theirs[key], `${path}.${key}`));
  }
  return ours === theirs ? [] : [`${path}: ${brief(ours)}, QEMU: ${brief(theirs)}`];
}

function compareLists(ours: readonly Json[], theirs: readonly Json[], path: string): string[] {
  const key = NAMES.find(name => [...ours, ...theirs].every(item => isRecord(item) && typeof item[name] === 'string'));
  if (key === undefined) {
    const length = Math.max(ours.length, theirs.length);
    return Array.from({ length }, (_, index) => compareJson(ours[index], theirs[index], `${path}[${index}]`)).flat();
  }
  const byName = (list: readonly Json[]): Record<string, Json> =>
    Object.fromEntries(list.map(item => [isRecord(item) ? String(item[key]) : '', item]));
  return compareJson(byName(ours), byName(theirs), path);
}

function isRecord(value: Json | undefined): value is { readonly [key: string]: Json } {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function brief(value: Json | undefined): string {
  const text = JSON.stringify(value);
  return text.length > 100 ? `${text.slice(0, 100)}…` : text;
}
