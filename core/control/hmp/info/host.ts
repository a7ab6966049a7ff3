import { QmpError } from '../../qapi/error.ts';
import type { iothreadInfo } from '../../startup/iothreads.ts';
import { type HmpCommand, hmp, textOf } from '../command.ts';
import { miceReport, vncReport } from '../commands/display.ts';
import { captureReport } from '../commands/sound.ts';

/** What connects the machine to its host, and devices that speak with both. */
export const HOST_INFO: readonly HmpCommand[] = [
  hmp('network', '', '', 'show the network state', async ({ program }) => (await program.nets()).describe()),
  hmp('usernet', '', '', 'show user network stack connection states', async ({ program }) =>
    (await program.nets()).users.map(backend => `Hub -1 (${backend.id}):\n${backend.connectionInfo()}`).join(''),
  ),
  hmp('iothreads', '', '', 'show iothreads', async context => {
    const list = (await context.qmp('query-iothreads')) as readonly ReturnType<typeof iothreadInfo>[];
    return list
      .map(({ id, 'thread-id': thread, ...parameters }) =>
        [`${id}:`, `thread_id=${thread}`, ...Object.entries(parameters).map(pair => pair.join('='))].join('\n  '),
      )
      .map(text => `${text}\n`)
      .join('');
  }),
  hmp('chardev', '', '', 'character devices', ({ program: { chars } }) =>
    chars.ids.map(id => `${id}: filename=${chars.get(id)?.filename}\n`).join(''),
  ),
  hmp('mice', '', '', 'which mouse gets the events', miceReport),
  hmp('balloon', '', '', 'the memory balloon', async context => {
    const { actual } = (await context.qmp('query-balloon')) as { actual: number };
    return `balloon: actual=${Math.floor(actual / 2 ** 20)}\n`;
  }),
  hmp('tpm', '', '', 'the TPM', ({ program: { tpmdevs } }) =>
    [...tpmdevs.values()]
      .filter(({ user }) => user !== undefined)
      .map(
        ({ id, user, chardev }, index) =>
          `${index === 0 ? 'TPM device:\n' : ''} tpm${index}: model=${user?.model}\n  \\ ${id}: type=emulator,chardev=${chardev.label}\n`,
      )
      .join(''),
  ),
  hmp('usb', '', '', "the guest's USB devices", async context => textOf(await context.qmp('x-query-usb'))),
  hmp('usbhost', '', '', "the host's USB devices", () => 'Command "info usbhost" is not available.\n'),
  hmp('vnc', '', '', 'the VNC server', vncReport),
  hmp('spice', '', '', 'the SPICE server', () => 'Server: disabled\n'),
  hmp('rdma', '', '', 'devices for remote memory access', async context => textOf(await context.qmp('x-query-rdma'))),
  ...['rocker', 'rocker-ports', 'rocker-of-dpa-flows', 'rocker-of-dpa-groups'].map(name =>
    hmp(
      name,
      `name:s${name.includes('dpa') ? ',id:i?' : ''}`,
      'name',
      'a switch: there is no such device here',
      (_context, args) => {
        throw new QmpError(`rocker ${args.text('name')} not found`);
      },
    ),
  ),
  hmp('capture', '', '', 'what is recorded', ({ program }) => captureReport(program)),
  hmp('dump', '', '', 'how far a dump of memory is', async ({ program }) => {
    const { status, completed, total } = (await program.memoryDump()).result;
    const finished =
      status === 'active' ? `Finished: ${((100 * Number(completed)) / Number(total)).toFixed(2)} %\n` : '';
    return `Status: ${status}\n${finished}`;
  }),
  hmp('plugins', '', '', 'what came from which plugin', async ({ program }) => {
    const { pluginList } = await import('../../startup/listings.ts');
    return pluginList(program.plugins);
  }),
];
