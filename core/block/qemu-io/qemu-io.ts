import fs from 'node:fs';
import { performance } from 'node:perf_hooks';
import { BlockBackend } from '../backend.ts';
import { BlkdebugNode } from '../blkdebug.ts';
import type { BlockGraph } from '../graph.ts';
import { BlockError, errno, errnoOf, errnoText, IoError, reason } from '../io-error.ts';
import { IoVector } from '../io-vector.ts';
import { allocatedAbove } from '../jobs/copy.ts';
import { findBackend } from '../media.ts';
import type { BlockNode } from '../node.ts';
import { parseSize } from '../options.ts';
import { perm } from '../permissions.ts';
import { reopen } from '../reopen.ts';
import { MAX_REQUEST, type NodeSettings, PREALLOCATIONS, writeFlag } from '../requests.ts';
import { amount, hexDump, transferReport } from './report.ts';

/** What a command is given: its words, taken apart. */
class Words {
  readonly #flags = new Set<string>();
  readonly #values = new Map<string, string>();
  readonly rest: string[] = [];

  /** `taking`: the flags that have a value. */
  constructor(words: readonly string[], taking: string) {
    for (let index = 0; index < words.length; index++) {
      const word = words[index] ?? '';
      if (!/^-[a-z]/i.test(word)) {
        this.rest.push(word);
        continue;
      }
      for (let at = 1; at < word.length; at++) {
        const letter = word[at] ?? '';
        if (!taking.includes(letter)) this.#flags.add(letter);
        else {
          this.#values.set(letter, word.slice(at + 1) || (words[++index] ?? ''));
          break;
        }
      }
    }
  }

  flag(letter: string): boolean {
    return this.#flags.has(letter);
  }

  value(letter: string): string | undefined {
    return this.#values.get(letter);
  }

  size(index: number): number {
    return numberOf(this.rest[index] ?? '');
  }

  get pattern(): number | undefined {
    const text = this.value('P');
    if (text === undefined) return undefined;
    const value = Number(text);
    if (Number.isInteger(value) && value >= 0 && value <= 0xff) return value;
    throw new Complaint(`${text} is not a valid pattern byte\n`);
  }
}

/** Ends a command with what it says about that. */
class Complaint extends Error {}

function numberOf(text: string): number {
  const value = parseSize(text);
  if (value !== undefined) return value;
  throw new Complaint(`Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- ${text}\n`);
}

function lengthOf(text: string): number {
  const bytes = numberOf(text);
  if (bytes <= MAX_REQUEST) return bytes;
  throw new Complaint(`length cannot exceed ${MAX_REQUEST}, given ${text}\n`);
}

interface Target {
  readonly graph: BlockGraph;
  readonly backend: BlockBackend;
  readonly node: BlockNode;
  print(text: string): void;
}

interface Command {
  readonly names: readonly string[];
  /** Least and most number of words after the name. */
  readonly words: readonly [number, number];
  /** The flags that have a value. */
  readonly taking?: string;
  readonly perm?: number;
  /** The monitor does not wait for its end. */
  readonly detached?: boolean;
  run(target: Target, words: Words): void | Promise<void>;
}

/**
 * Executes a line of qemu-io's language on a device or node, as the monitor's `qemu-io` does.
 *
 * @param named a backend or node; with `isDevice` the id of a device
 * @param print takes what the command says, also when it is over long after this returned (`aio_read`, `aio_write`)
 * @returns what the one who asked is told instead: why the command may not be executed
 */
export async function qemuIo(
  graph: BlockGraph,
  named: string,
  line: string,
  print: (text: string) => void,
  isDevice = false,
): Promise<string | undefined> {
  const own = isDevice ? findBackend(graph, undefined, named) : graph.backend(named);
  const [name, ...words] = line.split(' ').filter(word => word !== '');
  if (name === undefined) return undefined;
  const command = COMMANDS.find(({ names }) => names.includes(name));
  if (command === undefined) {
    print(`command "${name}" not found\n`);
    return undefined;
  }
  const [least, most] = command.words;
  if (words.length < least || words.length > most) {
    const expected =
      most === Number.POSITIVE_INFINITY
        ? `at least ${least}`
        : least === most
          ? `${least}`
          : `between ${least} and ${most}`;
    print(`bad argument count ${words.length} to ${name}, expected ${expected} arguments\n`);
    return undefined;
  }
  const node = own === undefined ? graph.lookupPair(undefined, named) : own.root;
  if (node === undefined) {
    print(`${name} failed: ${errnoText(errno.ENOMEDIUM)}\n`);
    return undefined;
  }
  const backend = own ?? new BlockBackend(graph);
  const before = backend.permissions;
  const release = async (): Promise<void> => {
    if (own === undefined) await backend.close();
    else if (own.inserted) own.setPermissions(before);
  };
  try {
    if (own === undefined) backend.insert(node);
    backend.setPermissions({ perm: before.perm | (command.perm ?? 0), shared: before.shared });
  } catch (error) {
    await release();
    return `${reason(error)}\n`;
  }
  const work = run(command, { graph, backend, node, print }, new Words(words, command.taking ?? '')).finally(release);
  if (command.detached !== true) await work;
  return undefined;
}

async function run(command: Command, target: Target, words: Words): Promise<void> {
  try {
    await command.run(target, words);
  } catch (error) {
    if (error instanceof Complaint) target.print(error.message);
    else if (error instanceof BlockError) throw error;
    else target.print(`${command.names[0]} failed: ${reason(error)}\n`);
  }
}

/** @throws IoError where the request failed */
async function finish(result: number | Promise<number>): Promise<void> {
  const number = await result;
  if (number !== 0) throw new IoError(number);
}

/** Times a transfer and reports it. */
async function timed(
  { print }: Target,
  words: Words,
  what: { readonly done: string; readonly offset: number; readonly bytes: number },
  request: () => number | Promise<number>,
  check: () => void = () => {},
): Promise<void> {
  const started = performance.now();
  await finish(request());
  const ms = performance.now() - started;
  check();
  if (!words.flag('q')) print(transferReport(what.done, what.offset, what.bytes, ms, words.flag('C')));
}

function totalLength(lengths: readonly string[]): number {
  const total = lengths.reduce((sum, text) => sum + lengthOf(text), 0);
  if (total <= MAX_REQUEST) return total;
  throw new Complaint(`The total number of bytes exceed the maximum size ${MAX_REQUEST}\n`);
}

async function read(target: Target, words: Words): Promise<void> {
  const offset = words.size(0);
  const bytes = totalLength(words.rest.slice(1));
  const { pattern } = words;
  const from = numberOf(words.value('s') ?? '0');
  const length = words.value('l') === undefined ? bytes - from : numberOf(words.value('l') ?? '');
  if (from + length > bytes) throw new Complaint('pattern verification range exceeds end of read data\n');
  const buffer = new Uint8Array(bytes).fill(0xab);
  await timed(
    target,
    words,
    { done: 'read', offset, bytes },
    () => target.backend.readv(offset, IoVector.of(buffer)),
    () => {
      if (pattern !== undefined && buffer.subarray(from, from + length).some(byte => byte !== pattern))
        target.print(`Pattern verification failed at offset ${offset + from}, ${length} bytes\n`);
      if (words.flag('v') && !words.flag('q')) target.print(hexDump(buffer, offset));
    },
  );
}

async function write(target: Target, words: Words): Promise<void> {
  const zeroes = words.flag('z');
  for (const letter of ['n', 'u'])
    if (words.flag(letter) && !zeroes) throw new Complaint(`-${letter} requires -z to be specified\n`);
  const { pattern } = words;
  const source = words.value('s');
  if ([zeroes, pattern !== undefined, source !== undefined].filter(Boolean).length > 1)
    throw new Complaint('Only one of -z, -P, and -s can be specified at the same time\n');
  const offset = words.size(0);
  const flags = words.flag('f') ? writeFlag.FUA : 0;
  if (zeroes) {
    const bytes = numberOf(words.rest[1] ?? '');
    const how = flags | (words.flag('u') ? writeFlag.MAY_UNMAP : 0) | (words.flag('n') ? writeFlag.NO_FALLBACK : 0);
    await timed(target, words, { done: 'wrote', offset, bytes }, () => target.backend.writeZeroes(offset, bytes, how));
    return;
  }
  const bytes = totalLength(words.rest.slice(1));
  const buffer = new Uint8Array(bytes).fill(pattern ?? 0xcd);
  if (source !== undefined) fillFrom(buffer, source);
  const compressed = words.flag('c') ? writeFlag.COMPRESSED : 0;
  await timed(target, words, { done: 'wrote', offset, bytes }, () =>
    target.backend.writev(offset, IoVector.of(buffer), bytes, 0, flags | compressed),
  );
}

/** Fills a buffer with the content of a file, again and again. */
function fillFrom(buffer: Uint8Array, path: string): void {
  let content: Uint8Array;
  try {
    content = fs.readFileSync(path);
  } catch (error) {
    throw new Complaint(`${path}: ${errnoText(errnoOf(error))}\n`);
  }
  if (content.length === 0) throw new Complaint(`${path}: file is empty\n`);
  for (let at = 0; at < buffer.length; at += content.length)
    buffer.set(content.subarray(0, Math.min(content.length, buffer.length - at)), at);
}

/** Whether the node itself has what lies at an offset, and for how far that is the same. */
async function allocated(node: BlockNode, at: number, bytes: number): Promise<{ yes: boolean; bytes: number }> {
  const found = await allocatedAbove(node, node.withoutFilters.backing, at, bytes);
  return { yes: found.allocated, bytes: found.bytes };
}

async function alloc({ node, print }: Target, words: Words): Promise<void> {
  const offset = words.size(0);
  const wanted = words.rest.length > 1 ? words.size(1) : 512;
  const count = Math.max(0, Math.min(wanted, node.length - offset));
  let sum = 0;
  for (let done = 0; done < count; ) {
    const found = await allocated(node, offset + done, count - done);
    if (found.yes) sum += found.bytes;
    done += found.bytes;
  }
  print(`${sum}/${count} bytes allocated at offset ${amount(offset)}\n`);
}

async function map({ node, print }: Target): Promise<void> {
  for (let at = 0; at < node.length; ) {
    const first = await allocated(node, at, node.length - at);
    let { bytes } = first;
    while (at + bytes < node.length) {
      const next = await allocated(node, at + bytes, node.length - at - bytes);
      if (next.yes !== first.yes) break;
      bytes += next.bytes;
    }
    const state = first.yes ? '    allocated' : 'not allocated';
    print(`${amount(bytes)} (0x${bytes.toString(16)}) bytes ${state} at offset ${amount(at)} (0x${at.toString(16)})\n`);
    at += bytes;
  }
}

async function truncate({ graph, node, print }: Target, words: Words): Promise<void> {
  const preallocation = PREALLOCATIONS.find(name => name === (words.value('m') ?? 'off'));
  if (preallocation === undefined) throw new Complaint(`Invalid parameter '${words.value('m') ?? ''}'\n`);
  const size = words.size(0);
  try {
    await graph.drained(() => node.truncate(size, { preallocation }));
  } catch (error) {
    print(`${reason(error)}\n`);
  }
}

/** What `backing.cache.direct=on` is about: which node, and which setting of it. */
function settingNamed(node: BlockNode, key: string, value: string): readonly [BlockNode, Partial<NodeSettings>] {
  const [child = '', ...rest] = key.split('.');
  const below = node.children.get(child)?.node;
  if (below !== undefined && rest.length > 0) return settingNamed(below, rest.join('.'), value);
  const on = value === 'on' || value === 'true' || value === 'yes';
  if (key === 'read-only') return [node, { readOnly: on }];
  if (key === 'cache.direct') return [node, { direct: on }];
  if (key === 'cache.no-flush') return [node, { noFlush: on }];
  if (key === 'discard') return [node, { discard: on || value === 'unmap' }];
  if (key === 'detect-zeroes' && (value === 'off' || value === 'on' || value === 'unmap'))
    return [node, { detectZeroes: value }];
  throw new Complaint(`Cannot change the option '${key}'\n`);
}

async function reopenNode({ graph, node, print }: Target, words: Words): Promise<void> {
  if (words.value('c') !== undefined)
    throw new Complaint('reopen: -c is not supported by this program: take -o cache.direct and cache.no-flush\n');
  const readOnly = words.flag('r') ? true : words.flag('w') ? false : node.readOnly;
  const changes = new Map<BlockNode, Partial<NodeSettings>>([[node, { readOnly }]]);
  for (const option of words.value('o')?.split(',') ?? []) {
    const [key = '', value = ''] = option.split('=');
    const [changed, setting] = settingNamed(node, key, value);
    changes.set(changed, { ...changes.get(changed), ...setting });
  }
  try {
    await graph.drained(async () => {
      for (const [changed, settings] of changes) await reopen(changed, settings);
    });
  } catch (error) {
    print(`${reason(error)}\n`);
  }
}

function debugged(node: BlockNode): BlkdebugNode {
  for (let at: BlockNode | undefined = node; at !== undefined; at = at.file) if (at instanceof BlkdebugNode) return at;
  throw new IoError(errno.EOPNOTSUPP);
}

function attempt({ print }: Target, what: string, action: () => void): void {
  try {
    action();
  } catch (error) {
    print(`${what}: ${errnoText(errnoOf(error))}\n`);
  }
}

const MANY = Number.POSITIVE_INFINITY;
const WRITE = perm.WRITE;

const COMMANDS: readonly Command[] = [
  { names: ['read', 'r'], words: [2, MANY], taking: 'Psl', run: read },
  { names: ['readv', 'rv'], words: [2, MANY], taking: 'P', run: read },
  { names: ['aio_read'], words: [2, MANY], taking: 'P', detached: true, run: read },
  { names: ['write', 'w'], words: [2, MANY], taking: 'Ps', perm: WRITE, run: write },
  { names: ['writev', 'wv'], words: [2, MANY], taking: 'P', perm: WRITE, run: write },
  { names: ['aio_write'], words: [2, MANY], taking: 'P', perm: WRITE, detached: true, run: write },
  { names: ['flush', 'f'], words: [0, 0], run: ({ backend }) => finish(backend.flush()) },
  {
    names: ['aio_flush'],
    words: [0, 0],
    async run({ graph }) {
      await graph.drained(() => undefined);
    },
  },
  {
    names: ['discard', 'd'],
    words: [2, MANY],
    perm: WRITE,
    run(target, words) {
      const offset = words.size(0);
      const bytes = words.size(1);
      return timed(target, words, { done: 'discard', offset, bytes }, () => target.backend.discard(offset, bytes));
    },
  },
  { names: ['truncate', 't'], words: [1, 3], taking: 'm', perm: WRITE | perm.RESIZE, run: truncate },
  { names: ['length', 'l'], words: [0, 0], run: ({ node, print }) => print(`${amount(node.length)}\n`) },
  { names: ['alloc', 'a'], words: [1, 2], run: alloc },
  { names: ['map'], words: [0, 0], run: map },
  { names: ['reopen'], words: [0, MANY], taking: 'co', run: reopenNode },
  {
    names: ['break'],
    words: [2, 2],
    run: (target, { rest: [event = '', tag = ''] }) =>
      attempt(target, 'Could not set breakpoint', () => debugged(target.node).break(event, tag)),
  },
  {
    names: ['remove_break'],
    words: [1, 1],
    run: (target, { rest: [tag = ''] }) =>
      attempt(target, `Could not remove breakpoint ${tag}`, () => debugged(target.node).removeBreak(tag)),
  },
  {
    names: ['resume'],
    words: [1, 1],
    run: (target, { rest: [tag = ''] }) =>
      attempt(target, 'Could not resume request', () => debugged(target.node).resume(tag)),
  },
  {
    names: ['wait_break'],
    words: [1, 1],
    async run({ node }, { rest: [tag = ''] }) {
      while (!debugged(node).isSuspended(tag)) await new Promise(resolve => setImmediate(resolve));
    },
  },
  {
    names: ['sleep'],
    words: [1, 1],
    run: (_, { rest: [ms = ''] }) => new Promise(resolve => setTimeout(resolve, numberOf(ms))),
  },
  { names: ['abort'], words: [0, 0], run: () => process.abort() },
  {
    names: ['sigraise'],
    words: [1, 1],
    run(_, { rest: [signal = ''] }) {
      process.kill(process.pid, numberOf(signal));
    },
  },
];
