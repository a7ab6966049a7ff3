import type { BlockGraph } from './graph.ts';
import { BlockError } from './io-error.ts';
import type { BlockNode } from './node.ts';
import { inheritedSettings } from './node-settings.ts';
import type { BlockOptions } from './options.ts';
import type { ReopenSteps, ReopenTarget } from './reopen-steps.ts';
import type { NodeSettings } from './requests.ts';

/** A kind of node: how to recognise it, open it and make one. */
export interface BlockDriver {
  readonly name: string;
  readonly kind: 'protocol' | 'format' | 'filter';
  /** A format without anything of its own to write. */
  readonly transparent?: boolean;
  /** A filter that can be named by a file name, as a protocol is. */
  readonly isProtocol?: boolean;
  readonly supportsBacking?: boolean;
  /** Tables are read once, when an image is opened: a process that takes it over would not see what they became. */
  readonly blocksMigration?: boolean;
  /** What file names that this protocol serves begin with, without the colon: `nbd`. */
  readonly schemes?: readonly string[];
  /** A name is needed in the option `filename`. */
  readonly needsFilename?: boolean;
  /** Turns a file name of the protocol into options. */
  parseFilename?(filename: string, options: BlockOptions): void;
  /** How sure (0 to 100) the driver is that an image that begins with `head` is its own. */
  probe?(head: Uint8Array, filename: string): number;
  open(context: OpenContext): Promise<BlockNode>;
  /** Changes what the format of an open image is like (`x-blockdev-amend`). `force`: even where that loses data. */
  amend?(node: BlockNode, options: BlockOptions, force: boolean): Promise<void>;
  /** Nodes can take other options while they are open; undefined where they cannot. */
  readonly reopening?: {
    /** Options that go back to their default where they are left out. */
    readonly resettable: readonly string[];
    /**
     * How a node becomes what the options say, of which it takes those it can change. Nothing happens yet.
     *
     * @throws BlockError where they are wrong
     */
    steps(node: BlockNode, target: ReopenTarget): ReopenSteps;
  };
  /** Makes an image inside `options.file` or, for a protocol, a new file. What it does not know stays in `options`. */
  create?(graph: BlockGraph, options: BlockOptions): Promise<void>;
  /** The least size in bytes, not below `size`, that a new image can have; where it is not any multiple of 512. */
  imageSize?(size: number): number;
}

/** What a driver is given to open a node. */
export class OpenContext {
  readonly graph: BlockGraph;
  readonly driver: BlockDriver;
  readonly options: BlockOptions;
  readonly settings: NodeSettings;
  /** Names the node, where that must be before it is all open: nodes are listed in the order of their naming. */
  readonly register: (node: BlockNode) => void;
  /** Nodes that were opened as children and that nobody holds yet. */
  readonly #opened: BlockNode[] = [];

  constructor(
    graph: BlockGraph,
    driver: BlockDriver,
    options: BlockOptions,
    settings: NodeSettings,
    register: (node: BlockNode) => void,
  ) {
    this.graph = graph;
    this.driver = driver;
    this.options = options;
    this.settings = settings;
    this.register = register;
  }

  /**
   * Opens the child `name`: by reference where the option is a node's name, else with the options `name.*`.
   * `inherited` are settings that the child takes from this node unless it is told otherwise.
   */
  async child(
    name: string,
    inherited: Partial<NodeSettings> = {},
    filename?: string,
    asProtocol: boolean = name === 'file' && this.driver.kind !== 'protocol',
  ): Promise<BlockNode> {
    const reference = this.options.string(name);
    const options = this.options.child(name);
    if (reference !== undefined) {
      if (options.size > 0 || filename !== undefined) {
        throw new BlockError('Cannot reference an existing block device with additional options or a new filename');
      }
      return this.graph.lookup(reference);
    }
    if (options.size === 0 && filename === undefined) {
      throw new BlockError(`A block device must be specified for "${name}"`);
    }
    const base = inheritedSettings(this.settings, name, asProtocol && this.driver.kind === 'format');
    const node = await this.graph.openTree(filename, options, { ...base, ...inherited }, asProtocol);
    this.#opened.push(node);
    return node;
  }

  /**
   * Makes the node read-only where `file` is and that is allowed.
   *
   * @throws BlockError where it is not, and a format has tables to write. What only passes on its users' writes can wait for one
   */
  followReadOnly(file: BlockNode): void {
    if (!file.readOnly || file.canBecomeWritable || this.settings.readOnly) return;
    if (this.settings.autoReadOnly) this.settings.readOnly = true;
    else if (this.driver.kind === 'format' && !this.driver.transparent) throw new BlockError('Block node is read-only');
  }

  /** The children that were opened for `node` go on taking their settings from it. */
  adoptChildren(node: BlockNode): void {
    for (const child of this.#opened) child.inheritsFrom = node;
  }

  /** Closes what was opened for a node that could not be opened in the end. */
  async abandon(): Promise<void> {
    for (const node of this.#opened) await this.graph.released(node);
  }
}
