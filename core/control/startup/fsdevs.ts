import { SouthbridgeError } from '../../errors.ts';
import type { FileTree } from '../../fsdev/file-tree.ts';
import { LocalTree, SECURITY_MODELS, type SecurityModel } from '../../fsdev/local-tree.ts';
import { SynthTree } from '../../fsdev/synth-tree.ts';
import { OptionError, type Opts } from '../options/opts.ts';
import type { Program } from '../program.ts';

const COMMON = ['id', 'fsdriver', 'readonly', 'mount_tag'];
const LOCAL = [...COMMON, 'security_model', 'path', 'writeout', 'fmode', 'dmode', 'multidevs'];
const MODELS_HINT = 'Valid options are: security_model=[passthrough|mapped-xattr|mapped-file|none]';
/** Modes on the host of what a mapped tree makes. */
const FILE_MODE = 0o600;
const FOLDER_MODE = 0o700;

/**
 * One `-fsdev`, or the backend of one `-virtfs`, whose id is its mount tag.
 * @throws OptionError with QEMU's words
 */
export function addFolder(program: Program, opts: Opts): void {
  const id = opts.id ?? opts.string('mount_tag');
  const driver = opts.string('fsdriver');
  if (opts.group.name === 'virtfs') checkShared(opts);
  if (id === undefined) throw new OptionError('fsdev: No id specified');
  if (driver === undefined) throw new OptionError('fsdev: No fsdriver specified');
  if (program.fsdevs.size === 0) {
    program.backends.provide('fsdev', name => {
      const found = program.fsdevs.get(name);
      if (found === undefined)
        throw new SouthbridgeError('ERR_BACKEND', `9pfs device couldn't find fsdev with the id = ${name}`);
      return found;
    });
  }
  program.fsdevs.set(id, tree(id, driver, opts));
}

/** What `-virtfs` says of the device that serves the folder. */
export function sharedFolder(opts: Opts): {
  readonly driver: string;
  readonly fsdev: string;
  readonly mount_tag: string;
} {
  const tag = opts.string('mount_tag') ?? '';
  return { driver: 'virtio-9p-pci', fsdev: opts.id ?? tag, mount_tag: tag };
}

function checkShared(opts: Opts): void {
  if (opts.string('fsdriver') !== undefined && opts.string('mount_tag') !== undefined) return;
  throw new OptionError('Usage: -virtfs fsdriver,mount_tag=tag');
}

function tree(id: string, driver: string, opts: Opts): FileTree {
  const readOnly = opts.bool('readonly') ?? false;
  switch (driver) {
    case 'local':
      refuseUnknown(driver, opts, LOCAL);
      return local(id, readOnly, opts);
    case 'synth':
      refuseUnknown(driver, opts, COMMON);
      return new SynthTree(id, readOnly);
    case 'proxy':
      throw new OptionError('fsdev: fsdriver proxy is not supported', 'use fsdriver local');
    default:
      throw new OptionError(`fsdev: fsdriver ${driver} not found`, 'there are local and synth');
  }
}

function local(id: string, readOnly: boolean, opts: Opts): LocalTree {
  const given = opts.string('security_model');
  if (given === undefined) throw new OptionError('security_model property not set', MODELS_HINT);
  const wanted = given === 'mapped' ? 'mapped-xattr' : given;
  const securityModel: SecurityModel | undefined = SECURITY_MODELS.find(model => model === wanted);
  if (securityModel === undefined) throw new OptionError(`invalid security_model property '${given}'`, MODELS_HINT);
  const devices = opts.string('multidevs') ?? 'warn';
  if (devices !== 'warn' && devices !== 'remap' && devices !== 'forbid')
    throw new OptionError(
      `invalid multidevs property '${devices}'`,
      'Valid options are: multidevs=[remap|forbid|warn]',
    );
  const path = opts.string('path');
  if (path === undefined) throw new OptionError('path property not set');
  const mapped = securityModel === 'mapped-xattr' || securityModel === 'mapped-file';
  for (const name of ['fmode', 'dmode'])
    if (!mapped && opts.string(name) !== undefined)
      throw new OptionError(`${name} is only valid for mapped security modes`);
  return new LocalTree(id, {
    path,
    securityModel,
    readOnly,
    immediateWriteout: opts.string('writeout') === 'immediate',
    multipleDevices: devices,
    modes: { file: mode(opts, 'fmode', FILE_MODE), folder: mode(opts, 'dmode', FOLDER_MODE) },
  });
}

/** Octal, with or without a leading 0. */
function mode(opts: Opts, name: string, fallback: number): number {
  return (opts.number(name) ?? fallback) & 0o777;
}

function refuseUnknown(driver: string, opts: Opts, known: readonly string[]): void {
  for (const [name] of opts.entries()) {
    if (name.startsWith('throttling.'))
      throw new OptionError(`'${name}': a shared folder is not throttled here`, 'leave it out');
    if (!known.includes(name)) throw new OptionError(`'${name}' is invalid for fsdriver '${driver}'`);
  }
}
