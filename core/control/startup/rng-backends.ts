import { EgdRng } from '../../rng/egd-rng.ts';
import { FileRng } from '../../rng/file-rng.ts';
import { BuiltinRng, type RngBackend } from '../../rng/rng.ts';
import type { Program } from '../program.ts';
import { QmpError } from '../qapi/error.ts';
import type { UserObject } from './objects.ts';

const backends = new WeakMap<UserObject, RngBackend>();

/** Opens the source of an `rng-*` object; deleting the object closes it. */
export function openRng(program: Program, object: UserObject): void {
  const backend = rngFor(program, object);
  backends.set(object, backend);
  if (backend instanceof BuiltinRng) return;
  object.onDelete = () => backend.dispose();
}

/** The source of random numbers that belongs to an object, for the device that names it. */
export function rngOf(object: UserObject | undefined): RngBackend | undefined {
  return object === undefined ? undefined : backends.get(object);
}

function rngFor(program: Program, { id, spec }: UserObject): BuiltinRng | FileRng | EgdRng {
  switch (spec['qom-type']) {
    case 'rng-random':
      return new FileRng(id, spec.filename ?? '/dev/urandom');
    case 'rng-egd':
      if (program.chars.get(spec.chardev) === undefined)
        throw new QmpError(`Device '${spec.chardev}' not found`, 'DeviceNotFound');
      return new EgdRng(id, program.chars.claim(spec.chardev));
    default:
      return new BuiltinRng(id);
  }
}
