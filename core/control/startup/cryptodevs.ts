import type { CryptoBackend } from '../../crypto/cryptodev.ts';
import { SouthbridgeError } from '../../errors.ts';
import { QmpError } from '../qapi/error.ts';
import type { UserObject, UserObjects } from './objects.ts';

/** Checks a `cryptodev-*` object. @throws QmpError with QEMU's words */
export function checkCryptodev({ spec }: UserObject): void {
  if (spec['qom-type'] !== 'cryptodev-backend-builtin') return;
  const { queues = 1 } = spec;
  if (queues === 0) throw new QmpError(`Property '${spec['qom-type']}.queues' doesn't take value '0'`);
  if (queues !== 1) throw new QmpError('Only support one queue in cryptdov-builtin backend');
}

/** What does the cryptography for the device that names the object. @throws SouthbridgeError ERR_BACKEND */
export function cryptodevOf(objects: UserObjects, id: string): CryptoBackend {
  const object = objects.get(id);
  if (object === undefined || !object.typeChain.includes('cryptodev-backend'))
    throw new SouthbridgeError('ERR_BACKEND', `Device '${id}' not found`, `-object cryptodev-backend-builtin,id=${id}`);
  return {
    id,
    get used() {
      return object.users > 0;
    },
    claim() {
      object.users++;
      return () => {
        object.users--;
      };
    },
  };
}
