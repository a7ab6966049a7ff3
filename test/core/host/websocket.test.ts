import { Duplex } from 'node:stream';
import t, { type Test } from 'tap';
import { WebSocketStream } from '../../../core/host/websocket.ts';

const REQUEST = [
  'GET / HTTP/1.1',
  'Host: example',
  'Upgrade: websocket',
  'Connection: Upgrade',
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
  'Sec-WebSocket-Protocol: binary',
  'Sec-WebSocket-Version: 13',
  '\r\n',
].join('\r\n');

/** Both ends of a wire: what the server writes is in `sent`. */
function wire(t: Test) {
  let sent = Buffer.alloc(0);
  const socket = new Duplex({
    read() {},
    write(chunk: Buffer, _encoding, done) {
      sent = Buffer.concat([sent, chunk]);
      done();
    },
  });
  const stream = new WebSocketStream(socket);
  t.teardown(() => stream.destroy());
  return { stream, receive: (bytes: string | Buffer) => socket.push(bytes), sent: () => sent };
}

/** A client's frame, masked. */
function masked(opcode: number, payload: Buffer): Buffer {
  const mask = Buffer.from([1, 2, 3, 4]);
  const body = payload.map((byte, index) => byte ^ (mask[index & 3] ?? 0));
  return Buffer.concat([Buffer.from([0x80 | opcode, 0x80 | payload.length]), mask, body]);
}

const turn = (): Promise<void> => new Promise(resolve => setImmediate(resolve));

t.test('the handshake of RFC 6455, and bytes either way', async t => {
  const { stream, receive, sent } = wire(t);
  stream.write('early');
  receive(REQUEST.slice(0, 30));
  await turn();
  t.equal(sent().length, 0);
  receive(REQUEST.slice(30));
  await turn();
  t.match(sent().toString('latin1'), /^HTTP\/1\.1 101 [\s\S]*Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=\r\n/);
  t.same(sent().subarray(-7), Buffer.from([0x82, 5, ...Buffer.from('early')]));
  const got: Buffer[] = [];
  stream.on('data', chunk => got.push(chunk));
  const frames = Buffer.concat([
    masked(2, Buffer.from('RFB ')),
    masked(9, Buffer.from('?')),
    masked(2, Buffer.from('003')),
  ]);
  for (const byte of frames) receive(Buffer.from([byte]));
  await turn();
  await turn();
  t.equal(Buffer.concat(got).toString(), 'RFB 003');
  t.same(sent().subarray(-3), Buffer.from([0x8a, 1, 0x3f]), 'a ping is answered');
});

t.test('what is no WebSocket is refused', async t => {
  const plain = wire(t);
  plain.receive('GET / HTTP/1.1\r\nHost: example\r\n\r\n');
  await turn();
  t.match(plain.sent().toString(), /^HTTP\/1\.1 400/);
  const other = wire(t);
  other.receive(REQUEST.replace('binary', 'chat'));
  await turn();
  t.match(other.sent().toString(), /^HTTP\/1\.1 400/);
  const open = wire(t);
  open.receive(REQUEST);
  await turn();
  open.receive(Buffer.from([0x82, 1, 0x41, 0, 0, 0, 0]));
  await turn();
  t.equal(open.stream.destroyed, true, 'a frame without a mask');
});
