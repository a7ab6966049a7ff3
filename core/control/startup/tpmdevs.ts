import { TpmEmulator } from '../../tpm/emulator.ts';
import { OptionError, type Opts } from '../options/opts.ts';
import type { Program } from '../program.ts';

const TYPES_HINT = 'Supported TPM types (choose only one):\n    emulator   TPM emulator backend driver';
const KNOWN = ['type', 'chardev'];

/**
 * One `-tpmdev`.
 * @throws OptionError with QEMU's words; SouthbridgeError ERR_TPM where there is no TPM at the chardev
 */
export function addTpmdev(program: Program, opts: Opts): void {
  const type = opts.string('type');
  if (program.tpmdevs.size > 0) throw new OptionError('Only one TPM is allowed.');
  if (opts.id === undefined) throw new OptionError("Parameter 'id' is missing");
  if (type === undefined) throw new OptionError("Parameter 'type' is missing", TYPES_HINT);
  if (type !== 'emulator') throw new OptionError("Parameter 'type' expects a TPM backend type", TYPES_HINT);
  for (const [name] of opts.entries()) if (!KNOWN.includes(name)) throw new OptionError(`Invalid parameter '${name}'`);
  const chardev = opts.string('chardev');
  if (chardev === undefined) throw new OptionError("tpm-emulator: parameter 'chardev' is missing");
  if (program.chars.get(chardev) === undefined)
    throw new OptionError(`tpm-emulator: tpm chardev '${chardev}' not found`);
  const tpm = TpmEmulator.open(opts.id, program.chars.claim(chardev), {
    error: message => program.report.plain(message),
    awaitsState: () => program.line.has('incoming') && ['prelaunch', 'inmigrate'].includes(program.runState),
  });
  program.tpmdevs.set(tpm.id, tpm);
  program.resources.push(tpm);
  program.backends.provide('tpmdev', id => {
    const found = program.tpmdevs.get(id);
    if (found === undefined) throw new OptionError(`can't find value '${id}'`);
    return found;
  });
}
