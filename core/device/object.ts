import { SouthbridgeError } from '../errors.ts';

/** A value that a property shows to management tools: JSON, and bigint for 64-bit integers. */
export type PropertyValue =
  | string
  | number
  | bigint
  | boolean
  | null
  | readonly PropertyValue[]
  | { readonly [key: string]: PropertyValue };

/** One property of an object as management tools see it (QMP qom-list, qom-get, qom-set). */
export interface ObjectProperty {
  readonly name: string;
  /** QEMU's name of the type: `uint32`, `bool`, `string`, `link<irq>`. */
  readonly type: string;
  readonly description?: string;
  get(): PropertyValue;
  /** Absent where it cannot be set at run time. */
  set?(value: PropertyValue): void | Promise<void>;
}

/**
 * A node of the tree of everything in a machine, with QEMU's paths (`/machine/peripheral/nic0`). A node owns its children.
 */
export class ObjectNode {
  /** QEMU's type name, as in `qom-list-types`. */
  readonly typeName: string;
  #name = '';
  #parent: ObjectNode | undefined;
  readonly #children = new Map<string, ObjectNode>();
  readonly #properties = new Map<string, ObjectProperty>();

  constructor(typeName: string) {
    this.typeName = typeName;
  }

  /** Its name among its siblings: the last part of its path. */
  get name(): string {
    return this.#name;
  }

  get parent(): ObjectNode | undefined {
    return this.#parent;
  }

  get children(): ReadonlyMap<string, ObjectNode> {
    return this.#children;
  }

  get path(): string {
    if (this.#parent === undefined) return '/';
    const above = this.#parent.path;
    return above === '/' ? `/${this.#name}` : `${above}/${this.#name}`;
  }

  /** The type names from the most derived to `object`. */
  get typeChain(): readonly string[] {
    return [this.typeName, 'object'];
  }

  get properties(): readonly ObjectProperty[] {
    return [...this.#properties.values()];
  }

  property(name: string): ObjectProperty | undefined {
    return this.#properties.get(name);
  }

  defineProperty(property: ObjectProperty): void {
    this.#properties.set(property.name, property);
  }

  /**
   * Takes `child` as its own.
   * @param name its name here; a name that ends in `[*]` gets the first free number
   * @throws SouthbridgeError ERR_OBJECT_EXISTS where the name is taken
   */
  addChild<T extends ObjectNode>(name: string, child: T): T {
    const free = name.endsWith('[*]') ? this.#firstFree(name.slice(0, -3)) : name;
    if (this.#children.has(free)) {
      throw new SouthbridgeError(
        'ERR_OBJECT_EXISTS',
        `attempt to add duplicate property '${free}' to object (type '${this.typeName}')`,
      );
    }
    child.#name = free;
    child.#parent = this;
    this.#children.set(free, child);
    return child;
  }

  removeChild(child: ObjectNode): void {
    if (this.#children.get(child.#name) !== child) return;
    this.#children.delete(child.#name);
    child.#parent = undefined;
  }

  /** The node at `path`: absolute from this node as the root, or a partial path that only one node's path ends in. */
  resolve(path: string): ObjectNode | undefined {
    if (path.startsWith('/')) {
      let node: ObjectNode | undefined = this;
      for (const part of path.split('/')) if (part !== '') node = node?.child(part);
      return node;
    }
    const found = [...this.#matching(path.split('/').filter(part => part !== ''))];
    return found.length === 1 ? found[0] : undefined;
  }

  /** The child, or linked object, of that name. */
  child(name: string): ObjectNode | undefined {
    return this.#children.get(name);
  }

  *descendants(): Generator<ObjectNode> {
    for (const child of this.#children.values()) {
      yield child;
      yield* child.descendants();
    }
  }

  *#matching(parts: readonly string[]): Generator<ObjectNode> {
    const here = parts.reduce<ObjectNode | undefined>((node, part) => node?.child(part), this);
    if (here !== undefined && here !== this) yield here;
    for (const child of this.#children.values()) yield* child.#matching(parts);
  }

  #firstFree(stem: string): string {
    let index = 0;
    while (this.#children.has(`${stem}[${index}]`)) index++;
    return `${stem}[${index}]`;
  }
}
