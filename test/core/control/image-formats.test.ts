/** Images of other programs, as a client makes, opens and asks about them. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { noQemuImg, qemuImg } from '../block/images.ts';
import { RunningProgram } from './program.ts';

t.setTimeout(120_000);
const folder = mkdtempSync(join(tmpdir(), 'southbridge-'));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));

const SIZE = 8 << 20;
/** What the geometry of a VHD makes of it. */
const SIZE_OF_VHD = 8390656;

const FORMATS: readonly (readonly [driver: string, options: Record<string, unknown>, apart?: boolean])[] = [
  ['vpc', { 'force-size': true }],
  ['vdi', { preallocation: 'metadata' }],
  ['vmdk', { 'zeroed-grain': true, 'adapter-type': 'lsilogic' }],
  ['vmdk', { subformat: 'monolithicFlat' }, true],
  ['vhdx', { subformat: 'fixed', 'block-size': 1 << 20 }],
];

t.test('made by blockdev-create, opened, listed, and no way to migrate with them', { skip: noQemuImg }, async t => {
  const program = await RunningProgram.start('-machine', 'none');
  await program.execute('qmp_capabilities');
  const open = async (nodeName: string, file: string): Promise<void> => {
    writeFileSync(file, '');
    const added = await program.execute('blockdev-add', { driver: 'file', 'node-name': nodeName, filename: file });
    t.same(added, { return: {} });
  };
  for (const [index, [driver, options, apart]] of FORMATS.entries()) {
    const file = join(folder, `disk-${index}`);
    await open(`file-${index}`, file);
    if (apart) await open(`data-${index}`, `${file}-flat`);
    const wanted = {
      driver,
      file: `file-${index}`,
      size: SIZE,
      ...options,
      ...(apart && { extents: [`data-${index}`] }),
    };
    t.same(await program.execute('blockdev-create', { 'job-id': 'make', options: wanted }), { return: {} });
    for (;;) {
      const { return: jobs } = (await program.execute('query-jobs')) as { return: Record<string, unknown>[] };
      if (jobs[0]?.['status'] !== 'concluded') continue;
      t.notOk(jobs[0]['error'], `${driver}: ${String(jobs[0]['error'])}`);
      break;
    }
    await program.execute('job-dismiss', { id: 'make' });
    await program.execute('blockdev-del', { 'node-name': `file-${index}` });
    if (apart) await program.execute('blockdev-del', { 'node-name': `data-${index}` });
    const added = {
      driver,
      'node-name': `image-${index}`,
      'read-only': index % 2 === 0,
      file: { driver: 'file', filename: file },
    };
    t.same(await program.execute('blockdev-add', added), { return: {} });
    const said = JSON.parse(qemuImg('info', '-U', '-f', driver, '--output=json', file));
    const { return: nodes } = (await program.execute('query-named-block-nodes')) as {
      return: Record<string, unknown>[];
    };
    const { image } = nodes.find(node => node['node-name'] === `image-${index}`) as { image: Record<string, unknown> };
    for (const member of ['virtual-size', 'cluster-size', 'format-specific', 'format'])
      t.same(image[member], said[member], `${driver}: ${member}`);
    const blocker = `The ${driver} format used by node 'image-${index}' does not support live migration`;
    t.match(await program.execute('query-migrate'), { return: { 'blocked-reasons': [blocker] } });
    t.match(await program.execute('migrate', { uri: 'exec:cat >/dev/null' }), { error: { desc: blocker } });
    t.same(await program.execute('blockdev-del', { 'node-name': `image-${index}` }), { return: {} });
  }
  t.notHas((await program.execute('query-migrate')) as object, { return: { 'blocked-reasons': [] } });
  await program.stop();
});

t.test('a disk is mirrored into each of them', { skip: noQemuImg }, async t => {
  const source = join(folder, 'source.raw');
  writeFileSync(
    source,
    Buffer.concat([Buffer.alloc(3 << 20, 'data'), Buffer.alloc(4 << 20), Buffer.alloc(SIZE_OF_VHD - (7 << 20), 7)]),
  );
  const program = await RunningProgram.start(
    ...['-machine', 'none', '-blockdev', `driver=raw,node-name=disk,file.driver=file,file.filename=${source}`],
  );
  await program.execute('qmp_capabilities');
  for (const format of ['vpc', 'vdi', 'vmdk', 'vhdx']) {
    const target = join(folder, `mirror.${format}`);
    const mirror = { 'job-id': 'copy', device: 'disk', target, format, sync: 'full' };
    t.same(await program.execute('drive-mirror', mirror), { return: {} });
    for (;;) {
      const { return: jobs } = (await program.execute('query-block-jobs')) as { return: Record<string, unknown>[] };
      if (jobs.length === 0) break;
      if (jobs[0]?.['ready'] === true) await program.execute('block-job-cancel', { device: 'copy' });
    }
    t.match(qemuImg('compare', '-f', 'raw', '-F', format, source, target), /identical/, format);
  }
  await program.stop();
});
