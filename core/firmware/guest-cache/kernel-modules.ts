import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { didYouMean, SouthbridgeError } from '../../errors.ts';
import { elfSection } from '../../loader/elf.ts';

export interface KernelModule {
  /** With underscores, as the kernel names it. */
  readonly name: string;
  /** Relative to the modules folder, such as `kernel/drivers/net/virtio_net.ko`. */
  readonly path: string;
  readonly bytes: Uint8Array;
  /** Names of the modules that must be there before. */
  readonly depends: readonly string[];
  readonly aliases: readonly string[];
}

/**
 * `wanted` and all that they need, in the order in which to load them.
 *
 * Debian's packages come without modules.dep, which depmod makes on the host: each module's own `.modinfo` says the same.
 *
 * @param directory a kernel's modules folder, of which only the wanted files are read
 * @throws SouthbridgeError ERR_KERNEL_MODULE where one is neither there nor built into the kernel
 */
export async function kernelModules(directory: string, wanted: readonly string[]): Promise<KernelModule[]> {
  const paths = new Map<string, string>();
  for (const path of await readdir(join(directory, 'kernel'), { recursive: true })) {
    if (path.endsWith('.ko')) paths.set(moduleName(path), join('kernel', path));
  }
  const builtin = new Set((await readFile(join(directory, 'modules.builtin'), 'utf8')).split('\n').map(moduleName));
  const loaded = new Map<string, KernelModule>();
  const visit = async (name: string, by: readonly string[]): Promise<void> => {
    if (loaded.has(name) || builtin.has(name)) return;
    const path = paths.get(name);
    if (path === undefined || by.includes(name)) {
      const chain = by.length === 0 ? '' : `, which ${by.join(' -> ')} needs`;
      throw new SouthbridgeError(
        'ERR_KERNEL_MODULE',
        `there is no kernel module '${name}'${chain}`,
        didYouMean(name, paths.keys()),
      );
    }
    const bytes = await readFile(join(directory, path));
    const info = modinfo(bytes);
    const depends = info
      .filter(([key]) => key === 'depends')
      .flatMap(([, value]) => value.split(',').filter(part => part !== ''));
    const aliases = info.filter(([key]) => key === 'alias').map(([, value]) => value);
    for (const dependency of depends) await visit(moduleName(dependency), [...by, name]);
    loaded.set(name, { name, path, bytes, depends: depends.map(moduleName), aliases });
  };
  for (const name of wanted) await visit(moduleName(name), []);
  return [...loaded.values()];
}

/** The lines of modules.dep(5) for `modules`. */
export function modulesDep(modules: readonly KernelModule[]): string {
  const paths = new Map(modules.map(({ name, path }) => [name, path]));
  const all = (module: KernelModule): string[] =>
    module.depends.flatMap(name => {
      const dependency = modules.find(candidate => candidate.name === name);
      return dependency === undefined ? [] : [paths.get(name) ?? '', ...all(dependency)];
    });
  return modules
    .map(module => `${module.path}: ${[...new Set(all(module))].join(' ')}`.trimEnd().concat('\n'))
    .join('');
}

/** The lines of modules.alias for `modules`, with which modprobe finds a driver by a device's MODALIAS. */
export function modulesAlias(modules: readonly KernelModule[]): string {
  return modules.flatMap(({ name, aliases }) => aliases.map(alias => `alias ${alias} ${name}\n`)).join('');
}

function modinfo(module: Uint8Array): [key: string, value: string][] {
  const section = elfSection(module, '.modinfo') ?? new Uint8Array(0);
  const entries = new TextDecoder()
    .decode(section)
    .split('\0')
    .filter(entry => entry.includes('='));
  return entries.map(entry => [entry.slice(0, entry.indexOf('=')), entry.slice(entry.indexOf('=') + 1)]);
}

function moduleName(path: string): string {
  return basename(path, '.ko').replaceAll('-', '_');
}
