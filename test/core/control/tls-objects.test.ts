/** `-object tls-creds-*` and `-object authz-*`, and what management tools see of them. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { authority, credentialsFolder, folder, serverIdentity } from '../tls/pki.ts';
import { RunningProgram } from './program.ts';

const PROGRAM = fileURLToPath(new URL('../../../southbridge.js', import.meta.url));
const root = t.testdir({});
const ca = authority();
const dir = credentialsFolder(join(root, 'pki'), ca);

t.setTimeout(120_000);

t.test('objects on the command line and later', async t => {
  const locked = serverIdentity(ca);
  const encrypted = folder(join(root, 'encrypted'), {
    'ca-cert.pem': ca.pem,
    'server-cert.pem': locked.pem,
    'server-key.pem': locked.encryptedKeyPem('hunter2'),
  });
  const program = await RunningProgram.start(
    ...['-M', 'none', '-object', 'secret,id=sec0,data=hunter2'],
    ...['-object', `tls-creds-x509,id=tls0,dir=${encrypted},endpoint=server,passwordid=sec0,verify-peer=off`],
    ...['-object', 'authz-list,id=list0,rules.0.match=CN=a*,rules.0.policy=allow,rules.0.format=glob'],
  );
  t.teardown(() => program.stop('SIGKILL'));
  await program.execute('qmp_capabilities');
  const get = async (id: string, property: string): Promise<unknown> =>
    (await program.execute('qom-get', { path: `/objects/${id}`, property }))['return'];
  t.equal(await get('tls0', 'verify-peer'), false);
  t.equal(await get('tls0', 'sanity-check'), true);
  t.equal(await get('tls0', 'loaded'), true);
  t.equal(await get('tls0', 'endpoint'), 'server');
  t.equal(await get('tls0', 'priority'), '');
  t.equal(await get('list0', 'policy'), 'deny');
  t.same(await get('list0', 'rules'), [{ match: 'CN=a*', policy: 'allow', format: 'glob' }]);
  t.match(await program.execute('qom-list', { path: '/objects/tls0' }), {
    return: [
      { name: 'dir', type: 'string' },
      { name: 'endpoint', type: 'QCryptoTLSCredsEndpoint' },
    ],
  });
  const types = await program.execute('qom-list-types', { implements: 'tls-creds' });
  t.same((types['return'] as { name: string }[]).map(({ name }) => name).sort(), [
    'tls-creds-anon',
    'tls-creds-psk',
    'tls-creds-x509',
  ]);

  const add = async (value: object): Promise<unknown> => {
    const reply = await program.execute('object-add', value);
    return 'error' in reply ? (reply['error'] as { desc: string }).desc : '';
  };
  const x509 = { 'qom-type': 'tls-creds-x509', dir };
  t.equal(await add({ ...x509, id: 'tls1' }), '');
  t.equal(await add({ ...x509, id: 'tls1' }), "attempt to add duplicate property 'tls1' to object (type 'container')");
  t.equal(
    await add({ ...x509, id: 'tls2', dir: `${dir}/none` }),
    `Unable to access credentials ${dir}/none/ca-cert.pem: No such file or directory`,
  );
  t.equal(await add({ ...x509, id: 'tls2', passwordid: 'sec1' }), "No secret with id 'sec1'");
  t.equal(await add({ ...x509, id: 'tls2', passwordid: 'tls0' }), "Object with id 'tls0' is not a secret");
  t.equal(await add({ 'qom-type': 'tls-creds-anon', id: 'tls2', endpoint: 'server' }), '');
  const rules = folder(join(root, 'rules'), { 'good.json': '{"rules":[]}', 'bad.json': '[]' });
  const file = { 'qom-type': 'authz-listfile', id: 'file0' };
  t.equal(await add({ ...file, filename: `${rules}/good.json` }), '');
  t.equal(
    await add({ ...file, id: 'file1', filename: `${rules}/bad.json` }),
    `File '${rules}/bad.json' must contain a JSON object`,
  );
  t.match(
    await add({ ...file, id: 'file1', filename: `${rules}/none.json` }),
    /^Unable to read '.*': Failed to open file/,
  );
  for (const id of ['tls0', 'tls1', 'tls2', 'list0', 'file0'])
    t.same(await program.execute('object-del', { id }), { return: {} }, `${id} goes`);
});

t.test('authz-pam says what to take instead', async t => {
  const args = ['-M', 'none', '-accel', 'qtest', '-display', 'none', '-object', 'authz-pam,id=a,service=qemu'];
  const { status, stderr } = spawnSync(process.execPath, [PROGRAM, ...args], { encoding: 'utf8', timeout: 60_000 });
  t.equal(status, 1);
  t.match(stderr, /Objects of type 'authz-pam' are not supported\n.*authz-simple/);
});
