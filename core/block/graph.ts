import fs from 'node:fs';
import { didYouMean } from '../errors.ts';
import type { BlockBackend } from './backend.ts';
import { checkNotBacking, checkNotBusy } from './busy.ts';
import { reaches } from './chain.ts';
import { type BlockDriver, OpenContext } from './driver.ts';
import type { BlockEvent } from './events.ts';
import { isWellFormedId } from './identifier.ts';
import { BlockError, IoError, reason } from './io-error.ts';
import { IoVector } from './io-vector.ts';
import { parseJson } from './json-filename.ts';
import type { Secure } from './nbd/protocol.ts';
import type { BlockNode } from './node.ts';
import { ownOptions, takeSettings } from './node-settings.ts';
import { BlockOptions } from './options.ts';
import { type EdgeParent, settlePermissions } from './permissions.ts';
import type { NodeSettings } from './requests.ts';
import { type ThrottleClock, ThrottleGroup } from './throttle.ts';

/** How much of an image a driver sees to recognise it. */
const PROBE_BYTES = 2048;

/** How long the end of the process waits for requests that hang, for each backend, in milliseconds. */
const CLOSE_MS = 5000;

/** What may be made drained: no new requests begin, and none is under way. */
export interface Drainable {
  /** Lets no more requests begin, and waits for those under way. */
  quiesce(): Promise<void>;
  unquiesce(): void;
}

/** All block nodes and backends of a process, by name. */
export class BlockGraph {
  readonly #drivers = new Map<string, BlockDriver>();
  readonly #nodes = new Map<string, BlockNode>();
  readonly #backends = new Map<string, BlockBackend>();
  /** Those without a name as well, in order of making. */
  readonly backends = new Set<BlockBackend>();
  readonly drainables = new Set<Drainable>();
  readonly #listeners = new Set<(event: BlockEvent) => void>();
  /** Stops the machine because of an I/O error; the run loop sets it. */
  stopMachine: () => void = () => {};
  /** Cancels what works on nodes by itself; whoever runs such work sets it. */
  endJobs: () => Promise<void> = async () => {};
  /** Whether there is a device of that id or path at all; whoever has devices sets it. */
  isDevice: (id: string) => boolean = () => false;
  /** The bytes of the object `secret` of that name; whoever has such objects sets it. */
  secret: (name: string) => Promise<Uint8Array> = async name => {
    throw new BlockError(`No secret with id '${name}'`);
  };
  /** What makes a connection a TLS client's, with the credentials of that name; whoever has such objects sets it. */
  tlsClient: (creds: string, hostname: string | undefined) => Promise<Secure> = async creds => {
    throw new BlockError(`No TLS credentials with id '${creds}'`);
  };
  /** There is a node that listens to debug events. */
  debugging = false;
  /**
   * Another process has the images: one that the machine comes from, or that it went to. No locks are held, and nothing is
   * written.
   */
  inactive = false;
  readonly throttleGroups = new Map<string, ThrottleGroup>();
  /** What limits are measured by, where it is not the host's clock: a test's, or qtest's. */
  throttleClock: ThrottleClock | undefined;
  /** Ends the program with a message: what is being tested is wrong, and nothing more may happen to it. */
  abort: (message: string) => void = message => {
    throw new BlockError(message);
  };
  /** For messages that are no errors. */
  warn: (message: string) => void = () => {};
  /** For what is no message: standard output. */
  print: (text: string) => void = () => {};
  /** For messages in QEMU's words that stand without the program's name. */
  notice: (message: string) => void = () => {};
  #generated = 0;

  constructor(drivers: Iterable<BlockDriver>) {
    for (const driver of drivers) this.#drivers.set(driver.name, driver);
  }

  /** Calls `listener` with all that happens from now on; the result stops that. */
  onEvent(listener: (event: BlockEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  emit(event: BlockEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  drivers(): Iterable<BlockDriver> {
    return this.#drivers.values();
  }

  driver(name: string): BlockDriver {
    const driver = this.#drivers.get(name);
    if (driver === undefined) {
      const hint = didYouMean(name, this.#drivers.keys());
      throw new BlockError(`Unknown driver '${name}'`, hint === undefined ? {} : { hint });
    }
    return driver;
  }

  /** Nodes in order of making, the newest first as QEMU lists them. */
  nodes(): BlockNode[] {
    return [...this.#nodes.values()].reverse();
  }

  /** What keeps the machine from going to another process, in QEMU's words. */
  migrationBlockers(): string[] {
    return this.nodes()
      .filter(({ driver }) => driver.blocksMigration)
      .map(
        ({ driver, nodeName }) =>
          `The ${driver.name} format used by node '${nodeName}' does not support live migration`,
      );
  }

  node(name: string): BlockNode | undefined {
    return this.#nodes.get(name);
  }

  backend(name: string): BlockBackend | undefined {
    return this.#backends.get(name);
  }

  /** @throws BlockError where the name is taken */
  nameBackend(backend: BlockBackend, name: string): void {
    if (this.#backends.has(name)) throw new BlockError(`Device with id '${name}' already exists`);
    if (this.#nodes.has(name)) throw new BlockError(`Device name '${name}' conflicts with an existing node name`);
    this.#backends.set(name, backend);
  }

  forgetBackend(name: string): void {
    this.#backends.delete(name);
  }

  /** The node of that name, or the one under the backend of that name. */
  lookup(reference: string): BlockNode {
    const backend = this.#backends.get(reference);
    if (backend !== undefined) {
      if (backend.root === undefined) throw new BlockError(`Device '${reference}' has no medium`);
      return backend.root;
    }
    return this.lookupPair(reference, reference);
  }

  /** The node that a QMP command names by `device`, `node-name` or both. */
  lookupPair(device: string | undefined, nodeName: string | undefined): BlockNode {
    if (device !== undefined) {
      const backend = this.#backends.get(device);
      if (backend !== undefined) {
        if (backend.root === undefined) throw new BlockError(`Device '${device}' has no medium`);
        return backend.root;
      }
    }
    const node = nodeName === undefined ? undefined : this.#nodes.get(nodeName);
    if (node !== undefined) return node;
    throw new BlockError(`Cannot find device='${device ?? ''}' nor node-name='${nodeName ?? ''}'`, {
      code: 'ERR_BLOCK_NOT_FOUND',
    });
  }

  /** Opens the tree of nodes that `-blockdev` or `blockdev-add` describes, and keeps it for the monitor. */
  async add(options: BlockOptions): Promise<BlockNode> {
    if (options.peek('node-name') === undefined)
      throw new BlockError("'node-name' must be specified for the root node");
    const node = await this.openTree(undefined, options, {}, false);
    node.monitorOwned = true;
    return node;
  }

  /** Takes a node from the monitor and closes it. */
  async delete(name: string): Promise<void> {
    const node = this.#nodes.get(name);
    if (node === undefined) throw new BlockError(`Failed to find node with node-name='${name}'`);
    for (const edge of node.parents) {
      if (edge.name === 'root') throw new BlockError(`Node ${name} is in use`);
    }
    checkNotBusy(node);
    checkNotBacking(node);
    if (!node.monitorOwned) throw new BlockError(`Node ${name} is not owned by the monitor`);
    if (node.parents.size > 0) throw new BlockError(`Block device ${name} is in use`);
    node.monitorOwned = false;
    await this.released(node);
  }

  /**
   * Opens a node and all below it.
   *
   * @param filename a path, `nbd:...`, `json:...`; undefined where the options say it all
   * @param inherited settings for what the options leave open
   * @param asProtocol a protocol is wanted: the file name is not probed for a format
   */
  async openTree(
    filename: string | undefined,
    options: BlockOptions,
    inherited: Partial<NodeSettings>,
    asProtocol: boolean,
  ): Promise<BlockNode> {
    const reference = options.string('');
    if (reference !== undefined) return this.lookup(reference);
    const given = options.copy();
    let parseName = filename !== undefined;
    if (filename?.startsWith('json:') === true) {
      for (const [key, value] of parseJson(filename.slice(5)).entries()) options.setDefault(key, value);
      filename = undefined;
    }
    const driverName = options.string('driver');
    let driver = driverName === undefined ? undefined : this.driver(driverName);
    if (driver !== undefined) asProtocol = driver.kind === 'protocol' || driver.isProtocol === true;
    if (asProtocol && filename !== undefined) {
      if (options.has('filename')) throw new BlockError("Can't specify 'file' and 'filename' options at the same time");
      options.set('filename', filename);
      filename = undefined;
    } else {
      parseName = false;
    }
    // A format under a node that was given a file name: the name is that of its file.
    if (driver?.kind === 'format' && filename === undefined && options.peek('filename') !== undefined)
      filename = options.string('filename');
    const settings = takeSettings(options, inherited);
    const nodeName = this.#checkedName(options.string('node-name'));
    if (driver === undefined && asProtocol) {
      const name = options.peek('filename');
      if (typeof name !== 'string') throw new BlockError('Must specify either driver or file');
      driver = this.#protocolFor(name, parseName);
    }
    if (driver?.parseFilename !== undefined && parseName) {
      const name = options.string('filename');
      if (name !== undefined) driver.parseFilename(name, options);
    }
    const node =
      driver === undefined
        ? await this.#openProbed(filename, options, settings, nodeName)
        : await this.#openNode(driver, filename, options, settings, nodeName, false);
    node.given = ownOptions(node, given.set('driver', node.driver.name));
    return node;
  }

  async #openProbed(
    filename: string | undefined,
    options: BlockOptions,
    settings: NodeSettings,
    nodeName: string | undefined,
  ): Promise<BlockNode> {
    const byReference = options.has('file');
    const { driver, file, guessedRaw } = await this.#probe(filename, options, settings);
    try {
      const node = await this.#openNode(driver, undefined, options, settings, nodeName, guessedRaw);
      if (!byReference) file.inheritsFrom = node;
      return node;
    } catch (error) {
      await this.released(file);
      throw error;
    }
  }

  async #openNode(
    driver: BlockDriver,
    filename: string | undefined,
    options: BlockOptions,
    settings: NodeSettings,
    nodeName: string | undefined,
    guessedRaw: boolean,
  ): Promise<BlockNode> {
    if (filename !== undefined) {
      // A format over a file name: the name is the child's.
      options.set('file.filename', filename);
      if (!options.has('file.driver')) {
        const protocol = this.#protocolFor(filename, true);
        options.set('file.driver', protocol.name);
        if (protocol.parseFilename !== undefined) {
          const child = new BlockOptions();
          protocol.parseFilename(filename, child);
          options.delete('file.filename');
          for (const [key, value] of child.entries()) options.setDefault(`file.${key}`, value);
        }
      }
    }
    // Nothing is what most images are backed by.
    if (driver.supportsBacking !== true && options.peek('backing') === null) options.delete('backing');
    const context = new OpenContext(this, driver, options, settings, made => this.#register(made, nodeName));
    let node: BlockNode | undefined;
    try {
      node = await driver.open(context);
      const [unknown] = options.keys();
      if (unknown !== undefined) {
        throw new BlockError(
          `Block ${driver.kind === 'protocol' ? 'protocol' : 'format'} '${driver.name}' does not support the option '${unknown}'`,
        );
      }
      if (node.nodeName === '') this.#register(node, nodeName);
      context.adoptChildren(node);
    } catch (error) {
      if (node !== undefined) {
        node.settings.readOnly = true;
        this.forget(node);
        await node.close();
      } else {
        await context.abandon();
      }
      throw error;
    }
    if (guessedRaw && !node.readOnly) {
      const name = node.filename;
      this.warn(
        `Image format was not specified for '${name}' and probing guessed raw.\n` +
          '         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.\n' +
          "         Specify the 'raw' format explicitly to remove the restrictions.",
      );
      if ('restrictFirstSector' in node) node.restrictFirstSector = true;
    }
    return node;
  }

  /** Names a node that a job or command made, and makes it known. */
  adopt(node: BlockNode, nodeName?: string): void {
    this.#register(node, this.#checkedName(nodeName));
  }

  /** Takes the name away from a node that is not in use any more. */
  forget(node: BlockNode): void {
    if (this.#nodes.get(node.nodeName) === node) this.#nodes.delete(node.nodeName);
  }

  #register(node: BlockNode, nodeName: string | undefined): void {
    const name = nodeName ?? this.#generateName();
    if (this.#nodes.has(name)) throw new BlockError(`Duplicate nodes with node-name='${name}'`);
    node.implicitName = nodeName === undefined;
    node.nodeName = name;
    this.#nodes.set(name, node);
  }

  #checkedName(name: string | undefined): string | undefined {
    if (name === undefined) return undefined;
    if (!isWellFormedId(name)) throw new BlockError(`Invalid node-name: '${name}'`);
    if (this.#backends.has(name)) throw new BlockError(`node-name=${name} is conflicting with a device id`);
    if (this.#nodes.has(name)) throw new BlockError(`Duplicate nodes with node-name='${name}'`);
    if (name.length > 31) throw new BlockError('Node name too long');
    return name;
  }

  #generateName(): string {
    const number = this.#generated++;
    // QEMU ends the number with two random digits so that nobody relies on it.
    return `#block${number}${String((number * 37 + 19) % 100).padStart(2, '0')}`;
  }

  #protocolFor(filename: string, parse: boolean): BlockDriver {
    const scheme = parse ? /^([^/:]*):/.exec(filename)?.[1] : undefined;
    if (scheme === undefined) return this.driver(hostDriver(filename));
    for (const driver of this.#drivers.values()) if (driver.schemes?.includes(scheme) === true) return driver;
    throw new BlockError(`Unknown protocol '${scheme}'`);
  }

  /** Opens the file under a node whose format was not said, and asks the drivers what it is. */
  async #probe(
    filename: string | undefined,
    options: BlockOptions,
    settings: NodeSettings,
  ): Promise<{ driver: BlockDriver; guessedRaw: boolean; file: BlockNode }> {
    const reference = options.string('file');
    const childOptions = options.child('file');
    if (reference === undefined && filename === undefined && childOptions.size === 0) {
      throw new BlockError('Must specify either driver or file');
    }
    const file =
      reference !== undefined
        ? this.lookup(reference)
        : await this.openTree(filename, childOptions, { ...settings, detectZeroes: 'off', discard: true }, true);
    options.set('file', file.nodeName);
    try {
      const head = new Uint8Array(PROBE_BYTES);
      await file.readv(0, PROBE_BYTES, IoVector.of(head));
      let best: BlockDriver | undefined;
      let bestScore = 0;
      for (const driver of this.#drivers.values()) {
        const score = driver.probe?.(head, file.filename) ?? 0;
        if (score > bestScore) {
          best = driver;
          bestScore = score;
        }
      }
      if (best === undefined) throw new BlockError('Could not determine image format: No compatible driver found');
      return { driver: best, guessedRaw: best.name === 'raw' && reference === undefined, file };
    } catch (error) {
      await this.released(file);
      if (error instanceof IoError) {
        throw new BlockError(`Could not read image for determining its format: ${reason(error)}`, { cause: error });
      }
      throw error;
    }
  }

  /** A user let go of the node: it is closed if nobody else has it. */
  async released(node: BlockNode): Promise<void> {
    if (node.closed || node.monitorOwned || node.parents.size > 0) return;
    this.#nodes.delete(node.nodeName);
    await node.close();
  }

  /** Puts `to` in the place of `from` for all of its users, but for `except` and those that stay where they are. */
  replace(from: BlockNode, to: BlockNode, except: (parent: unknown) => boolean = () => false): void {
    const moved = [...from.parents].filter(edge => !edge.sticky && !except(edge.parent) && !isUnder(to, edge.parent));
    for (const edge of moved) {
      if (edge.frozen > 0) {
        throw new BlockError(
          `Cannot change '${edge.name}' link from '${edge.parent.asNode?.nodeName ?? ''}' to '${from.nodeName}'`,
        );
      }
    }
    const move = (source: BlockNode, target: BlockNode): void => {
      for (const edge of moved) {
        source.parents.delete(edge);
        target.parents.add(edge);
        edge.node = target;
        edge.parent.asNode?.childReplaced(edge.name, target);
      }
    };
    move(from, to);
    try {
      settlePermissions([to, from]);
    } catch (error) {
      move(to, from);
      settlePermissions([to, from]);
      throw error;
    }
    if (from.length !== to.length) for (const edge of moved) edge.parent.resized?.();
  }

  /** Runs `change` while no request of a device, an export or a job is under way. */
  async drained<T>(change: () => T | Promise<T>, except?: Drainable): Promise<T> {
    const quiet = [...this.drainables].filter(drainable => drainable !== except);
    const groups = [...this.throttleGroups.values()];
    for (const group of groups) group.lift();
    try {
      await Promise.all(quiet.map(drainable => drainable.quiesce()));
      return await change();
    } finally {
      for (const group of groups) group.lower();
      for (const drainable of quiet) drainable.unquiesce();
    }
  }

  /** The group of that name, made if there is none. */
  throttleGroup(name: string): ThrottleGroup {
    let group = this.throttleGroups.get(name);
    if (group === undefined) {
      group = new ThrottleGroup(name, this.throttleClock);
      this.throttleGroups.set(name, group);
    }
    return group;
  }

  /** A filter over `node` that keeps in it what it had to fetch from its backing files. */
  async copyOnRead(node: BlockNode): Promise<BlockNode> {
    return this.openTree(
      undefined,
      new BlockOptions([
        ['driver', 'copy-on-read'],
        ['file', node.nodeName],
      ]),
      {},
      false,
    );
  }

  /** An image over `node` that takes the writes and is gone with the process: `-snapshot`. */
  async temporaryOverlay(node: BlockNode): Promise<BlockNode> {
    const path = await this.temporaryImage(node.length);
    const options = new BlockOptions([
      ['driver', 'qcow2'],
      ['file.driver', 'file'],
      ['file.filename', path],
      ['backing', node.nodeName],
    ]);
    try {
      return await this.openTree(undefined, options, { noFlush: true, discard: true }, false);
    } finally {
      fs.unlinkSync(path);
    }
  }

  /** Makes an empty qcow2 image of `size` bytes in the folder for temporary files; the caller unlinks it once it is open. */
  async temporaryImage(size: number): Promise<string> {
    const path = `${process.env['TMPDIR'] ?? '/var/tmp'}/southbridge-${process.pid}-${this.#generated++}.qcow2`;
    await this.driver('file').create?.(this, new BlockOptions([['filename', path]]));
    const file = await this.openTree(
      undefined,
      new BlockOptions([
        ['driver', 'file'],
        ['filename', path],
      ]),
      {},
      true,
    );
    try {
      await this.driver('qcow2').create?.(
        this,
        new BlockOptions([
          ['file', file.nodeName],
          ['size', size],
        ]),
      );
    } finally {
      await this.released(file);
    }
    return path;
  }

  writeThresholdExceeded(node: BlockNode, end: number): void {
    const threshold = node.writeThreshold;
    node.writeThreshold = 0;
    this.emit({
      event: 'BLOCK_WRITE_THRESHOLD',
      nodeName: node.nodeName,
      writeThreshold: threshold,
      amountExceeded: end - threshold,
    });
  }

  /** Flushes and closes everything: the end of the process. */
  async close(): Promise<void> {
    for (const group of this.throttleGroups.values()) group.lift();
    await this.endJobs();
    for (const backend of [...this.backends]) {
      if (await within(backend.close(), CLOSE_MS)) continue;
      this.warn(`requests of ${backend.description} did not end; what they were to write may be missing`);
    }
    for (let progress = true; progress; ) {
      progress = false;
      for (const node of this.nodes()) {
        node.monitorOwned = false;
        if (node.parents.size > 0) continue;
        await this.released(node);
        progress = true;
      }
    }
  }
}

/** Whether `work` came to its end in time. */
async function within(work: Promise<void>, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>(resolve => {
    timer = setTimeout(resolve, ms, false);
  });
  try {
    return await Promise.race([work.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Whether `user` is a node that lies under `node`, or the node itself: it cannot use that. */
function isUnder(node: BlockNode, { asNode }: EdgeParent): boolean {
  return asNode !== undefined && reaches(node, asNode);
}

function hostDriver(filename: string): string {
  return /^\/dev\/(?!shm\/|null$|zero$)/.test(filename) ? 'host_device' : 'file';
}
