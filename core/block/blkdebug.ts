import { readFile } from 'node:fs/promises';
import type { BlockDriver, OpenContext } from './driver.ts';
import type { BlockGraph } from './graph.ts';
import { BlockError, errno, IoError, reason } from './io-error.ts';
import type { IoVector } from './io-vector.ts';
import { BlockNode } from './node.ts';
import type { BlockOptions } from './options.ts';
import { type Maybe, type Pending, start, type Task } from './pending.ts';
import { type Permissions, permNamed } from './permissions.ts';
import { settingsAlone } from './reopen-steps.ts';
import type { BlockStatus, NodeSettings } from './requests.ts';

/** What the nodes above tell a blkdebug node of, in the order of QEMU's enumeration. */
const EVENTS = new Set(
  (
    'l1_update l1_grow_alloc_table l1_grow_write_table l1_grow_activate_table l2_load l2_update l2_update_compressed ' +
    'l2_alloc_cow_read l2_alloc_write read_aio read_backing_aio read_compressed write_aio write_compressed vmstate_load ' +
    'vmstate_save cow_read cow_write reftable_load reftable_grow reftable_update refblock_load refblock_update ' +
    'refblock_update_part refblock_alloc refblock_alloc_hookup refblock_alloc_write refblock_alloc_write_blocks ' +
    'refblock_alloc_write_table refblock_alloc_switch_table cluster_alloc cluster_alloc_bytes cluster_free flush_to_os ' +
    'flush_to_disk pwritev_rmw_head pwritev_rmw_after_head pwritev_rmw_tail pwritev_rmw_after_tail pwritev pwritev_zero ' +
    'pwritev_done empty_image_prepare l1_shrink_write_table l1_shrink_free_l2_clusters cor_write cluster_alloc_space none'
  ).split(' '),
);

const REQUESTS = ['read', 'write', 'write-zeroes', 'discard', 'flush', 'block-status'] as const;
type Request = (typeof REQUESTS)[number];

interface Rule {
  readonly event: string;
  /** 0 for any state. */
  readonly state: number;
  readonly action:
    | {
        readonly kind: 'inject-error';
        readonly errno: number;
        readonly once: boolean;
        readonly immediately: boolean;
        /** In bytes; -1 for any. */
        readonly offset: number;
        readonly requests: readonly Request[];
      }
    | { readonly kind: 'set-state'; readonly newState: number }
    | { readonly kind: 'suspend'; readonly tag: string };
}

type Injection = Extract<Rule['action'], { kind: 'inject-error' }>;

/** Fails, or holds up, the requests that its rules name: for testing what happens above it. */
export class BlkdebugNode extends BlockNode {
  #rules: Rule[];
  #state = 1;
  #active: Rule[] = [];
  #suspended: { readonly tag: string; readonly resume: () => void }[] = [];

  readonly #permissions: { readonly taken: number; readonly unshared: number };

  constructor(
    graph: BlockGraph,
    settings: NodeSettings,
    rules: readonly Rule[],
    align: number,
    maxTransfer: number,
    permissions: { readonly taken: number; readonly unshared: number },
  ) {
    super(graph, blkdebugDriver, settings);
    this.#rules = [...rules];
    if (align > 0) this.requestAlignment = align;
    this.maxTransfer = maxTransfer;
    this.#permissions = permissions;
    graph.debugging = true;
  }

  get #below(): BlockNode {
    const { file } = this;
    if (file === undefined) throw new IoError(errno.ENOMEDIUM);
    return file;
  }

  override get file(): BlockNode | undefined {
    return this.children.get('image')?.node;
  }

  override childPermissions(name: string, needed: number, shared: number): Permissions {
    const usual = super.childPermissions(name, needed, shared);
    return { perm: usual.perm | this.#permissions.taken, shared: usual.shared & ~this.#permissions.unshared };
  }

  override get length(): number {
    return this.file?.length ?? 0;
  }

  override debugEvent(event: string): Pending {
    let newState = this.#state;
    let fresh = true;
    const waits: Promise<void>[] = [];
    for (const rule of [...this.#rules].reverse()) {
      if (rule.event !== event || (rule.state !== 0 && rule.state !== this.#state)) continue;
      const { action } = rule;
      if (action.kind === 'set-state') newState = action.newState;
      else if (action.kind === 'inject-error') {
        if (fresh) this.#active = [];
        fresh = false;
        this.#active.unshift(rule);
      } else {
        this.#rules = this.#rules.filter(other => other !== rule);
        waits.push(
          new Promise(resume => {
            this.#suspended.unshift({ tag: action.tag, resume });
          }),
        );
      }
    }
    this.#state = newState;
    return waits.length === 0 ? undefined : Promise.all(waits).then(() => {});
  }

  /** Suspends the next request that comes to `event`. */
  break(event: string, tag: string): void {
    if (!EVENTS.has(event)) throw new IoError(errno.ENOENT);
    this.#rules.push({ event, state: 0, action: { kind: 'suspend', tag } });
  }

  /** @throws IoError ENOENT where no request is suspended under that tag */
  resume(tag: string): void {
    const index = this.#suspended.findIndex(request => request.tag === tag);
    const request = this.#suspended[index];
    if (request === undefined) throw new IoError(errno.ENOENT);
    this.#suspended.splice(index, 1);
    request.resume();
  }

  removeBreak(tag: string): void {
    const before = this.#rules.length + this.#suspended.length;
    this.#rules = this.#rules.filter(({ action }) => action.kind !== 'suspend' || action.tag !== tag);
    for (const request of this.#suspended.filter(suspended => suspended.tag === tag)) request.resume();
    this.#suspended = this.#suspended.filter(suspended => suspended.tag !== tag);
    if (this.#rules.length + this.#suspended.length === before) throw new IoError(errno.ENOENT);
  }

  isSuspended(tag: string): boolean {
    return this.#suspended.some(request => request.tag === tag);
  }

  #injected(request: Request, offset: number, bytes: number): Injection | undefined {
    for (const rule of this.#active) {
      const { action } = rule;
      if (action.kind !== 'inject-error' || !action.requests.includes(request)) continue;
      if (action.offset !== -1 && !(bytes > 0 && action.offset >= offset && action.offset < offset + bytes)) continue;
      if (action.errno === 0) return undefined;
      if (action.once) {
        this.#active = this.#active.filter(other => other !== rule);
        this.#rules = this.#rules.filter(other => other !== rule);
      }
      return action;
    }
    return undefined;
  }

  #checked(request: Request, offset: number, bytes: number, pass: () => Pending): Pending {
    const injection = this.#injected(request, offset, bytes);
    if (injection === undefined) return pass();
    if (injection.immediately) throw new IoError(injection.errno);
    return new Promise((_, reject) => {
      setImmediate(() => reject(new IoError(injection.errno)));
    });
  }

  protected override pread(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    return this.#checked('read', offset, bytes, () => this.#below.readv(offset, bytes, iov, at));
  }

  protected override pwrite(offset: number, bytes: number, iov: IoVector, at: number, flags: number): Pending {
    return this.#checked('write', offset, bytes, () => this.#below.writev(offset, bytes, iov, at, flags));
  }

  protected override pwriteZeroes(offset: number, bytes: number, flags: number): Pending {
    return this.#checked('write-zeroes', offset, bytes, () => this.#below.writeZeroes(offset, bytes, flags));
  }

  protected override pdiscard(offset: number, bytes: number): Pending {
    return this.#checked('discard', offset, bytes, () => this.#below.discard(offset, bytes));
  }

  protected override flushToDisk(): Pending {
    return this.#checked('flush', 0, 0, () => this.#below.flush());
  }

  protected override ptruncate(size: number, options: object): Pending {
    return this.#below.truncate(size, options);
  }

  protected override pstatus(offset: number, bytes: number): Maybe<BlockStatus> {
    const injection = this.#injected('block-status', offset, bytes);
    if (injection !== undefined) throw new IoError(injection.errno);
    return { bytes, allocated: true, data: true, zero: false, offset, file: this.#below };
  }
}

function eventOf(name: string | undefined): string {
  if (name === undefined) throw new BlockError('Missing event name for rule');
  if (!EVENTS.has(name)) throw new BlockError(`Invalid parameter '${name}'`);
  return name;
}

function injectRule(options: BlockOptions): Rule {
  const event = eventOf(options.string('event'));
  const sector = options.number('sector');
  const request = options.choice('iotype', REQUESTS);
  return {
    event,
    state: options.number('state') ?? 0,
    action: {
      kind: 'inject-error',
      errno: options.number('errno') ?? errno.EIO,
      once: options.bool('once') ?? false,
      immediately: options.bool('immediately') ?? false,
      offset: sector === undefined ? -1 : sector * 512,
      requests: request === undefined ? REQUESTS.filter(name => name !== 'block-status') : [request],
    },
  };
}

function stateRule(options: BlockOptions): Rule {
  const event = eventOf(options.string('event'));
  const state = options.number('state') ?? 0;
  return { event, state, action: { kind: 'set-state', newState: options.number('new_state') ?? 0 } };
}

/**
 * A file of rules: `[inject-error]` or `[set-state]`, then lines `name = "value"`. Nobody else waits until it is there: it may be
 * a pipe.
 */
async function readConfig(path: string, optionsOf: (values: [string, string][]) => BlockOptions): Promise<Rule[]> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw new BlockError(`Could not read blkdebug config file: ${reason(error)}`, { cause: error });
  }
  const groups: { readonly name: string; readonly values: [string, string][] }[] = [];
  for (const line of text.split('\n')) {
    const group = /^\s*\[([a-z-]+)\]/.exec(line);
    const value = /^\s*([a-z_-]+)\s*=\s*"(.*)"/.exec(line);
    if (group?.[1] !== undefined) groups.push({ name: group[1], values: [] });
    else if (value?.[1] !== undefined) groups.at(-1)?.values.push([value[1], value[2] ?? '']);
  }
  return groups.map(({ name, values }) => {
    if (name === 'inject-error') return injectRule(optionsOf(values));
    if (name === 'set-state') return stateRule(optionsOf(values));
    throw new BlockError(`There is no option group '${name}'`);
  });
}

async function open(context: OpenContext): Promise<BlockNode> {
  const { options, settings, graph } = context;
  const config = options.string('config');
  const emptyLike = (values: [string, string][]): BlockOptions => {
    const copy = options.copy();
    for (const key of copy.keys()) copy.delete(key);
    for (const [key, value] of values) copy.set(key, value);
    return copy;
  };
  const rules: Rule[] = [];
  if (config !== undefined) rules.push(...(await readConfig(config, emptyLike)));
  rules.push(
    ...ruleOptions(options, 'inject-error').map(injectRule),
    ...ruleOptions(options, 'set-state').map(stateRule),
  );
  const align = options.bytes('align') ?? 0;
  if (align > 0 && (align & (align - 1)) !== 0) throw new BlockError(`Cannot meet constraints with align ${align}`);
  const maxTransfer = options.bytes('max-transfer') ?? 0;
  if (align > 0 && maxTransfer % align !== 0)
    throw new BlockError(`Cannot meet constraints with max-transfer ${maxTransfer}`);
  for (const limit of ['opt-write-zero', 'max-write-zero', 'opt-discard', 'max-discard']) options.bytes(limit);
  const permissions = {
    taken: permList(options, 'take-child-perms'),
    unshared: permList(options, 'unshare-child-perms'),
  };
  const image = await context.child('image', {}, options.string('x-image'), true);
  context.followReadOnly(image);
  const node = new BlkdebugNode(graph, settings, rules, align, maxTransfer, permissions);
  node.filename = image.filename === '' ? '' : `blkdebug:${config ?? ''}:${image.filename}`;
  node.attach('image', image);
  start(announce(node));
  return node;
}

function permList(options: BlockOptions, name: string): number {
  return options.list(name).reduce((bits, item) => bits | permNamed(item.string('') ?? ''), 0);
}

function ruleOptions(options: BlockOptions, name: string): BlockOptions[] {
  const items = options.list(name);
  if (items.length > 0) return items;
  const single = options.child(name);
  return single.size > 0 ? [single] : [];
}

function* announce(node: BlkdebugNode): Task {
  const waiting = node.debugEvent('none');
  if (waiting) yield waiting;
}

export const blkdebugDriver: BlockDriver = {
  name: 'blkdebug',
  kind: 'filter',
  isProtocol: true,
  reopening: settingsAlone,
  schemes: ['blkdebug'],
  parseFilename(filename, options) {
    const rest = filename.replace(/^blkdebug:/, '');
    const colon = rest.indexOf(':');
    if (colon < 0) throw new BlockError('blkdebug requires both config file and image path');
    if (colon > 0) options.set('config', rest.slice(0, colon));
    options.set('x-image', rest.slice(colon + 1));
  },
  open,
};
