import type { AudioBackend } from '../../audio/backend.ts';
import type { VncClient } from '../../display/vnc/client.ts';
import { type VncEvent, VncServer } from '../../display/vnc/server.ts';
import type { VncTls } from '../../display/vnc/vencrypt.ts';
import { located } from '../options/command-line.ts';
import { GROUPS } from '../options/groups.ts';
import { OptionError, type Opts, parseOpts } from '../options/opts.ts';
import type { Program } from '../program.ts';
import { QmpError } from '../qapi/error.ts';
import { at } from '../startup/at.ts';
import { secretBytes } from '../startup/objects.ts';
import { VncDisplay } from './vnc-display.ts';
import { type VncPlace, type VncRequest, vncRequest } from './vnc-options.ts';

const EVENTS = {
  connected: 'VNC_CONNECTED',
  initialized: 'VNC_INITIALIZED',
  disconnected: 'VNC_DISCONNECTED',
} as const satisfies Readonly<Record<VncEvent, string>>;

/** Where a machine without `-display`, `-vnc` and `-nographic` shows its screen. */
const DEFAULT = 'localhost:0,to=99,id=default';

/** The VNC servers of the program, made once the machine is built. */
export class Displays {
  readonly #program: Program;
  readonly #displays: VncDisplay[] = [];

  constructor(program: Program) {
    this.#program = program;
  }

  /** Opens what `-vnc` and `-display vnc=` ask for, or the default. */
  async open(): Promise<void> {
    const { line } = this.#program;
    const given: { readonly opts: Opts; readonly location: string }[] = [
      ...line.opts('vnc'),
      ...line
        .all('display')
        .filter(({ value }) => value.startsWith('vnc='))
        .map(({ value, location }) => ({
          opts: located(location, () => parseOpts(GROUPS.vnc, value.slice('vnc='.length))),
          location,
        })),
    ];
    if (given.length === 0 && wantsDefault(line))
      given.push({ opts: parseOpts(GROUPS.vnc, DEFAULT), location: '-vnc' });
    for (const [index, { opts, location }] of given.entries()) {
      const id = index === 0 ? 'default' : `vnc${index + 1}`;
      await at(location, () => this.#add(vncRequest(opts, id)));
    }
  }

  /** @param id undefined for the first */
  find(id?: string): VncDisplay | undefined {
    return id === undefined ? this.#displays[0] : this.#displays.find(({ request }) => request.id === id);
  }

  get all(): readonly VncDisplay[] {
    return this.#displays;
  }

  /** @throws QmpError where there is none of the id, or it asks for no password */
  setPassword(password: string, id?: string): void {
    const display = this.find(id);
    if (display === undefined || !display.request.password) throw new QmpError('Could not set password');
    display.server.password = password;
  }

  async moveTo(places: readonly VncPlace[]): Promise<void> {
    const display = this.find();
    if (display === undefined) throw new QmpError('Can not find vnc display');
    await display.moveTo(places);
  }

  async #add(request: VncRequest): Promise<void> {
    const program = this.#program;
    const { machine } = program;
    const { displays, input } = machine.services;
    const screen =
      request.screen === undefined ? undefined : program.screen(request.screen.device, request.screen.head);
    const name = machine.config.name;
    const credentials = request.tls === undefined ? undefined : await this.#credentials(request.tls);
    const server = new VncServer(
      {
        ...request,
        tls: credentials?.tls,
        name: name === undefined ? 'QEMU' : `QEMU (${name})`,
        audio: request.audiodev === undefined ? undefined : this.#audio(request.audiodev),
        screen,
      },
      {
        displays,
        input,
        keys: machine.keys,
        powerdown: () => machine.power.pressPowerButton(),
        reset: () => machine.power.requestReset('host-qmp-system-reset'),
      },
      (event, client) => this.#tell(display, event, client),
    );
    const display = new VncDisplay(request, server, credentials?.creds);
    if (request.passwordSecret !== undefined) server.password = await this.#secret(request.passwordSecret);
    this.#displays.push(display);
    program.resources.push(display);
    await display.open();
    const [place] = display.places;
    if (request.announce && place !== undefined && place.family !== 'unix')
      program.report.bare(`VNC server running on ${place.host}:${place.service}`);
  }

  /** @throws OptionError where the credentials are of a kind that VeNCrypt does not know */
  async #credentials(request: NonNullable<VncRequest['tls']>) {
    const program = this.#program;
    const { tlsCredentials, tlsUpgrade } = await import('../startup/tls-objects.ts');
    const creds = await tlsCredentials(program, request.creds, 'server');
    const { kind } = creds;
    if (kind === 'psk') throw new OptionError('Unsupported TLS cred type tls-creds-psk');
    const upgrade = await tlsUpgrade(program, { ...request, endpoint: 'server' });
    const { peerName } = await import('../../tls/session.ts');
    const tls: VncTls = {
      kind,
      secure: async stream => {
        const session = await upgrade(stream);
        return { session, peer: creds.verifyPeer ? peerName(session) : undefined };
      },
    };
    return { creds, tls };
  }

  #audio(id: string): AudioBackend {
    const backend = this.#program.audiodevs.get(id);
    if (backend === undefined) throw new OptionError(`Audiodev '${id}' not found`);
    return backend;
  }

  async #secret(id: string): Promise<string> {
    const object = (await this.#program.objects()).get(id);
    if (object === undefined) throw new OptionError(`No secret with id '${id}'`);
    return Buffer.from(secretBytes(object)).toString('utf8');
  }

  #tell(display: VncDisplay, event: VncEvent, client: VncClient): void {
    const [place] = display.places;
    if (place === undefined) return;
    const server = { ...place, auth: display.authentication };
    this.#program.emit(EVENTS[event], { server, client: event === 'connected' ? client.address : client.information });
  }
}

/** As a QEMU without a window of its own: a VNC server, unless the user said how the screen is to be shown. */
function wantsDefault(line: Program['line']): boolean {
  const displays = line.all('display');
  return !line.has('nographic') && displays.every(({ value }) => value === 'default');
}
