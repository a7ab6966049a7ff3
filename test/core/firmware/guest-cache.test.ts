import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { cpio } from '../../../core/firmware/guest-cache/cpio.ts';
import { cacheDirectory, GuestCache } from '../../../core/firmware/guest-cache/guest-cache.ts';
import { kernelModules, modulesDep } from '../../../core/firmware/guest-cache/kernel-modules.ts';
import { withLock } from '../../../core/firmware/guest-cache/lock.ts';
import { guestOrSkip } from '../../guests/guest-or-skip.ts';

const text = (contents: string): Uint8Array => new TextEncoder().encode(contents);

function scratch(t: Pick<import('tap').Test, 'teardown'>): string {
  const directory = mkdtempSync(join(tmpdir(), 'southbridge-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

t.test('a cpio archive reads as what was put in', async t => {
  const archive = cpio([
    { path: 'etc/motd', type: 'file', bytes: text('hello\n') },
    { path: 'bin/run', type: 'file', bytes: text('#!'), mode: 0o755 },
    { path: 'bin/sh', type: 'link', target: 'run' },
    { path: 'proc', type: 'directory' },
  ]);
  t.equal(archive.length % 4, 0);
  t.equal(Buffer.from(archive.subarray(0, 6)).toString(), '070701');
  const directory = scratch(t);
  writeFileSync(join(directory, 'archive'), archive);
  const busybox = await guestOrSkip(t, 'busybox-amd64');
  if (busybox === undefined) return;
  const listing = execFileSync(busybox.busybox, ['cpio', '-tv', '-F', join(directory, 'archive')]).toString();
  t.match(
    listing,
    /drwxr-xr-x[^\n]* etc\n-rw-r--r--[^\n]* 6 [^\n]* etc\/motd\ndrwxr-xr-x[^\n]* bin\n-rwxr-xr-x[^\n]* bin\/run\nlrwxrwxrwx[^\n]* bin\/sh[^\n]*\ndrwxr-xr-x[^\n]* proc/,
  );
  execFileSync(busybox.busybox, ['cpio', '-i', '-d', '-F', join(directory, 'archive')], { cwd: directory });
  t.equal(readFileSync(join(directory, 'etc', 'motd'), 'utf8'), 'hello\n');
});

t.test('paths that lead out of an archive, or twice into it, are refused', async t => {
  for (const path of ['/etc', 'a//b', '../x', '', 'a/./b'])
    t.throws(() => cpio([{ path, type: 'directory' }]), { code: 'ERR_CPIO_PATH' });
  t.throws(
    () =>
      cpio([
        { path: 'a', type: 'directory' },
        { path: 'a', type: 'directory' },
      ]),
    { code: 'ERR_CPIO_PATH' },
  );
});

t.test('the cache is where the XDG specification says', async t => {
  const before = process.env['XDG_CACHE_HOME'];
  t.teardown(() => {
    if (before === undefined) delete process.env['XDG_CACHE_HOME'];
    else process.env['XDG_CACHE_HOME'] = before;
  });
  process.env['XDG_CACHE_HOME'] = '/somewhere';
  t.equal(cacheDirectory(), '/somewhere/southbridge');
  process.env['XDG_CACHE_HOME'] = 'relative';
  t.match(cacheDirectory(), /^\/.*\.cache\/southbridge$/, 'a relative path is ignored');
});

t.test('an item is there as a whole or not at all', async t => {
  const directory = scratch(t);
  const cache = new GuestCache({ directory, progress: () => {} });
  t.equal(cache.find('linux-i386'), undefined);
  await mkdir(join(directory, 'linux-i386', 'modules'), { recursive: true });
  await writeFile(join(directory, 'linux-i386', 'vmlinuz'), '');
  t.equal(cache.find('linux-i386'), undefined, 'vmlinux is missing');
  await writeFile(join(directory, 'linux-i386', 'vmlinux'), '');
  t.equal(cache.find('linux-i386')?.vmlinux, join(directory, 'linux-i386', 'vmlinux'));
  await t.rejects(cache.getByName('linux-i368'), { code: 'ERR_CACHE_ITEM', hint: /linux-i386/ });
});

t.test('without a network the error says so', async t => {
  process.env['SOUTHBRIDGE_DEBIAN_MIRROR'] = 'http://127.0.0.1:9/debian';
  t.teardown(() => delete process.env['SOUTHBRIDGE_DEBIAN_MIRROR']);
  const cache = new GuestCache({ directory: scratch(t), progress: () => {} });
  await t.rejects(cache.get('busybox-i386'), {
    code: /ERR_CACHE_OFFLINE|ERR_PROGRAM_MISSING|ERR_CACHE_KEYRING/,
    hint: /./,
  });
});

t.test('one process at a time fetches; a lock whose holder is gone is taken over', async t => {
  const path = join(scratch(t), 'lock');
  const order: string[] = [];
  const work = (name: string) => async (): Promise<void> => {
    order.push(`${name} begins`);
    await new Promise(resolve => setTimeout(resolve, 30));
    order.push(`${name} ends`);
  };
  await Promise.all([withLock(path, () => {}, work('a')), withLock(path, () => {}, work('b'))]);
  t.same(
    order.map(line => line.split(' ')[1]),
    ['begins', 'ends', 'begins', 'ends'],
  );
  writeFileSync(path, '4194305');
  await withLock(path, () => {}, work('c'));
  t.equal(order.at(-1), 'c ends');
});

t.test('modules come with all that they need, in order', async t => {
  const linux = await guestOrSkip(t, 'linux-i386');
  if (linux === undefined) return;
  const modules = await kernelModules(linux.modules, ['virtio-net', 'ext4']);
  const names = modules.map(({ name }) => name);
  for (const [name, { depends }] of modules.entries())
    for (const needed of depends.map(each => names.indexOf(each))) t.ok(needed < name);
  t.equal(names.at(-1), 'ext4');
  t.match(modulesDep(modules), /virtio_net\.ko: .*net_failover\.ko .*failover\.ko/);
  await t.rejects(kernelModules(linux.modules, ['virtio_nett']), { code: 'ERR_KERNEL_MODULE', hint: /virtio_net/ });
});
