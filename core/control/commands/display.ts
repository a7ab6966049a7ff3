import { writeFile } from 'node:fs/promises';
import { portableNetworkGraphic, portablePixmap } from '../../display/image-file.ts';
import type { VncDisplay } from '../display/vnc-display.ts';
import type { VncPlace } from '../display/vnc-options.ts';
import type { Program } from '../program.ts';
import type { Value } from '../qapi/declare.ts';
import { QmpError } from '../qapi/error.ts';
import type { SocketAddress } from '../qapi/schema/sockets.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

/** Screens and those who look at them. */
export function displayCommands(program: Program): Handlers<QmpSession> {
  const withDisplays = async <T>(use: (displays: Awaited<ReturnType<Program['displays']>>) => T): Promise<T> =>
    use(await program.displays());
  return {
    screendump: async ({ filename, device, head, format }) => {
      if (device === undefined && head !== undefined)
        throw new QmpError("'head' must be specified together with 'device'");
      const screen =
        device === undefined
          ? program.machine.services.displays.screens[0]
          : program.screen(device, head === undefined ? 0 : Number(head));
      if (screen === undefined) throw new QmpError('There is no console to take a screendump from');
      const surface = screen.refresh();
      const bytes = format === 'png' ? portableNetworkGraphic(surface) : portablePixmap(surface);
      await writeFile(filename, bytes).catch((error: unknown) => {
        throw new QmpError(`failed to open file '${filename}': ${describe(error)}`);
      });
    },
    'query-display-options': () => ({ type: program.line.has('nographic') || isNone(program) ? 'none' : 'default' }),
    set_password: options => {
      if (options.connected !== undefined && options.connected !== 'keep')
        throw new QmpError("Invalid parameter 'connected'");
      return withDisplays(displays => displays.setPassword(options.password, options.display));
    },
    expire_password: ({ time, display }) =>
      withDisplays(displays => {
        const found = displays.find(display);
        const expiresAt = expiry(time);
        if (found === undefined || expiresAt === undefined) throw new QmpError('Could not set password expire time');
        found.server.expiresAt = expiresAt;
      }),
    'change-vnc-password': ({ password }) => withDisplays(displays => displays.setPassword(password)),
    'query-vnc': () =>
      withDisplays(displays => {
        const display = displays.find();
        const place = display?.places.find(({ websocket }) => !websocket);
        if (display === undefined || place === undefined) return { enabled: false };
        const { host, service, family } = place;
        return { enabled: true, auth: display.authentication, family, clients: clients(display), service, host };
      }),
    'query-vnc-servers': () =>
      withDisplays(displays =>
        displays.all.map(display => ({
          id: display.request.id,
          server: display.places.map(place => ({ ...place, ...display.authOf(place.websocket) })),
          clients: clients(display),
          ...display.authOf(false),
          ...(display.request.screen !== undefined && { display: display.request.screen.device }),
        })),
      ),
    'display-reload': options => {
      if (!options['tls-certs']) return undefined;
      return withDisplays(displays => {
        const display = displays.find();
        if (display === undefined) throw new QmpError('Can not find vnc display');
        display.reloadCredentials();
      });
    },
    'display-update': async options => {
      const displays = await program.displays();
      await displays.moveTo((options.addresses ?? displays.find()?.request.places ?? []).map(placeOf));
    },
  };
}

const isNone = (program: Program): boolean => program.line.last('display') === 'none';

const clients = ({ server }: VncDisplay) => server.clients.map(({ information }) => information);

/** Seconds since 1970: `now`, `never`, `+seconds`, or the time itself. */
function expiry(time: string): number | undefined {
  const now = Math.floor(Date.now() / 1000);
  if (time === 'now') return 0;
  if (time === 'never') return Number.POSITIVE_INFINITY;
  const match = /^(\+?)(\d+)$/.exec(time);
  return match === null ? undefined : (match[1] === '+' ? now : 0) + Number(match[2]);
}

function placeOf(address: Value<typeof SocketAddress> | VncPlace): VncPlace {
  if (address.type === 'unix') return { type: 'unix', path: address.path };
  if (address.type !== 'inet') throw new QmpError('a VNC server cannot listen on a file descriptor');
  const family = 'family' in address ? address.family : address.ipv4 ? 'ipv4' : address.ipv6 ? 'ipv6' : undefined;
  const to = address.to === undefined ? undefined : Number(address.to);
  return { type: 'inet', host: address.host, port: Number(address.port), to, family };
}

const describe = (error: unknown): string =>
  error instanceof Error && 'code' in error && error.code === 'ENOENT'
    ? 'No such file or directory'
    : error instanceof Error
      ? error.message
      : String(error);
