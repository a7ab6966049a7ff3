import type { Duplex } from 'node:stream';
import type { AudioBackend } from '../../audio/backend.ts';
import type { InputHub } from '../input.ts';
import type { KeyQueue } from '../key-queue.ts';
import { blankSurface, type CursorImage, type DisplayHub, type Screen, type Surface } from '../screen.ts';
import { type VncAddress, VncClient } from './client.ts';
import { VncAudio } from './client-audio.ts';
import { Reference } from './damage.ts';
import type { VncEntry } from './handshake.ts';
import { RemoteKeyboard } from './keyboard.ts';
import type { VncTls } from './vencrypt.ts';

/** Milliseconds between two looks at a screen: at first, more for each look in vain, and at most. */
const REFRESH = { BASE: 30, INCREMENT: 50, MAX: 3000 } as const;

/** Whether clients may be alone, and whether they may not. */
export type SharePolicy = 'allow-exclusive' | 'force-shared' | 'ignore';

export interface VncServerOptions {
  readonly id: string;
  /** What clients see in a window's title. */
  readonly name: string;
  readonly password: boolean;
  /** Viewers have to speak TLS. */
  readonly tls?: VncTls | undefined;
  readonly share: SharePolicy;
  /** How many clients there may be at a time. */
  readonly connections: number;
  readonly lockKeySync: boolean;
  readonly keyDelayMs: number;
  readonly powerControl: boolean;
  readonly audio: AudioBackend | undefined;
  /** The screen that is shown; undefined for the machine's first. */
  readonly screen: Screen | undefined;
}

/** What a server reaches of the machine. */
export interface VncMachine {
  readonly displays: DisplayHub;
  readonly input: InputHub;
  readonly keys: KeyQueue;
  powerdown(): void;
  reset(): void;
}

export type VncEvent = 'connected' | 'initialized' | 'disconnected';

/**
 * One VNC display: the clients that look at one screen. Nothing runs while nobody waits for a picture; a screen that is polled
 * is looked at less and less often as long as it stays the same.
 */
export class VncServer {
  readonly options: VncServerOptions;
  readonly keyboard: RemoteKeyboard;
  readonly #reference = new Reference();
  readonly #machine: VncMachine;
  readonly #told: (event: VncEvent, client: VncClient) => void;
  readonly #clients = new Set<VncClient>();
  readonly #subscriptions: (() => void)[];
  #screen: Screen | undefined;
  #unwatch: () => void = () => {};
  #timer: NodeJS.Timeout | undefined;
  #interval: number = REFRESH.BASE;
  /** The screen has told of a change, or a client is new. */
  #stale = true;
  #password: string | undefined;
  #expiresAt = Number.POSITIVE_INFINITY;
  #leds = 0;
  #dueAt = 0;

  constructor(options: VncServerOptions, machine: VncMachine, told: (event: VncEvent, client: VncClient) => void) {
    this.options = options;
    this.#machine = machine;
    this.#told = told;
    this.keyboard = new RemoteKeyboard(machine.keys, options);
    this.#chooseScreen();
    this.#subscriptions = [
      machine.displays.listen(() => this.#chooseScreen()),
      machine.input.listen(() => this.#inputChanged()),
    ];
  }

  // For its clients

  get input(): InputHub {
    return this.#machine.input;
  }

  get name(): string {
    return this.options.name;
  }

  /** The picture as clients know it. */
  get reference(): Surface {
    return this.#reference.surface;
  }

  get cursor(): CursorImage | undefined {
    return this.#screen?.cursor;
  }

  get power(): Pick<VncMachine, 'powerdown' | 'reset'> {
    return this.#machine;
  }

  get powerControl(): boolean {
    return this.options.powerControl;
  }

  /** The password that lets clients in now; undefined where none does. */
  get validPassword(): string | undefined {
    return this.#expiresAt < Math.floor(Date.now() / 1000) ? undefined : this.#password;
  }

  get hasAudio(): boolean {
    return this.options.audio !== undefined;
  }

  openAudio(client: VncClient): VncAudio | undefined {
    const { audio } = this.options;
    return audio === undefined
      ? undefined
      : new VncAudio(audio, (operation, samples) => client.sendAudio(operation, samples));
  }

  /** Decides by the share policy whether a client may come in, and who has to go for it. */
  admit(client: VncClient, shared: boolean): boolean {
    const others = [...this.#clients].filter(({ share }) => share === 'shared' || share === 'exclusive');
    const { share, connections } = this.options;
    if (share === 'allow-exclusive') {
      if (!shared) for (const other of others) other.close();
      else if (others.some(other => other.share === 'exclusive')) return false;
    } else if (share === 'force-shared' && !shared) {
      return false;
    }
    client.share = shared ? 'shared' : 'exclusive';
    return [...this.#clients].filter(({ share: mode }) => mode === 'shared').length <= connections;
  }

  initialized(client: VncClient): void {
    this.#told('initialized', client);
  }

  left(client: VncClient): void {
    if (!this.#clients.delete(client)) return;
    this.#told('disconnected', client);
    if (client.initialized) this.keyboard.releaseAll();
    if (this.#clients.size === 0) this.#sleep();
  }

  /** A client has done something: it will want to see what comes of it. */
  active(): void {
    this.#interval = REFRESH.BASE;
    if (this.#timer !== undefined) this.#arm();
  }

  /** A client waits for a picture. */
  wake(): void {
    this.#stale = true;
    this.#interval = REFRESH.BASE;
    if (this.#clients.size > 0) this.#arm();
  }

  suggestSize(width: number, height: number): boolean {
    const source = this.#screen?.source;
    if (source?.suggestSize === undefined) return false;
    source.suggestSize(width, height);
    return true;
  }

  // For the machine's user

  get clients(): readonly VncClient[] {
    return [...this.#clients];
  }

  get screen(): Screen | undefined {
    return this.#screen;
  }

  set password(password: string) {
    this.#password = password;
  }

  /** @param seconds since 1970 until which the password lets clients in */
  set expiresAt(seconds: number) {
    this.#expiresAt = seconds;
  }

  /** Takes a client that has connected. */
  connect(stream: Duplex, address: VncAddress, entry: VncEntry = {}): void {
    if (this.#clients.size === 0) this.#look();
    const client = new VncClient(this, stream, address, entry);
    this.#clients.add(client);
    this.#told('connected', client);
    client.start();
    this.#limitConnecting();
  }

  dispose(): void {
    for (const subscription of this.#subscriptions.splice(0)) subscription();
    for (const client of this.#clients) client.close();
    this.#unwatch();
    this.#sleep();
  }

  /** Who has not yet come in must not keep others out: the one that has tried the longest goes. */
  #limitConnecting(): void {
    const connecting = [...this.#clients].filter(({ share }) => share === 'connecting');
    if (connecting.length > this.options.connections) connecting[0]?.close();
  }

  #chooseScreen(): void {
    const { screens } = this.#machine.displays;
    const bound = this.options.screen;
    const screen = bound !== undefined && screens.includes(bound) ? bound : screens[0];
    if (screen === this.#screen) return;
    this.#unwatch();
    this.#screen = screen;
    this.#unwatch =
      screen?.watch({
        changed: () => this.wake(),
        cursorChanged: () => {
          for (const client of this.#clients) client.cursorChanged(screen.cursor);
        },
      }) ?? (() => {});
    if (this.#clients.size > 0) this.wake();
  }

  #inputChanged(): void {
    const { absolute, leds } = this.#machine.input;
    const ledsChanged = leds !== this.#leds;
    this.#leds = leds;
    for (const client of this.#clients) {
      client.pointerModeChanged(absolute);
      if (ledsChanged) client.ledsChanged(leds);
    }
  }

  // Looking at the screen

  /** The next look is due by now; one that is due earlier stays. */
  #arm(): void {
    const dueAt = performance.now() + this.#interval;
    if (this.#timer !== undefined && this.#dueAt <= dueAt) return;
    clearTimeout(this.#timer);
    this.#dueAt = dueAt;
    this.#timer = setTimeout(() => this.#refresh(), this.#interval).unref();
  }

  #sleep(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #refresh(): void {
    this.#timer = undefined;
    const polled = this.#screen?.source.polled ?? false;
    const changed = (polled || this.#stale) && this.#look();
    this.#stale = false;
    let sent = 0;
    for (const client of this.#clients) sent += client.update(this.reference);
    if (changed && sent > 0) this.#interval = Math.max(REFRESH.BASE, this.#interval / 2);
    else this.#interval = Math.min(REFRESH.MAX, this.#interval + REFRESH.INCREMENT);
    if (polled && [...this.#clients].some(({ wantsUpdate }) => wantsUpdate)) this.#arm();
  }

  /** Brings the reference up to date, and marks for each client what it has not seen. */
  #look(): boolean {
    const surface = this.#screen?.refresh() ?? NO_PICTURE;
    if (this.#reference.resized(surface)) {
      for (const client of this.#clients) client.resized(surface.width, surface.height);
      return true;
    }
    return this.#reference.update(surface, (column, row) => {
      for (const client of this.#clients) client.damage.mark(column, row);
    });
  }
}

/** What there is to be seen of a machine without a display adapter. */
const NO_PICTURE = blankSurface(640, 480);
