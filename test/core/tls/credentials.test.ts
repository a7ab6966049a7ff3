/** Credentials as QEMU checks them: what is refused, and with which words; the same folders go to Debian's qemu-img. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import t from 'tap';
import { byRules, onlyFor, RulesFile } from '../../../core/tls/authorization.ts';
import { Certificate } from '../../../core/tls/certificate.ts';
import {
  AnonymousCredentials,
  PskCredentials,
  type TlsEndpoint,
  X509Credentials,
} from '../../../core/tls/credentials.ts';
import { parsePriority } from '../../../core/tls/priority.ts';
import {
  authority,
  basicConstraints,
  CLIENT_AUTH,
  clientIdentity,
  commonName,
  credentialsFolder,
  folder,
  Identity,
  keyUsage,
  purposes,
  SERVER_AUTH,
  serverIdentity,
} from './pki.ts';

const HAS_QEMU_IMG = spawnSync('qemu-img', ['--version']).status === 0;
const root = t.testdir({});
let count = 0;

const common = { verifyPeer: true, priority: undefined } as const;
const x509 = (dir: string, endpoint: TlsEndpoint, sanityCheck = true): X509Credentials =>
  new X509Credentials({ ...common, dir, endpoint, sanityCheck });

const complaint = (action: () => unknown): string => {
  try {
    action();
    return '';
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
};

/** What Debian's qemu-img says about an object; undefined where there is no qemu-img. */
function qemuSays(object: string, ...before: readonly string[]): string | undefined {
  if (!HAS_QEMU_IMG) return undefined;
  const objects = [...before, object].flatMap(one => ['--object', one]);
  const run = spawnSync('qemu-img', ['info', ...objects, join(root, 'no-such-image')], {
    encoding: 'utf8',
    env: { ...process.env, LC_ALL: 'C.UTF-8' },
  });
  const line = run.stderr.split('\n')[0] ?? '';
  return line.includes('no-such-image') ? '' : line.replace(/^qemu-img: /, '');
}

type Files = Readonly<Record<string, string>>;

/** A folder, the side that reads it, and what is wrong with it. */
function wrong(name: string, endpoint: TlsEndpoint, files: Files, expected: RegExp): void {
  t.test(name, async t => {
    const dir = folder(join(root, `wrong${count++}`), files);
    const ours = complaint(() => x509(dir, endpoint));
    t.match(ours, expected);
    const theirs = qemuSays(`tls-creds-x509,id=tls0,dir=${dir},endpoint=${endpoint}`);
    if (theirs === undefined) t.comment('there is no qemu-img to compare with');
    else t.equal(ours, theirs, 'as QEMU');
  });
}

const ca = authority();
const server = serverIdentity(ca);
const good = { 'ca-cert.pem': ca.pem, 'server-cert.pem': server.pem, 'server-key.pem': server.keyPem };
const withServer = (options: Parameters<typeof serverIdentity>[1]): Files => {
  const other = serverIdentity(ca, options);
  return { ...good, 'server-cert.pem': other.pem, 'server-key.pem': other.keyPem };
};
const withClient = (options: Parameters<typeof clientIdentity>[1]): Files => {
  const other = clientIdentity(ca, options);
  return { 'ca-cert.pem': ca.pem, 'client-cert.pem': other.pem, 'client-key.pem': other.keyPem };
};
const withAuthority = (options: Parameters<typeof authority>[1]): Files => {
  const other = authority('other CA', options);
  const signed = serverIdentity(other);
  return { 'ca-cert.pem': other.pem, 'server-cert.pem': signed.pem, 'server-key.pem': signed.keyPem };
};

wrong(
  'a server without a certificate',
  'server',
  { 'ca-cert.pem': ca.pem },
  /^Unable to access credentials .*\/server-cert\.pem: No such file or directory$/,
);
wrong('no authority', 'client', {}, /^Unable to access credentials .*\/ca-cert\.pem: No such file or directory$/);
wrong(
  'an expired certificate',
  'server',
  withServer({ from: -3, until: -2 }),
  /^The server certificate .*\/server-cert\.pem has expired$/,
);
wrong(
  'a certificate from the future',
  'client',
  withClient({ from: 2 }),
  /^The client certificate .*\/client-cert\.pem is not yet active$/,
);
wrong(
  'an expired authority',
  'server',
  withAuthority({ from: -3, until: -2 }),
  /^The CA certificate .*\/ca-cert\.pem has expired$/,
);
wrong(
  'an authority from the future',
  'server',
  withAuthority({ from: 2 }),
  /^The CA certificate .* is not yet active$/,
);
wrong(
  'an authority for a server',
  'server',
  withServer({ extensions: [basicConstraints(true), keyUsage(0x84)] }),
  /basic constraints show a CA, but we need one for a server$/,
);
wrong(
  'an authority for a client',
  'client',
  withClient({ extensions: [basicConstraints(true), keyUsage(0x84)] }),
  /basic constraints show a CA, but we need one for a client$/,
);
wrong(
  'an authority that says it is none',
  'server',
  withAuthority({ extensions: [basicConstraints(false)] }),
  /basic constraints do not show a CA$/,
);
wrong(
  'an authority that does not say',
  'server',
  withAuthority({ extensions: [keyUsage(0x04)] }),
  /is missing basic constraints for a CA$/,
);
wrong(
  'an authority that may not sign',
  'server',
  withAuthority({ extensions: [basicConstraints(true), keyUsage(0x80)] }),
  /^Certificate .*\/ca-cert\.pem usage does not permit certificate signing$/,
);
wrong(
  'a key that may not sign',
  'server',
  withServer({ extensions: [basicConstraints(false), keyUsage(0x20)] }),
  /usage does not permit digital signature$/,
);
wrong(
  "a client's certificate for a server",
  'server',
  withServer({ extensions: [basicConstraints(false), purposes([CLIENT_AUTH])] }),
  /purpose does not allow use with a TLS server$/,
);
wrong(
  "a server's certificate for a client",
  'client',
  withClient({ extensions: [basicConstraints(false), purposes([SERVER_AUTH])] }),
  /purpose does not allow use with a TLS client$/,
);
wrong(
  'another authority',
  'server',
  { ...good, 'ca-cert.pem': authority('other CA').pem },
  /^Our own certificate .*\/server-cert\.pem failed validation against .*\/ca-cert\.pem: The certificate hasn't got a known issuer$/,
);
wrong(
  'another authority of the same name',
  'server',
  { ...good, 'ca-cert.pem': authority().pem },
  /failed validation against .*: The certificate is not trusted$/,
);
wrong(
  'no certificate in the file',
  'server',
  { ...good, 'server-cert.pem': 'nothing' },
  /^Unable to import server certificate .*: Base64 unexpected header error\.$/,
);
wrong(
  'no authority in the file',
  'server',
  { ...good, 'ca-cert.pem': 'nothing' },
  /^Unable to import CA certificate list .*\/ca-cert\.pem$/,
);

const right: Readonly<Record<string, readonly [TlsEndpoint, Files]>> = {
  'the certificate of a server': ['server', good],
  'an authority for a client that shows nothing': ['client', { 'ca-cert.pem': ca.pem }],
  'usages that are advice': [
    'server',
    withServer({ extensions: [keyUsage(0x20, false), purposes([CLIENT_AUTH], false)] }),
  ],
  'a certificate for anything': ['server', withServer({ extensions: [purposes(['2.5.29.37.0'])] })],
  'two authorities': ['server', { ...good, 'ca-cert.pem': authority('other CA').pem + ca.pem }],
};
for (const [name, [endpoint, files]] of Object.entries(right)) {
  t.test(`${name} is taken`, async t => {
    const dir = folder(join(root, `right${count++}`), files);
    t.equal(
      complaint(() => x509(dir, endpoint)),
      '',
    );
    t.equal(qemuSays(`tls-creds-x509,id=tls0,dir=${dir},endpoint=${endpoint}`) ?? '', '', 'as by QEMU');
  });
}

t.test('what cannot be loaded is refused even unchecked', async t => {
  const dir = folder(join(root, 'unloadable'), { ...good, 'server-key.pem': serverIdentity(ca).keyPem });
  t.match(
    complaint(() => x509(dir, 'server', false)),
    /^Cannot load certificate '.*server-cert\.pem' & key '.*server-key\.pem': /,
  );
  t.match(
    qemuSays(`tls-creds-x509,id=tls0,dir=${dir},endpoint=server`) ?? 'Cannot load certificate',
    /^Cannot load certificate/,
  );
  const expired = folder(join(root, 'unchecked'), withServer({ from: -3, until: -2 }));
  t.equal(
    complaint(() => x509(expired, 'server', false)),
    '',
    'an expired certificate is, unchecked',
  );
});

t.test('an encrypted key needs its password', async t => {
  const dir = folder(join(root, 'encrypted'), { ...good, 'server-key.pem': server.encryptedKeyPem('hunter2') });
  const withPassword = (password?: string) => () =>
    new X509Credentials({
      ...common,
      dir,
      endpoint: 'server',
      sanityCheck: true,
      ...(password !== undefined && { password: () => password }),
    });
  t.equal(complaint(withPassword('hunter2')), '');
  t.match(complaint(withPassword('hunter3')), /^Cannot load certificate/);
  t.match(complaint(withPassword()), /^Cannot load certificate/);
});

t.test('credentials are read again where that makes sense', async t => {
  const dir = folder(join(root, 'reloaded'), good);
  const creds = x509(dir, 'server');
  const before = creds.context.cert;
  folder(dir, withServer({}));
  creds.reload();
  const after = creds.context.cert;
  t.not(after, before);
  folder(dir, withServer({ from: -3, until: -2 }));
  t.match(
    complaint(() => creds.reload()),
    /has expired$/,
  );
  t.equal(creds.context.cert, after, 'what was there before stays');
});

t.test('pre-shared keys', async t => {
  const dir = folder(join(root, 'psk'), { 'keys.psk': 'other:00\nqemu:0123abcd\nbad:xyz\n' });
  const psk = (endpoint: TlsEndpoint, username?: string) => () =>
    new PskCredentials({ ...common, dir, endpoint, username });
  t.same(psk('client')().keyOf('qemu'), Buffer.from('0123abcd', 'hex'));
  t.equal(psk('server')().keyOf('nobody'), undefined);
  for (const [endpoint, username, object] of [
    ['client', 'nobody', 'username=nobody,endpoint=client'],
    ['server', 'qemu', 'username=qemu,endpoint=server'],
  ] as const) {
    const ours = complaint(psk(endpoint, username));
    t.not(ours, '');
    t.equal(ours, qemuSays(`tls-creds-psk,id=tls0,dir=${dir},${object}`) ?? ours);
  }
  t.match(complaint(psk('client', 'bad')), /^Cannot set PSK client credentials: /);
  const nowhere = complaint(
    () => new PskCredentials({ ...common, dir: undefined, endpoint: 'client', username: undefined }),
  );
  t.equal(nowhere, qemuSays('tls-creds-psk,id=tls0,endpoint=client') ?? "Missing 'dir' property value");
});

t.test('anonymous credentials need no files, but take parameters', async t => {
  t.equal(new AnonymousCredentials({ ...common, dir: undefined, endpoint: 'server' }).context.dhparam, 'auto');
  const dir = folder(join(root, 'anonymous'), { 'dh-params.pem': 'nothing' });
  const ours = complaint(() => new AnonymousCredentials({ ...common, dir, endpoint: 'server' }));
  t.match(ours, /^Unable to load DH parameters from .*\/dh-params\.pem: /);
  t.equal(ours, qemuSays(`tls-creds-anon,id=tls0,dir=${dir},endpoint=server`) ?? ours, 'as QEMU');
});

t.test('names are written as GnuTLS writes them', async t => {
  const subject = [
    [['2.5.4.6', 'GB']],
    [['2.5.4.10', 'Ball, Chain & "Sons"']],
    [
      ['2.5.4.11', ' edge '],
      ['0.9.2342.19200300.100.1.1', 'u+1'],
    ],
    [['1.2.840.113549.1.9.1', 'a@example.org']],
    [['2.5.4.3', '#1;é']],
  ] as const;
  const identity = new Identity({ subject });
  t.equal(
    new Certificate(identity.pem).subject,
    'C=GB,O=Ball\\, Chain & \\"Sons\\",OU=\\ edge\\ +UID=u\\+1,EMAIL=a@example.org,CN=\\#1\\;é',
  );
  t.match(new Certificate(new Identity({ subject: [[['1.2.3.4', 'x']]] }).pem).subject, /^1\.2\.3\.4=#0c0178$/);
});

t.test('who may come in', async t => {
  t.equal(onlyFor('CN=a').allows('CN=a'), true);
  t.equal(onlyFor('CN=a').allows('CN=ab'), false);
  const rules = byRules({
    rules: [
      { match: 'CN=mallory,*', policy: 'deny', format: 'glob' },
      { match: 'CN=?lice', policy: 'allow', format: 'glob' },
      { match: 'CN=*', policy: 'allow' },
    ],
  });
  t.equal(rules.allows('CN=mallory,O=x'), false);
  t.equal(rules.allows('CN=alice'), true);
  t.equal(rules.allows('CN=*'), true, 'a star is a star where nobody says glob');
  t.equal(rules.allows('CN=bob'), false, 'and nobody else');
  t.equal(byRules({ policy: 'allow' }).allows('CN=bob'), true);
});

t.test('rules in a file are read again when it changes', async t => {
  const dir = folder(join(root, 'rules'), { 'rules.json': '{"policy":"allow"}' });
  const complaints: unknown[] = [];
  const rules = new RulesFile(
    join(dir, 'rules.json'),
    true,
    text => JSON.parse(text),
    error => complaints.push(error),
  );
  t.teardown(() => rules.dispose());
  t.equal(rules.allows('x'), true);
  const until = async (wanted: () => boolean): Promise<void> => {
    for (let tries = 0; !wanted() && tries < 500; tries++) await new Promise(resolve => setTimeout(resolve, 10));
  };
  folder(dir, { 'rules.json': '{"policy":"deny"}' });
  await until(() => !rules.allows('x'));
  t.equal(rules.allows('x'), false);
  folder(dir, { 'rules.json': '{"policy":"allow"}' });
  await until(() => rules.allows('x'));
  t.equal(rules.allows('x'), true);
  folder(dir, { 'rules.json': 'nonsense' });
  await until(() => complaints.length > 0 && !rules.allows('x'));
  t.equal(rules.allows('x'), false, 'nobody is let in by nonsense');
  t.throws(
    () =>
      new RulesFile(
        join(dir, 'none.json'),
        false,
        text => JSON.parse(text),
        () => undefined,
      ),
    {
      code: 'ERR_AUTHZ',
      message: /^Unable to read '.*none\.json': Failed to open file “.*none\.json”: No such file or directory$/,
    },
  );
});

t.test('priority strings', async t => {
  t.match(parsePriority(undefined), { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.3' });
  t.match(parsePriority('@QEMU,SYSTEM'), { maxVersion: 'TLSv1.3' });
  t.match(parsePriority('NORMAL:-VERS-TLS1.3:%COMPAT'), { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' });
  t.match(parsePriority('SECURE128:-VERS-ALL:+VERS-TLS1.3'), { minVersion: 'TLSv1.3', maxVersion: 'TLSv1.3' });
  t.throws(
    () => parsePriority('NORMAL:-AES-128-CBC'),
    { code: 'ERR_TLS_PRIORITY' },
    'what cannot be said is not ignored',
  );
  t.throws(() => parsePriority('NORMAL:-VERS-ALL'), { code: 'ERR_TLS_PRIORITY' });
  t.throws(() => parsePriority('ABNORMAL'), { code: 'ERR_TLS_PRIORITY' });
});

t.test('folders for others are whole', async t => {
  const dir = credentialsFolder(join(root, 'whole'));
  t.equal(
    complaint(() => x509(dir, 'server')),
    '',
  );
  t.equal(
    complaint(() => x509(dir, 'client')),
    '',
  );
  t.equal(commonName('x').length, 1);
});
