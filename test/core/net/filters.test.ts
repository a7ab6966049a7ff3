import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { BufferFilter } from '../../../core/net/filter-buffer.ts';
import { DumpFilter } from '../../../core/net/filter-dump.ts';
import { encodeFrame, FrameDecoder } from '../../../core/net/frame-stream.ts';
import { NetClient } from '../../../core/net/net-client.ts';

/** A wire between a backend and a card that keep what they receive. */
function wire(): { backend: NetClient; card: NetClient; atBackend: string[]; atCard: string[] } {
  const end = (name: string, got: string[]): NetClient =>
    new NetClient(name, name, {
      canReceive: () => true,
      receive: (frame, length) => got.push(Buffer.from(frame.subarray(0, length)).toString()) > 0,
    });
  const atBackend: string[] = [];
  const atCard: string[] = [];
  const backend = end('backend', atBackend);
  const card = end('card', atCard);
  backend.connect(card);
  return { backend, card, atBackend, atCard };
}

t.test('frames cross a stream however it is cut; one that is too long ends it', async t => {
  const stream = Buffer.concat(['one', 'three', 'x'].map(text => encodeFrame(Buffer.from(text), text.length)));
  for (let size = 1; size <= stream.length; size++) {
    const got: string[] = [];
    const decoder = new FrameDecoder(
      (frame, length) => got.push(Buffer.from(frame.subarray(0, length)).toString()) > 0,
    );
    for (let at = 0; at < stream.length; at += size) t.ok(decoder.push(stream.subarray(at, at + size)));
    t.same(got, ['one', 'three', 'x']);
  }
  t.notOk(new FrameDecoder(() => t.fail('no frame')).push(Buffer.from([0xff, 0, 0, 0])));
});

t.test('a dump sees both ways and cuts at maxlen', async t => {
  const { backend, card, atCard } = wire();
  const file = join(mkdtempSync(join(tmpdir(), 'dump-')), 'x.pcap');
  const filter = new DumpFilter('f', backend, { file, maxlen: 4 });
  backend.filters.push(filter);
  backend.send(Buffer.from('towards'));
  card.send(Buffer.from('out'));
  filter.dispose();
  t.same(atCard, ['towards']);
  const bytes = readFileSync(file);
  t.equal(bytes.readUInt32LE(0), 0xa1b2c3d4);
  t.equal(bytes.readUInt32LE(20), 1, 'Ethernet');
  t.same([bytes.readUInt32LE(32), bytes.readUInt32LE(36)], [4, 7]);
  t.equal(bytes.toString('latin1', 40, 44), 'towa');
  t.same([bytes.readUInt32LE(52), bytes.readUInt32LE(56)], [3, 3]);
  t.equal(bytes.length, 63);
});

t.test('a buffer holds one direction until its time or its end', async t => {
  const { backend, card, atBackend, atCard } = wire();
  const filter = new BufferFilter('f', backend, { queue: 'tx', interval: 1e9 });
  backend.filters.push(filter);
  backend.send(Buffer.from('in'));
  card.send(Buffer.from('out'));
  t.same([atCard, atBackend], [[], ['out']]);
  filter.setStatus('off');
  t.same(atCard, ['in']);
  t.throws(() => filter.setStatus('maybe'), {
    message: "Invalid value for netfilter status, should be 'on' or 'off'",
  });
  filter.dispose();
});
