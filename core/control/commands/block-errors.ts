import { SouthbridgeError } from '../../errors.ts';
import { QmpError, type QmpErrorClass } from '../qapi/error.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

/** Errors that clients tell apart by class. */
const CLASSES: ReadonlyMap<string, QmpErrorClass> = new Map([
  ['ERR_DEVICE_NOT_FOUND', 'DeviceNotFound'],
  ['ERR_DEVICE_NOT_ACTIVE', 'DeviceNotActive'],
]);

type UntypedHandler = (args: unknown, session: QmpSession) => unknown;

/** The handlers, with the block layer's errors in the classes that QMP has for them. */
export function blockErrors(handlers: Handlers<QmpSession>): Handlers<QmpSession> {
  const wrapped: Record<string, unknown> = {};
  // Without the types of all commands, whose union the compiler would take half a minute over.
  const entries: [string, unknown][] = Object.entries(handlers);
  for (const [name, given] of entries) {
    const handler = given as UntypedHandler;
    wrapped[name] = async (args: unknown, session: QmpSession): Promise<unknown> => {
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
