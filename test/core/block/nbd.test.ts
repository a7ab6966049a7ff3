import { execFile, spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import { promisify } from 'node:util';
import t from 'tap';
import { IoVector } from '../../../core/block/io-vector.ts';
import { NbdServer } from '../../../core/block/nbd/server.ts';
import { BlockOptions } from '../../../core/block/options.ts';
import { noAddon } from '../host/addon.ts';
import { imageFolder, noQemuImg, openQcow2, qemuCheck, qemuImg, quietGraph, randomNumbers } from './images.ts';

const folder = imageFolder();
t.teardown(() => folder.remove());
const run = promisify(execFile);
const noQemuNbd =
  spawnSync('qemu-nbd', ['--version']).status === 0 ? false : 'qemu-nbd is not installed (Debian: qemu-utils)';

t.test("QEMU's tools attach to our server", { skip: noQemuImg }, async t => {
  const file = folder.file('served.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', file, '8M');
  const { graph } = quietGraph();
  const node = await openQcow2(graph, file);
  await node.writev(1 << 20, 70_000, IoVector.of(Buffer.alloc(70_000, 7)));
  const socket = folder.file('nbd.sock');
  const server = await NbdServer.listen(graph, { path: socket });
  server.add(node, { id: 'e0', name: 'disk', description: 'for the test', writable: true });
  t.throws(() => server.add(node, { id: 'e1', name: 'disk' }), {
    message: "NBD server already has export named 'disk'",
  });
  const uri = `nbd+unix:///disk?socket=${socket}`;
  const image = (await run('qemu-img', ['info', '--output=json', uri])).stdout;
  t.equal(JSON.parse(image)['virtual-size'], 8 << 20);
  const map = JSON.parse((await run('qemu-img', ['map', '--output=json', uri])).stdout);
  t.match(map[0], { start: 0, data: false, zero: true }, 'it knows where nothing is');
  t.match(map[1], { start: 1 << 20, data: true, zero: false });
  await run('qemu-io', [
    '-f',
    'raw',
    '-c',
    'read -P 7 1M 70000',
    '-c',
    'write -P 9 3M 64k',
    '-c',
    'write -z 1M 4k',
    '-c',
    'discard 5M 64k',
    '-c',
    'flush',
    uri,
  ]);
  const read = Buffer.alloc(8192);
  await node.readv(1 << 20, 8192, IoVector.of(read));
  t.equal(
    read.subarray(0, 4096).every(byte => byte === 0),
    true,
  );
  t.equal(
    read.subarray(4096).every(byte => byte === 7),
    true,
  );
  await node.readv(3 << 20, 8192, IoVector.of(read));
  t.equal(
    read.every(byte => byte === 9),
    true,
  );
  const list = (await run('qemu-nbd', ['-L', '-k', socket])).stdout;
  t.match(list, /export: 'disk'[\s\S]*description: for the test[\s\S]*base:allocation/);
  await server.stop();
  await graph.close();
  t.equal(qemuCheck(file).status, 0);
});

t.test("we attach to QEMU's server", { skip: noQemuNbd }, async t => {
  const file = folder.file('theirs.raw');
  const model = Buffer.alloc(4 << 20);
  fs.writeFileSync(file, model);
  const socket = folder.file('theirs.sock');
  const server = spawn('qemu-nbd', ['-k', socket, '-f', 'raw', '-x', 'x y', '-e', '2', '-t', file]);
  while (!fs.existsSync(socket)) await new Promise(resolve => setTimeout(resolve, 10));
  const { graph } = quietGraph();
  const node = await graph.add(
    BlockOptions.fromJson({
      driver: 'nbd',
      server: { type: 'unix', path: socket },
      export: 'x y',
      'node-name': 'far',
      discard: 'unmap',
    }),
  );
  t.equal(node.length, model.length);
  const random = randomNumbers(5);
  const requests: (Promise<void> | undefined)[] = [];
  for (let request = 0; request < 40; request++) {
    const offset = request * 100_000;
    const data = Buffer.alloc(1 + random(90_000), 1 + random(255));
    data.copy(model, offset);
    requests.push(node.writev(offset, data.length, IoVector.of(data)));
  }
  await Promise.all(requests);
  await node.writeZeroes(1 << 20, 1 << 20, 0);
  model.fill(0, 1 << 20, 2 << 20);
  await node.flush();
  const read = Buffer.alloc(model.length);
  await node.readv(0, read.length, IoVector.of(read));
  t.equal(read.compare(model), 0);
  t.equal(fs.readFileSync(file).compare(model), 0);
  await t.rejects(graph.openTree(`nbd:unix:${socket}:exportname=none`, new BlockOptions(), {}, true), {
    message: 'Requested export not available',
  });
  server.kill();
  await new Promise(resolve => server.once('exit', resolve));
  await t.rejects(
    Promise.resolve().then(() => node.readv(0, 512, IoVector.of(read, 0, 512))),
    { code: /^ERR_BLOCK_E/ },
    'a server that went away is an I/O error',
  );
  await graph.close();
});

const noLocks = noAddon || noQemuNbd;

t.test('two processes do not write to one image', { skip: noLocks }, async t => {
  const file = folder.file('locked.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', file, '1M');
  const { graph } = quietGraph();
  const node = await openQcow2(graph, file);
  const theirs = spawnSync('qemu-io', ['-c', 'quit', file], { encoding: 'utf8' });
  t.match(theirs.stderr, /Failed to get (shared )?"write" lock/, 'QEMU sees our lock');
  t.equal(spawnSync('qemu-img', ['info', '-U', file]).status, 0, 'and may look at it when told to');
  await graph.released(node);
  const server = spawn('qemu-nbd', ['-k', folder.file('lock.sock'), '-f', 'qcow2', '-t', file]);
  while (!fs.existsSync(folder.file('lock.sock'))) await new Promise(resolve => setTimeout(resolve, 10));
  // The socket comes before the image is opened; an answer comes after.
  spawnSync('qemu-nbd', ['--list', '-k', folder.file('lock.sock')]);
  await t.rejects(openQcow2(graph, file), {
    code: 'ERR_BLOCK_LOCKED',
    message: /^Failed to get (shared )?"write" lock$/,
  });
  t.same(graph.nodes(), []);
  server.kill();
  await new Promise(resolve => server.once('exit', resolve));
  await graph.released(await openQcow2(graph, file));
  await graph.close();
});

t.test('garbage ends the connection, not the server', async t => {
  const { graph } = quietGraph();
  const node = await graph.add(BlockOptions.fromJson({ driver: 'null-co', size: 1 << 20, 'node-name': 'n' }));
  const server = await NbdServer.listen(graph, { host: '127.0.0.1', port: 0 });
  server.add(node, { id: 'e', name: '' });
  const address = server.address;
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const random = randomNumbers(17);
  for (let round = 0; round < 50; round++) {
    const socket = net.connect(port, '127.0.0.1');
    const ended = new Promise(resolve => socket.once('close', resolve));
    socket.on('error', () => {});
    socket.resume();
    const bytes = Buffer.alloc(random(400), 0).map(() => random(256));
    // Half of them begin as a client would.
    if (round % 2 === 0) {
      const hello = Buffer.alloc(20);
      hello.writeUInt32BE(3, 0);
      hello.writeBigUInt64BE(0x49484156454f5054n, 4);
      hello.writeUInt32BE(random(12), 12);
      hello.writeUInt32BE(round % 4 === 0 ? 0xffff_ffff : random(300), 16);
      socket.write(hello);
    }
    socket.end(bytes);
    await ended;
  }
  const client = await quietGraph().graph.openTree(
    `nbd://127.0.0.1:${port}`,
    new BlockOptions(),
    { readOnly: true },
    true,
  );
  t.equal(client.length, 1 << 20, 'it still serves');
  await client.close();
  await server.stop();
  await graph.close();
});
