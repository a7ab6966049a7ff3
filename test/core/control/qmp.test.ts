import { once } from 'node:events';
import t from 'tap';
import { RunningProgram } from './program.ts';

const error = (desc: string, errorClass = 'GenericError') => ({ error: { class: errorClass, desc } });

t.test('negotiation, ids and argument checks', async t => {
  const program = await RunningProgram.start('-machine', 'none');
  t.match(program.greeting, { QMP: { version: { qemu: { major: 7, minor: 2 } }, capabilities: ['oob'] } });
  t.strictSame(
    await program.execute('query-version'),
    error("Expecting capabilities negotiation with 'qmp_capabilities'", 'CommandNotFound'),
  );
  t.strictSame(await program.execute('qmp_capabilities', { enable: ['oob'] }), { return: {} });
  t.strictSame(
    await program.execute('qmp_capabilities'),
    error('Capabilities negotiation is already complete, command ignored', 'CommandNotFound'),
  );
  t.strictSame(await program.request('{"execute": "nope", "id": [1, {"a": null}]}'), {
    id: [1, { a: null }],
    ...error('The command nope has not been found', 'CommandNotFound'),
  });
  t.strictSame(await program.execute('query-status', { x: 1 }), error("Parameter 'x' is unexpected"));
  t.strictSame(await program.execute('qom-get', { path: '/' }), error("Parameter 'property' is missing"));
  t.strictSame(
    await program.execute('qom-list', { path: 1 }),
    error("Invalid parameter type for 'path', expected: string"),
  );
  t.strictSame(
    await program.execute('set-action', { reboot: 'jump' }),
    error("Parameter 'reboot' does not accept value 'jump'"),
  );
  t.strictSame(
    await program.execute('object-add', { 'qom-type': 'memory-backend-ram', id: 'm', size: 4096, 'host-nodes': ['x'] }),
    error("Parameter 'host-nodes[0]' expects uint64"),
  );
  t.strictSame(
    await program.request('{"exec-oob": "query-status"}'),
    error('The command query-status does not support OOB'),
  );
  t.strictSame(
    await program.request("{'execute': 'query-kvm', 'arguments': []}"),
    error("QMP input member 'arguments' must be an object"),
  );
  t.strictSame(await program.request('[]'), error('QMP input must be a JSON object'));
  t.strictSame(await program.request('{"execute": }'), error('JSON parse error, expecting value'));
  t.match(await program.execute('query-status'), { return: { running: true, status: 'running' } });
  t.equal(await program.stop(), 0);
});

t.test('a hostile client gets errors, and the machine runs on', async t => {
  const program = await RunningProgram.start('-machine', 'none');
  await program.execute('qmp_capabilities');
  t.match(await program.request('['.repeat(2000)), error('JSON nesting depth limit exceeded'));
  const megabyte = Buffer.alloc(2 ** 20, 'x');
  program.qmpLines.send('\n{"execute": "');
  for (let count = 0; count < 100; count++) program.qmpLines.send(megabyte);
  // What follows the nesting error is garbage up to the next structure; the last answer is the one that counts.
  let reply = await program.request('\xff\n"\n');
  while (!JSON.stringify(reply).includes('token size')) reply = await program.request('');
  t.match(reply, error('JSON token size limit exceeded'));
  program.qmpLines.send('\n');
  let status = await program.execute('query-status');
  while (!('return' in status)) status = await program.request('');
  t.match(status, { return: { status: 'running' } });
  t.equal(await program.stop(), 0);
});

t.test('the schema describes every command once, and its types resolve', async t => {
  const program = await RunningProgram.start('-machine', 'none');
  await program.execute('qmp_capabilities');
  const schema = ((await program.execute('query-qmp-schema')) as { return: Record<string, string>[] }).return;
  const names = new Set(schema.map(entry => entry['name']));
  t.equal(names.size, schema.length);
  const commands = ((await program.execute('query-commands')) as { return: { name: string }[] }).return;
  for (const { name } of commands) t.ok(names.has(name), name);
  for (const entry of schema) {
    for (const key of ['arg-type', 'ret-type', 'element-type']) {
      const type = entry[key];
      if (type !== undefined) t.ok(names.has(type), `${entry['name']}.${key}`);
    }
  }
  await program.stop();
});

t.test('a drive without a medium is a block device all the same, and gets one later', async t => {
  const program = await RunningProgram.start(
    '-machine',
    'pc',
    '-nodefaults',
    '-device',
    'ide-cd,id=cd',
    '-device',
    'floppy,id=fd',
  );
  await program.execute('qmp_capabilities');
  t.match(await program.execute('query-block'), {
    return: [
      { device: '', qdev: 'cd', removable: true, locked: false, tray_open: false, 'io-status': 'ok' },
      { device: '', qdev: 'fd', removable: true, locked: false },
    ],
  });
  await program.execute('blockdev-add', { 'node-name': 'disc', driver: 'null-co', 'read-zeroes': true });
  await program.execute('blockdev-open-tray', { id: 'cd' });
  t.strictSame(await program.execute('blockdev-insert-medium', { id: 'cd', 'node-name': 'disc' }), { return: {} });
  t.match(await program.execute('query-block'), { return: [{ inserted: { 'node-name': 'disc' } }, {}] });
  await program.stop();
});

t.test('quit and signals end the program with their event', async t => {
  const program = await RunningProgram.start('-machine', 'none');
  await program.execute('qmp_capabilities');
  const exited = once(program.process, 'exit');
  // QEMU's main loop says so before the monitor has its turn to reply.
  t.strictSame(await program.execute('quit'), { return: {} });
  t.match(program.events, [{ event: 'SHUTDOWN', data: { guest: false, reason: 'host-qmp-quit' } }]);
  t.strictSame(await exited, [0, null]);
});
