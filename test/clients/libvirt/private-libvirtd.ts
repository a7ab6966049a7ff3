import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  accessSync,
  chmodSync,
  chownSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const ENTRY = fileURLToPath(new URL('../../../southbridge.js', import.meta.url));
/** Whom a root user becomes: libvirtd keeps its files in its user's own folders only where that is not root. */
const NOBODY = 65534;
const START_MS = 60_000;
/** Long enough for a busy host. */
const COMMAND_MS = 120_000;

export interface Answer {
  readonly code: number;
  readonly output: string;
}

/** What this host lacks for a libvirtd of our own, in one sentence; undefined where it has all. */
export function whatIsMissing(): string | undefined {
  if (find('libvirtd') === undefined) return 'there is no libvirtd';
  if (find('virsh') === undefined) return 'there is no virsh';
  return undefined;
}

function find(program: string): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin'];
  return folders
    .map(folder => join(folder, program))
    .find(path => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

/** A libvirtd in session mode with all of its files in one folder, whose emulator is this program. */
export class PrivateLibvirtd {
  readonly folder: string;
  /** What `<emulator>` has to say. */
  readonly emulator: string;
  readonly #environment: NodeJS.ProcessEnv;
  readonly #identity: { readonly uid?: number; readonly gid?: number };
  #daemon: ChildProcess | undefined;

  private constructor() {
    // Names of unix sockets are at most 107 bytes long.
    this.folder = mkdtempSync(join(tmpdir(), 'sbv-'));
    this.#identity = process.getuid?.() === 0 ? { uid: NOBODY, gid: NOBODY } : {};
    const own = (name: string): string => {
      const path = join(this.folder, name);
      mkdirSync(path, { mode: 0o700 });
      if (this.#identity.uid !== undefined) chownSync(path, NOBODY, NOBODY);
      return path;
    };
    chmodSync(this.folder, 0o755);
    const programs = own('bin');
    this.emulator = join(programs, 'qemu-system-x86_64');
    writeFileSync(this.emulator, `#!/bin/sh\nexec '${process.execPath}' '${ENTRY}' "$@"\n`, { mode: 0o755 });
    own('images');
    this.#environment = {
      PATH: [programs, '/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'].join(delimiter),
      LANG: 'C',
      HOME: own('home'),
      XDG_CONFIG_HOME: own('config'),
      XDG_CACHE_HOME: own('cache'),
      XDG_DATA_HOME: own('data'),
      XDG_RUNTIME_DIR: own('run'),
    };
  }

  /** @throws Error with what libvirtd said, where it does not come up */
  static async start(): Promise<PrivateLibvirtd> {
    const libvirt = new PrivateLibvirtd();
    await libvirt.#start();
    return libvirt;
  }

  /** The path of a file that libvirt and the emulator can reach. */
  path(name: string): string {
    return join(this.folder, 'images', name);
  }

  /** Makes a file for libvirt and the emulator. */
  write(name: string, contents: string | Uint8Array): string {
    const path = this.path(name);
    writeFileSync(path, contents);
    if (this.#identity.uid !== undefined) chownSync(path, NOBODY, NOBODY);
    return path;
  }

  virsh(...args: readonly string[]): Promise<Answer> {
    return this.run('virsh', '-q', '-c', `qemu+unix:///session?socket=${this.#socket}`, ...args);
  }

  /** Runs a program as libvirtd's user. */
  run(program: string, ...args: readonly string[]): Promise<Answer> {
    return new Promise(resolve => {
      const options = { env: this.#environment, timeout: COMMAND_MS, ...this.#identity };
      execFile(find(program) ?? program, args, options, (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === 'number' ? error.code : 1;
        resolve({ code, output: `${stdout}${stderr}`.trim() });
      });
    });
  }

  /** What a machine wrote to its log. */
  log(domain: string): string {
    const path = join(this.folder, 'cache', 'libvirt', 'qemu', 'log', `${domain}.log`);
    return existsSync(path) ? readFileSync(path, 'utf8') : '';
  }

  async stop(): Promise<void> {
    for (const domain of (await this.virsh('list', '--name')).output.split(/\s+/).filter(Boolean))
      await this.virsh('destroy', domain);
    const daemon = this.#daemon;
    if (daemon !== undefined && daemon.exitCode === null && daemon.signalCode === null) {
      const gone = once(daemon, 'exit');
      daemon.kill('SIGTERM');
      await gone;
    }
    rmSync(this.folder, { recursive: true, force: true });
  }

  get #socket(): string {
    return join(this.folder, 'run', 'libvirt', 'libvirt-sock');
  }

  async #start(): Promise<void> {
    const conf = this.write('libvirtd.conf', '');
    const daemon = spawn(find('libvirtd') ?? 'libvirtd', ['-f', conf], {
      env: this.#environment,
      stdio: ['ignore', 'pipe', 'pipe'],
      ...this.#identity,
    });
    this.#daemon = daemon;
    let said = '';
    for (const stream of [daemon.stdout, daemon.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        said += text;
      });
    }
    for (const end = performance.now() + START_MS; performance.now() < end; await sleep(100)) {
      if (daemon.exitCode !== null) break;
      if (existsSync(this.#socket) && (await this.virsh('list')).code === 0) return;
    }
    await this.stop();
    throw new Error(`libvirtd does not come up: ${said}`);
  }
}
