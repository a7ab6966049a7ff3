import { SouthbridgeError } from '../../errors.ts';
import { QmpError, type QmpErrorClass } from '../qapi/error.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

/** Errors that clients tell apart by class. */
const CLASSES: ReadonlyMap<string, QmpErrorClass> = new Map([
  ['ERR_DEVICE_NOT_FOUND', 'DeviceNotFound'],
  ['ERR_DEVICE_NOT_ACTIVE', 'DeviceNotActive'],
]);

/** The handlers, with the block layer's errors in the classes that QMP has for them. */
export function blockErrors(handlers: Handlers<QmpSession>): Handlers<QmpSession> {
  const wrapped: Record<string, unknown> = {};
  for (const [name, handler] of Object.entries(handlers)) {
    wrapped[name] = async (args: never, session: QmpSession): Promise<unknown> => {
      try {
        return await handler(args, session);
      } catch (error) {
        const known = error instanceof SouthbridgeError ? CLASSES.get(error.code) : undefined;
        throw known === undefined || !(error instanceof Error) ? error : new QmpError(error.message, known);
      }
    };
  }
  return wrapped;
}
