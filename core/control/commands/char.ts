import { reason } from '../../block/io-error.ts';
import type { Chardev } from '../../char/chardev.ts';
import { RingbufChardev } from '../../char/simple.ts';
import { CHARDEV_KINDS, specFromQapi } from '../char/spec.ts';
import type { Program } from '../program.ts';
import { QmpError } from '../qapi/error.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

export function charCommands(program: Program): Handlers<QmpSession> {
  const { chars } = program;
  const ringbuf = (id: string): RingbufChardev => {
    const chardev = chars.get(id);
    if (chardev === undefined) throw new QmpError(`Device '${id}' not found`);
    if (!(chardev instanceof RingbufChardev)) throw new QmpError(`${id} is not a ringbuf device`);
    return chardev;
  };
  const made = (chardev: Chardev) => (chardev.filename.startsWith('pty:') ? { pty: chardev.filename.slice(4) } : {});
  const named = (name: string): number | undefined => program.takeNamedFd(name);
  return {
    'query-chardev': () =>
      chars.ids.flatMap(label => {
        const chardev = chars.get(label);
        return chardev === undefined ? [] : [{ label, filename: chardev.filename, 'frontend-open': chardev.userOpen }];
      }),
    'query-chardev-backends': () => CHARDEV_KINDS.map(name => ({ name })),
    'chardev-add': async ({ id, backend }) => {
      chars.checkFree(id);
      try {
        return made(await chars.add(id, specFromQapi(backend, named)));
      } catch (error) {
        throw new QmpError(`Failed to add chardev '${id}': ${reason(error)}`);
      }
    },
    'chardev-change': async ({ id, backend }) => made(await chars.change(id, specFromQapi(backend, named))),
    'chardev-remove': ({ id }) => chars.remove(id),
    'chardev-send-break': ({ id }) => {
      const chardev = chars.get(id);
      if (chardev === undefined) throw new QmpError(`Chardev '${id}' not found`);
      chardev.sendBreak();
    },
    'ringbuf-write': ({ device, data, format }) => {
      ringbuf(device).write(Buffer.from(data, format === 'base64' ? 'base64' : 'utf8'));
    },
    'ringbuf-read': ({ device, size, format }) => {
      if (Number(size) <= 0) throw new QmpError('size must be greater than zero');
      return ringbuf(device)
        .read(Number(size))
        .toString(format === 'base64' ? 'base64' : 'utf8');
    },
  };
}
