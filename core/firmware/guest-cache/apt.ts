import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SouthbridgeError } from '../../errors.ts';
import { run } from './process.ts';

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';
const SUITE = 'bookworm';
const DEFAULT_MIRROR = 'http://deb.debian.org/debian';
const ARCHITECTURES = ['amd64', 'i386'] as const;
const DAY_MS = 86_400_000;

/**
 * Debian's own package client over a private state folder: it needs no root, changes nothing of the host, and checks every
 * package against the archive's signature.
 */
export class PrivateApt {
  readonly #directory: string;
  readonly #mirror: string;
  readonly #progress: (line: string) => void;

  constructor(directory: string, progress: (line: string) => void) {
    this.#directory = directory;
    this.#progress = progress;
    this.#mirror = process.env['SOUTHBRIDGE_DEBIAN_MIRROR'] ?? DEFAULT_MIRROR;
  }

  /** Fetches the package lists where there are none younger than a day, or always if `force`. */
  async update(force = false): Promise<void> {
    const lists = join(this.#directory, 'lists');
    const stamp = join(this.#directory, 'updated');
    if (!force) {
      const updated = await stat(stamp).catch(() => undefined);
      if (updated !== undefined && Date.now() - updated.mtimeMs < DAY_MS) return;
    }
    if (!existsSync(KEYRING)) {
      throw new SouthbridgeError(
        'ERR_CACHE_KEYRING',
        `the Debian archive's keys are not in ${KEYRING}`,
        'install the package debian-archive-keyring (Debian, Ubuntu, Fedora and Arch all have it)',
      );
    }
    await mkdir(join(lists, 'partial'), { recursive: true });
    await mkdir(join(this.#directory, 'archives', 'partial'), { recursive: true });
    await writeFile(join(this.#directory, 'status'), '');
    await writeFile(
      join(this.#directory, 'sources.list'),
      `deb [arch=${ARCHITECTURES.join(',')} signed-by=${KEYRING}] ${this.#mirror} ${SUITE} main\n`,
    );
    this.#progress(`fetching the package lists of Debian ${SUITE} from ${this.#mirror}`);
    await this.#apt('apt-get', ['update', '--error-on=any']);
    await writeFile(stamp, '');
  }

  /** The package of the given name that the meta package `meta` stands for at present: the first dependency with `prefix`. */
  async resolve(meta: string, prefix: string): Promise<string> {
    const [, architecture] = meta.split(':');
    const depends = await this.#field(meta, 'Depends');
    for (const dependency of depends.split(',')) {
      const [name] = dependency.trim().split(/[ |]/);
      if (!name?.startsWith(prefix)) continue;
      // Packages for all architectures are known without one.
      const forAll = architecture === undefined || (await this.#field(name, 'Architecture')) === 'all';
      return forAll ? name : `${name}:${architecture}`;
    }
    throw new SouthbridgeError('ERR_CACHE_PACKAGE', `Debian's package '${meta}' names no package '${prefix}*'`);
  }

  async #field(packageName: string, field: string): Promise<string> {
    const record = (await this.#apt('apt-cache', ['show', '--no-all-versions', packageName])).toString();
    return new RegExp(`^${field}: (.*)$`, 'm').exec(record)?.[1] ?? '';
  }

  /** Downloads `packages` and unpacks all of them over each other in `destination`. */
  async unpack(packages: readonly string[], destination: string): Promise<void> {
    const scratch = await mkdtemp(join(this.#directory, 'download-'));
    try {
      this.#progress(`downloading ${packages.join(', ')}`);
      await this.#apt('apt-get', ['download', ...packages], scratch);
      const archives = (await readdir(scratch)).filter(name => name.endsWith('.deb'));
      if (archives.length !== packages.length) {
        throw new SouthbridgeError('ERR_CACHE_PACKAGE', `${archives.length} of ${packages.length} packages arrived`);
      }
      for (const archive of archives) {
        this.#progress(`unpacking ${decodeURIComponent(archive)}`);
        await unpackDeb(join(scratch, archive), destination, scratch);
      }
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  }

  async #apt(program: string, args: readonly string[], cwd = this.#directory): Promise<Buffer> {
    const settings = [
      `Dir::State=${this.#directory}`,
      `Dir::State::lists=${join(this.#directory, 'lists')}`,
      `Dir::State::status=${join(this.#directory, 'status')}`,
      `Dir::Cache=${this.#directory}`,
      `Dir::Etc::sourcelist=${join(this.#directory, 'sources.list')}`,
      'Dir::Etc::sourceparts=-',
      'APT::Sandbox::User=',
      'Acquire::Retries=2',
      'Acquire::http::Timeout=20',
      ...ARCHITECTURES.map(architecture => `APT::Architectures::=${architecture}`),
    ];
    try {
      return await run(program, [...settings.flatMap(setting => ['-o', setting]), '-q', ...args], {
        cwd,
        hint: 'install apt (Debian, Ubuntu and Fedora all have it), or put the files where the message says they belong',
      });
    } catch (cause) {
      if (!(cause instanceof SouthbridgeError) || cause.code !== 'ERR_PROGRAM_FAILED') throw cause;
      throw new SouthbridgeError(
        'ERR_CACHE_OFFLINE',
        `Debian's archive at ${this.#mirror} did not deliver: ${cause.message}`,
        'check the network (http_proxy is honoured), or name another mirror in SOUTHBRIDGE_DEBIAN_MIRROR',
        { cause },
      );
    }
  }
}

async function unpackDeb(archive: string, destination: string, scratch: string): Promise<void> {
  try {
    await run('dpkg-deb', ['-x', archive, destination]);
    return;
  } catch (error) {
    if (!(error instanceof SouthbridgeError) || error.code !== 'ERR_PROGRAM_MISSING') throw error;
  }
  // deb(5): an ar archive whose member data.tar.* holds the files.
  const hint = 'install dpkg, or binutils and tar';
  const members = (await run('ar', ['t', archive], { hint })).toString().split('\n');
  const data = members.find(name => name.startsWith('data.tar'));
  if (data === undefined)
    throw new SouthbridgeError('ERR_CACHE_PACKAGE', `'${archive}' holds no data.tar: not a package`);
  await run('ar', ['x', archive, data], { cwd: scratch, hint });
  await run('tar', ['-x', '-f', join(scratch, data), '-C', destination], { hint });
  await rm(join(scratch, data));
}
