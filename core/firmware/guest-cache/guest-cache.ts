import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { didYouMean, SouthbridgeError } from '../../errors.ts';
import { PrivateApt } from './apt.ts';
import { ITEMS, type ItemFiles, type ItemName, type ItemRecipe } from './items.ts';
import { withLock } from './lock.ts';
import { decompressKernel } from './vmlinux.ts';

/** `$XDG_CACHE_HOME/southbridge`, or `~/.cache/southbridge` (XDG base directory specification 0.8). */
export function cacheDirectory(): string {
  const base = process.env['XDG_CACHE_HOME'];
  // The specification has relative paths ignored.
  return join(base?.startsWith('/') ? base : join(homedir(), '.cache'), 'southbridge');
}

/**
 * Firmware and guests that are not ours, by name: unpacked from Debian's packages into a cache folder, without root and
 * without touching the host. An item is complete or absent, whoever else is fetching at the same time.
 */
export class GuestCache {
  readonly directory: string;
  readonly #progress: (line: string) => void;

  /** @param options.progress takes one line at a time; standard error by default */
  constructor(options: { directory?: string; progress?: (line: string) => void } = {}) {
    this.directory = options.directory ?? cacheDirectory();
    this.#progress = options.progress ?? (line => process.stderr.write(`southbridge: ${line}\n`));
  }

  /** The item's files where they are already on this host; fetches nothing. */
  find<Name extends ItemName>(name: Name): ItemFiles<Name> | undefined {
    const recipe: ItemRecipe = ITEMS[name];
    const roots = recipe.host ? ['/', this.#root(name)] : [this.#root(name)];
    for (const root of roots) {
      const files = absolute<Name>(recipe, root);
      if (Object.values<string>(files).every(existsSync)) return files;
    }
    return undefined;
  }

  /**
   * The item's files, fetched first where they are not on this host yet.
   *
   * @throws SouthbridgeError ERR_CACHE_OFFLINE, ERR_CACHE_KEYRING, ERR_CACHE_PACKAGE, ERR_PROGRAM_MISSING
   */
  async get<Name extends ItemName>(name: Name): Promise<ItemFiles<Name>> {
    const found = this.find(name);
    if (found !== undefined) return found;
    await mkdir(join(this.directory, 'apt'), { recursive: true });
    const waiting = (pid: number): void => this.#progress(`waiting for process ${pid}, which is fetching`);
    return withLock(join(this.directory, 'lock'), waiting, async () => {
      const meanwhile = this.find(name);
      if (meanwhile !== undefined) return meanwhile;
      const apt = new PrivateApt(join(this.directory, 'apt'), this.#progress);
      await apt.update();
      try {
        await this.#fetch(name, apt);
      } catch (error) {
        if (!(error instanceof SouthbridgeError) || error.code !== 'ERR_CACHE_OFFLINE') throw error;
        // A point release removes the packages that older lists name.
        await apt.update(true);
        await this.#fetch(name, apt);
      }
      const files = this.find(name);
      if (files !== undefined) return files;
      throw new SouthbridgeError(
        'ERR_CACHE_PACKAGE',
        `Debian's packages for '${name}' lack a file that they used to have`,
      );
    });
  }

  /** Like {@link get}, for a name that comes from a user. */
  async getByName(name: string): Promise<Readonly<Record<string, string>>> {
    if (!isItemName(name)) {
      const hint = didYouMean(name, Object.keys(ITEMS)) ?? `there are: ${Object.keys(ITEMS).join(', ')}`;
      throw new SouthbridgeError('ERR_CACHE_ITEM', `there is no guest called '${name}'`, hint);
    }
    return this.get(name);
  }

  #root(name: ItemName): string {
    return join(this.directory, name);
  }

  async #fetch(name: ItemName, apt: PrivateApt): Promise<void> {
    const recipe: ItemRecipe = ITEMS[name];
    this.#progress(`fetching ${name}: ${recipe.summary}`);
    const packages = [...recipe.packages];
    if (recipe.meta !== undefined) {
      const { name: meta, prefix, steps = 1 } = recipe.meta;
      for (let step = 0, from = meta; step < steps; step++) {
        from = await apt.resolve(from, prefix);
        packages.push(from);
      }
    }
    const scratch = await mkdtemp(join(this.directory, `.${name}-`));
    try {
      await apt.unpack(packages, scratch);
      if (recipe.kernel) await this.#prepareKernel(scratch);
      if (recipe.headers) await this.#prepareHeaders(scratch);
      await rm(this.#root(name), { recursive: true, force: true });
      await rename(scratch, this.#root(name));
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
    this.#progress(`${name} is in ${this.#root(name)}`);
  }

  async #prepareHeaders(root: string): Promise<void> {
    for (const folder of await readdir(join(root, 'usr', 'src'))) {
      if (!folder.startsWith('linux-headers-')) continue;
      await symlink(join('usr', 'src', folder), join(root, folder.endsWith('-common') ? 'common' : 'flavour'));
    }
  }

  async #prepareKernel(root: string): Promise<void> {
    const image = (await readdir(join(root, 'boot'))).find(file => file.startsWith('vmlinuz-'));
    if (image === undefined)
      throw new SouthbridgeError('ERR_CACHE_PACKAGE', 'the kernel package holds no boot/vmlinuz-*');
    const version = image.slice('vmlinuz-'.length);
    await rename(join(root, 'boot', image), join(root, 'vmlinuz'));
    await rename(join(root, 'lib', 'modules', version), join(root, 'modules'));
    this.#progress(`decompressing Linux ${version}`);
    await writeFile(join(root, 'vmlinux'), await decompressKernel(await readFile(join(root, 'vmlinuz'))));
  }
}

function isItemName(name: string): name is ItemName {
  return Object.hasOwn(ITEMS, name);
}

function absolute<Name extends ItemName>(recipe: ItemRecipe, root: string): ItemFiles<Name>;
function absolute(recipe: ItemRecipe, root: string): Record<string, string> {
  return Object.fromEntries(Object.entries(recipe.files).map(([file, path]) => [file, join(root, path)]));
}
