/** What holds for any frames, cut, refused and filtered anyhow. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { Chardev } from '../../../core/char/chardev.ts';
import { BufferFilter } from '../../../core/net/filter-buffer.ts';
import { DumpFilter } from '../../../core/net/filter-dump.ts';
import { MirrorFilter, RedirectorFilter } from '../../../core/net/filter-redirect.ts';
import { encodeFrame, FrameDecoder, LARGEST_FRAME } from '../../../core/net/frame-stream.ts';
import { Hub } from '../../../core/net/hub.ts';
import { NetClient } from '../../../core/net/net-client.ts';

const frames = fc.array(fc.uint8Array({ minLength: 1, maxLength: 300 }), { maxLength: 12 });
const hex = (frame: Uint8Array, length = frame.length): string =>
  Buffer.from(frame.subarray(0, length)).toString('hex');
const stream = (list: readonly Uint8Array[]): Buffer =>
  Buffer.concat(list.map(frame => encodeFrame(frame, frame.length)));

/** Cuts `bytes` at the places given, in any order. */
function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const sorted = [0, ...places.map(place => place % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  return sorted.slice(1).map((end, index) => bytes.subarray(sorted[index], end));
}

/** One end of a wire, and what it got. */
function end(name: string): { client: NetClient; got: string[] } {
  const got: string[] = [];
  const client = new NetClient(name, name, {
    canReceive: () => true,
    receive: (frame, length) => got.push(hex(frame, length)) > 0,
  });
  return { client, got };
}

/** A character device that keeps what is written to it, and lets the test write to who listens. */
class Line extends Chardev {
  written: Buffer[] = [];
  override get filename(): string {
    return 'line';
  }
  override open(): Promise<void> {
    this.opened();
    return Promise.resolve();
  }
  protected override transmit(bytes: Uint8Array): number {
    this.written.push(Buffer.from(bytes));
    return bytes.length;
  }
  give(bytes: Buffer): void {
    this.push(bytes);
  }
  leave(): void {
    this.closed();
  }
  override dispose(): void {}
}

t.test(
  'a stream of frames is the same frames, cut anywhere, with empty ones between, and refused at any time',
  async t => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 12 }),
        fc.array(fc.nat(), { maxLength: 20 }),
        fc.array(fc.boolean(), { maxLength: 20 }),
        (list, places, refusals) => {
          const got: string[] = [];
          let turn = 0;
          const decoder = new FrameDecoder((frame, length) => {
            got.push(hex(frame, length));
            return refusals[turn++] !== true;
          });
          for (const piece of cut(stream(list), places)) if (!decoder.push(piece)) return false;
          for (let count = 0; count < 40; count++) decoder.goOn();
          return (
            got.join() ===
            list
              .filter(({ length }) => length > 0)
              .map(frame => hex(frame))
              .join()
          );
        },
      ),
    );
    t.pass();
  },
);

t.test('a length that nobody sends ends the stream after what came before it, and a new one begins', async t => {
  fc.assert(
    fc.property(frames, fc.integer({ min: LARGEST_FRAME + 1, max: 0xffff_ffff }), frames, (before, lie, after) => {
      const got: string[] = [];
      const decoder = new FrameDecoder((frame, length) => got.push(hex(frame, length)) > 0);
      const length = Buffer.alloc(4);
      length.writeUInt32BE(lie);
      if (decoder.push(Buffer.concat([stream(before), length, Buffer.alloc(100)]))) return false;
      return decoder.push(stream(after)) && got.join() === [...before, ...after].map(frame => hex(frame)).join();
    }),
  );
  t.pass();
});

t.test('filters: a buffer keeps the order, a mirror and a dump see all that passes, a redirector takes it', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'dump.pcap');
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.boolean(), fc.uint8Array({ minLength: 1, maxLength: 100 }))),
      fc.nat(120),
      (sent, cutAt) => {
        const [backend, card] = [end('backend'), end('card')];
        backend.client.connect(card.client);
        const line = new Line('line');
        void line.open();
        const maxlen = cutAt + 1;
        const filters = [
          new BufferFilter('buffer', backend.client, { interval: 1e9 }),
          new MirrorFilter('mirror', backend.client, { outdev: 'line' }, line),
          new DumpFilter('dump', backend.client, { file, maxlen }),
        ] as const;
        backend.client.filters.push(...filters);
        for (const [outward, frame] of sent) (outward ? backend : card).client.send(frame);
        filters[0].setStatus('off');
        for (const filter of filters) filter.dispose();
        const one = (outward: boolean): string =>
          sent
            .filter(([way]) => way === outward)
            .map(([, frame]) => hex(frame))
            .join();
        if (card.got.join() !== one(true) || backend.got.join() !== one(false)) return false;
        const mirrored: string[] = [];
        new FrameDecoder((frame, length) => mirrored.push(hex(frame, length)) > 0).push(Buffer.concat(line.written));
        const dump = readFileSync(file);
        const dumped: string[] = [];
        for (let at = 24; at < dump.length; at += 16 + dump.readUInt32LE(at + 8))
          dumped.push(hex(dump.subarray(at + 16, at + 16 + dump.readUInt32LE(at + 8))));
        // What the wire brings meets the buffer last, so the mirror and the dump have it before what waits there.
        const sorted = (list: readonly string[]): string => [...list].sort().join();
        return (
          sorted(mirrored) === sorted(sent.map(([, frame]) => hex(frame))) &&
          sorted(dumped) === sorted(sent.map(([, frame]) => hex(frame.subarray(0, maxlen))))
        );
      },
    ),
    { numRuns: 60 },
  );
  t.pass();
});

t.test('a redirector takes in what makes sense; who lies is heard no more, and the next one is', async t => {
  fc.assert(
    fc.property(frames, fc.boolean(), frames, fc.array(fc.nat(), { maxLength: 10 }), (first, lies, second, places) => {
      const [backend, card] = [end('backend'), end('card')];
      backend.client.connect(card.client);
      const line = new Line('line');
      void line.open();
      const filter = new RedirectorFilter(
        'f',
        backend.client,
        { queue: 'tx', indev: 'line' },
        { in: line, out: undefined },
      );
      backend.client.filters.push(filter);
      for (const piece of cut(stream(first), places)) line.give(piece);
      if (lies) line.give(Buffer.concat([Buffer.from([0xff, 0xff, 0xff, 0xff]), stream(first)]));
      line.leave();
      void line.open();
      for (const piece of cut(stream(second), places)) line.give(piece);
      filter.dispose();
      return card.got.join() === [...first, ...second].map(frame => hex(frame)).join() && backend.got.length === 0;
    }),
    { numRuns: 60 },
  );
  t.pass();
});

t.test('a hub gives each frame to all but its sender, in order', async t => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 5 }),
      fc.array(fc.tuple(fc.nat(4), fc.uint8Array({ minLength: 1, maxLength: 60 }))),
      (ports, sent) => {
        const hub = new Hub(0);
        const ends = Array.from({ length: ports }, (_, index) => {
          const one = end(`end${index}`);
          one.client.connect(hub.addPort(`port${index}`).client);
          return one;
        });
        for (const [from, frame] of sent) ends[from % ports]?.client.send(frame);
        return ends.every(
          ({ got }, index) =>
            got.join() ===
            sent
              .filter(([from]) => from % ports !== index)
              .map(([, frame]) => hex(frame))
              .join(),
        );
      },
    ),
  );
  t.pass();
});
