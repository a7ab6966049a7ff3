import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { FrameChannel } from '../../../core/net/frame-channel.ts';
import { encodeFrame, FrameDecoder } from '../../../core/net/frame-stream.ts';
import { NetClient } from '../../../core/net/net-client.ts';
import { until } from '../../until.ts';
import { noAddon } from '../host/addon.ts';

const FRAME = 1514;

/** A card with room for so many frames, on a wire whose other end is `peer`. */
interface Bench {
  readonly card: NetClient;
  readonly peer: Socket;
  readonly received: number[];
  readonly channel: FrameChannel;
  room: number;
  closed: number;
}

/** A frame that begins with its number. */
function numbered(number: number): Buffer {
  const frame = Buffer.alloc(FRAME, number & 0xff);
  frame.writeUInt32BE(number);
  return frame;
}

const onWire = (from: number, count: number): Buffer =>
  Buffer.concat(Array.from({ length: count }, (_, index) => encodeFrame(numbered(from + index), FRAME)));

const count = (to: number): number[] => Array.from({ length: to }, (_, index) => index);

async function bench(test: Test): Promise<Bench> {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-wire-'));
  const path = join(folder, 'socket');
  const server = createServer().listen(path);
  const accepted = once(server, 'connection');
  const peer = connect(path);
  await once(peer, 'connect');
  const [stream] = (await accepted) as [Socket];
  const received: number[] = [];
  const card = new NetClient('card', 'e1000', {
    canReceive: () => result.room > 0,
    receive: frame => {
      result.room--;
      received.push(Buffer.from(frame).readUInt32BE());
      return true;
    },
  });
  const end = new NetClient('n0', 'stream', {
    canReceive: () => channel.ready,
    receive: (frame, length) => {
      channel.send(frame, length);
      return true;
    },
    burst: lasts => channel.burst(lasts),
    peerReady: () => channel.pull(),
  });
  end.connect(card);
  const channel: FrameChannel = new FrameChannel(stream, end, () => result.closed++);
  const result: Bench = { card, peer, received, channel, room: 0, closed: 0 };
  test.teardown(() => {
    channel.close();
    peer.destroy();
    server.close();
    rmSync(folder, { recursive: true });
  });
  return result;
}

t.test('a card with room gets what has come within its doorbell', { skip: noAddon }, async t => {
  const wire = await bench(t);
  wire.room = 256;
  wire.peer.write(onWire(0, 40));
  wire.card.receiverReady();
  t.strictSame(wire.received, count(40));
});

t.test('a full ring holds the sender up, and nothing is lost or changes places', async t => {
  const wire = await bench(t);
  const TOTAL = 3000;
  wire.peer.write(onWire(0, TOTAL));
  let most = 0;
  for (let turns = 0; wire.received.length < TOTAL && turns < 20_000; turns++) {
    wire.room = 7;
    wire.card.receiverReady();
    most = Math.max(most, wire.card.queued);
    await delay(0);
  }
  t.strictSame(wire.received, count(TOTAL));
  t.ok(most <= 1, 'one frame at most waits with the card');
});

t.test('a peer that does not read holds the card up', async t => {
  const wire = await bench(t);
  wire.peer.pause();
  let sent = 0;
  while (wire.channel.ready && sent < 10_000) {
    wire.card.burst(true);
    for (let index = 0; index < 32; index++) wire.card.send(numbered(sent++));
    wire.card.burst(false);
  }
  t.ok(sent > 2000 && sent < 10_000, `${sent} frames wait`);
  const numbers: number[] = [];
  const decoder = new FrameDecoder(frame => {
    numbers.push(Buffer.from(frame).readUInt32BE());
    return true;
  });
  wire.peer.on('data', data => decoder.push(data));
  wire.peer.resume();
  await until(() => numbers.length >= sent);
  t.strictSame(numbers, count(sent));
  t.ok(wire.channel.ready);
});

t.test('the end of the connection is told once', async t => {
  const gone = await bench(t);
  gone.peer.end();
  await until(() => gone.closed > 0);
  t.equal(gone.closed, 1);
  t.ok(gone.card.send(numbered(0)), 'what is sent then is lost, as on a wire');

  const garbage = await bench(t);
  garbage.room = 1;
  garbage.peer.on('error', () => {});
  garbage.peer.write(Buffer.from([0xff, 0xff, 0xff, 0xff, 1, 2, 3]));
  await until(() => garbage.closed > 0);
  t.equal(garbage.closed, 1, 'a frame of 4 GiB');
  t.strictSame(garbage.received, []);

  const silent = await bench(t);
  silent.channel.close();
  await delay(20);
  t.equal(silent.closed, 0);
});

t.test('a decoder that is fed from within what it tells', async t => {
  const told: number[] = [];
  let moved = false;
  const decoder: FrameDecoder = new FrameDecoder(frame => {
    const number = Buffer.from(frame).readUInt32BE();
    told.push(number);
    if (number < 600) decoder.push(onWire(number + 100, 1));
    moved ||= Buffer.from(frame).readUInt32BE() !== number;
    return true;
  });
  decoder.push(onWire(0, 100));
  t.strictSame(told, count(700));
  t.notOk(moved, 'a frame that is being told of stays where it is');
});
