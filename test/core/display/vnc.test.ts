import { connect, createServer, type Server, type Socket } from 'node:net';
import t, { type Test } from 'tap';
import { VirtualClock } from '../../../core/clock/clock.ts';
import { type InputEvent, InputHub, LED } from '../../../core/display/input.ts';
import { KeyQueue } from '../../../core/display/key-queue.ts';
import { DisplayHub, fitted, type Screen, type ScreenSource, type Surface } from '../../../core/display/screen.ts';
import { answerOf } from '../../../core/display/vnc/authentication.ts';
import { VncServer, type VncServerOptions } from '../../../core/display/vnc/server.ts';
import { RfbViewer } from './rfb-viewer.ts';

const ENCODINGS = { raw: 0, hextile: 5, zlib: 6, tight: 7, zrle: 16 } as const;
const DESKTOP_SIZE = -223;
const RICH_CURSOR = -239;
const POINTER_TYPE = -257;
const EXTENDED_KEY = -258;
const LED_STATE = -261;
const EXTENDED_SIZE = -308;

/** A screen whose picture a test makes. */
class Picture implements ScreenSource {
  readonly device = 'video0';
  readonly path = '/video0';
  readonly head = 0;
  readonly polled = true;
  width = 200;
  height = 150;
  looks = 0;
  suggested: readonly number[] = [];
  paint: (x: number, y: number) => number = () => 0;

  draw(surface: Surface): Surface {
    this.looks++;
    const fit = fitted(surface, this.width, this.height);
    for (let y = 0; y < this.height; y++)
      for (let x = 0; x < this.width; x++) fit.pixels[y * this.width + x] = this.paint(x, y);
    return fit;
  }

  suggestSize(width: number, height: number): void {
    this.suggested = [width, height];
  }
}

interface Lab {
  readonly picture: Picture;
  readonly screen: Screen;
  readonly server: VncServer;
  readonly input: InputHub;
  readonly clock: VirtualClock;
  readonly events: InputEvent[];
  readonly told: string[];
  view(): Promise<RfbViewer>;
}

async function lab(t: Test, options: Partial<VncServerOptions> = {}): Promise<Lab> {
  const displays = new DisplayHub();
  const picture = new Picture();
  const screen = displays.add(picture);
  const input = new InputHub();
  const clock = new VirtualClock();
  const events: InputEvent[] = [];
  const told: string[] = [];
  input.register({
    name: 'all',
    kinds: new Set(['key', 'button', 'absolute'] as const),
    input: event => void events.push(event),
    sync: () => {},
  });
  const server = new VncServer(
    {
      id: 'default',
      name: 'QEMU (test)',
      password: false,
      share: 'allow-exclusive',
      connections: 32,
      lockKeySync: true,
      keyDelayMs: 0,
      powerControl: false,
      audio: undefined,
      screen: undefined,
      ...options,
    },
    { displays, input, keys: new KeyQueue(input, clock), powerdown: () => {}, reset: () => {} },
    event => void told.push(event),
  );
  const listener: Server = createServer(socket =>
    server.connect(socket, { host: '', service: '', family: 'unknown', websocket: false }),
  );
  await new Promise<void>(resolve => listener.listen(0, '127.0.0.1', resolve));
  const sockets: Socket[] = [];
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.dispose();
    listener.close();
  });
  return {
    picture,
    screen,
    server,
    input,
    clock,
    events,
    told,
    view: async () => {
      const address = listener.address();
      const socket = connect(typeof address === 'object' && address !== null ? address.port : 0, '127.0.0.1');
      sockets.push(socket);
      socket.on('error', () => {});
      return new RfbViewer(socket);
    },
  };
}

async function connected(lab: Lab, ...encodings: number[]): Promise<RfbViewer> {
  const viewer = await lab.view();
  await viewer.handshake(8);
  await viewer.initialize();
  viewer.setEncodings(...encodings);
  return viewer;
}

const expected = ({ width, height, paint }: Picture): Uint32Array =>
  Uint32Array.from({ length: width * height }, (_, index) => paint(index % width, Math.floor(index / width)));

const shows = (viewer: RfbViewer, picture: Picture): boolean =>
  Buffer.from(viewer.pixels.buffer).equals(Buffer.from(expected(picture).buffer));

/** Pictures that lead the encoders through all of their forms. */
const PICTURES: Readonly<Record<string, (x: number, y: number) => number>> = {
  'one colour': () => 0x336699,
  'two colours': (x, y) => ((x * 7 + y * 3) % 5 === 0 ? 0xffffff : 0x000080),
  text: (x, y) => (x % 9 < 3 && y % 16 > 4 ? 0xaaaaaa : y % 32 < 16 ? 0x000000 : 0x0000aa),
  'ten colours': (x, y) => (((x >> 3) + (y >> 2)) % 10) * 0x18_1818,
  'hundred colours': (x, y) => ((x >> 1) % 10) * 0x10_0000 + ((y >> 1) % 10) * 0x1000,
  runs: (x, y) => (((x >> 5) + y) % 200) * 0x01_0305,
  noise: (x, y) => (x * 2_654_435 + y * 40_503 * x) & 0xff_ffff,
};

t.test('each encoding shows each picture', async t => {
  for (const [name, encoding] of Object.entries(ENCODINGS)) {
    t.test(name, async t => {
      const l = await lab(t);
      const viewer = await connected(l, encoding);
      for (const [what, paint] of Object.entries(PICTURES)) {
        l.picture.paint = paint;
        viewer.requestUpdate(false);
        await viewer.update();
        // The first look may have been at the picture before.
        while (!shows(viewer, l.picture)) {
          viewer.requestUpdate(true);
          await viewer.update();
        }
        t.pass(what);
      }
    });
  }
});

t.test('an incremental update has what has changed, and an unchanged picture sends nothing', async t => {
  const l = await lab(t);
  const viewer = await connected(l, ENCODINGS.raw);
  viewer.requestUpdate(false);
  t.equal(await viewer.update(), 1);
  l.picture.paint = (x, y) => (x >= 100 && x < 110 && y >= 40 && y < 44 ? 0xff0000 : 0);
  viewer.requestUpdate(true);
  t.equal(await viewer.update(), 1, 'one rectangle');
  t.ok(shows(viewer, l.picture));
  const { looks } = l.picture;
  await new Promise(resolve => setTimeout(resolve, 200));
  t.equal(l.picture.looks, looks, 'nobody waits, nobody looks');
});

t.test('versions, passwords and their end', async t => {
  const plain = await lab(t);
  for (const minor of [3, 7, 8] as const) {
    const viewer = await plain.view();
    t.equal(await viewer.handshake(minor), minor === 8 ? 0 : undefined, `3.${minor}`);
    await viewer.initialize();
    t.match(viewer, { width: 200, height: 150, name: 'QEMU (test)' });
  }
  t.equal(answerOf(Buffer.from('0123456789abcdef'), 'secret').toString('hex'), DES_ANSWER, 'DES as VNC has it');

  const l = await lab(t, { password: true });
  const attempt = async (password: string, minor: 3 | 8 = 8): Promise<number | undefined> =>
    (await l.view()).handshake(minor, challenge => answerOf(challenge, password));
  t.equal(await attempt('secret'), 1, 'no password has been set');
  l.server.password = 'secret';
  t.equal(await attempt('secret'), 0);
  t.equal(await attempt('secret', 3), 0);
  t.equal(await attempt('Secret'), 1);
  l.server.expiresAt = 1;
  t.equal(await attempt('secret'), 1, 'expired');
});
/** Of OpenSSL's DES in ECB mode, with the key's bits turned around. */
const DES_ANSWER = '752440ee2bfcc2a0d9013fd20371e23b';

t.test('a client alone sends the others away', async t => {
  const l = await lab(t);
  const first = await connected(l, ENCODINGS.raw);
  const second = await l.view();
  await second.handshake(8);
  await second.initialize(false);
  await t.rejects(first.reader.take(1), /hung up/);
  const third = await l.view();
  await third.handshake(8);
  await t.rejects(third.initialize(true), /hung up/, 'nobody beside it');
  t.same(l.told.slice(0, 5), ['connected', 'initialized', 'connected', 'disconnected', 'initialized']);
});

t.test('sizes, pointers and lights', async t => {
  const l = await lab(t);
  const viewer = await connected(l, ENCODINGS.raw, EXTENDED_SIZE, POINTER_TYPE, EXTENDED_KEY, LED_STATE, RICH_CURSOR);
  for (let count = 0; count < 3; count++) await viewer.update();
  t.same(
    viewer.pseudo.map(({ encoding, x }) => [encoding, x]),
    [
      [EXTENDED_KEY, 0],
      [POINTER_TYPE, 1],
      [LED_STATE, 0],
    ],
  );
  viewer.pseudo.length = 0;
  l.input.leds = LED.CAPS_LOCK;
  await viewer.update();
  t.match(viewer.pseudo.pop(), { encoding: LED_STATE, contents: Buffer.from([LED.CAPS_LOCK]) });
  l.screen.cursor = { width: 8, height: 1, hotX: 1, hotY: 0, pixels: new Uint32Array(8).fill(0xff123456, 4) };
  await viewer.update();
  const cursor = viewer.pseudo.pop();
  t.match(cursor, { encoding: RICH_CURSOR, x: 1, width: 8 });
  t.equal(cursor?.contents.readUInt32LE(16), 0x123456);
  t.equal(cursor?.contents[32], 0x0f, 'the mask');
  // The guest changes its mode.
  viewer.requestUpdate(false);
  Object.assign(l.picture, { width: 320, height: 240 });
  await viewer.update();
  while (viewer.pseudo.at(-1)?.width !== 320) {
    viewer.requestUpdate(true);
    await viewer.update();
  }
  t.match(viewer.pseudo.at(-1), { encoding: EXTENDED_SIZE, width: 320, height: 240, y: 0 });
  // The viewer's window does.
  viewer.reader.send([251, 0, 0x01, 0x00, 0x00, 0xc0, 0, 0]);
  while (viewer.pseudo.at(-1)?.x !== 1) await viewer.update();
  t.match(viewer.pseudo.at(-1), { encoding: EXTENDED_SIZE, x: 1, y: 4 }, 'forwarded');
  t.same(l.picture.suggested, [256, 192]);
});

t.test('a client that only knows the older message for sizes', async t => {
  const l = await lab(t);
  const viewer = await connected(l, ENCODINGS.raw, DESKTOP_SIZE);
  viewer.requestUpdate(false);
  await viewer.update();
  Object.assign(l.picture, { width: 64, height: 32 });
  viewer.requestUpdate(true);
  await viewer.update();
  t.match(viewer.pseudo.at(-1), { encoding: DESKTOP_SIZE, width: 64, height: 32 });
});

t.test('keys and pointer', async t => {
  const l = await lab(t);
  const viewer = await connected(l, ENCODINGS.raw);
  const settle = async (): Promise<InputEvent[]> => {
    viewer.requestUpdate(false);
    await viewer.update();
    return l.events.splice(0);
  };
  await settle();
  viewer.reader.send([4, 1, 0, 0, 0, 0, 0, 0x61], [4, 0, 0, 0, 0, 0, 0, 0x61], [4, 0, 0, 0, 0, 0, 0, 0x62]);
  t.same(
    await settle(),
    [
      { kind: 'key', key: 'a', down: true },
      { kind: 'key', key: 'a', down: false },
    ],
    'a release without a press is none',
  );
  viewer.reader.send([4, 1, 0, 0, 0, 0, 0, 0x41]);
  t.same(
    (await settle()).map(event => event.kind === 'key' && event.key),
    ['caps_lock', 'caps_lock', 'a'],
    'a capital without Shift: the client has Caps Lock on',
  );
  viewer.reader.send([255, 0, 0, 1, 0, 0, 0xff, 0x0d, 0, 0, 0, 0x9c]);
  t.same(await settle(), [{ kind: 'key', key: 'kp_enter', down: true }], 'by its place');
  viewer.reader.send([5, 1, 0, 100, 0, 75]);
  t.same(await settle(), [
    { kind: 'button', button: 'left', down: true },
    { kind: 'absolute', axis: 'x', value: 16_383 },
    { kind: 'absolute', axis: 'y', value: 16_383 },
  ]);
  viewer.reader.send([99]);
  await t.rejects(viewer.reader.take(1), /hung up/, 'a message that there is not');
  t.same(
    l.events.map(event => event.kind === 'key' && [event.key, event.down]),
    [
      ['a', false],
      ['kp_enter', false],
    ],
    'who has gone holds no key',
  );
});

t.test('pixels of eight and sixteen bits, and of the other byte order', async t => {
  const l = await lab(t);
  l.picture.paint = x => (x < 100 ? 0xff0000 : 0x0000ff);
  const viewer = await connected(l, ENCODINGS.raw);
  const first = async (format: number[], bytes: number): Promise<Buffer> => {
    viewer.reader.send([0, 0, 0, 0, ...format, 0, 0, 0]);
    viewer.requestUpdate(false);
    await viewer.reader.take(4 + 12);
    const pixels = await viewer.reader.take(200 * 150 * bytes);
    return pixels.subarray(0, bytes);
  };
  await viewer.reader.take(0);
  const rgb565 = [16, 16, 0, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0];
  t.same(await first(rgb565, 2), Buffer.from([0x00, 0xf8]), '5-6-5');
  t.same(await first([32, 24, 1, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0], 4), Buffer.from([0, 0xff, 0, 0]), 'big-endian');
  t.same(await first([8, 8, 0, 1, 0, 7, 0, 7, 0, 3, 0, 3, 6], 1), Buffer.from([0x07]), '3-3-2');
});
