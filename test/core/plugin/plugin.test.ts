import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { TypeRegistry } from '../../../core/device/registry.ts';
import { PluginHost } from '../../../core/plugin/host.ts';
import { bench } from '../../../core/testing/bench.ts';
import { registerDevices } from '../../../devices/index.ts';

t.setTimeout(240_000);

const folder = mkdtempSync(join(tmpdir(), 'southbridge-plugin-'));

/** A device type whose identity register tells its version. */
const device = (id: number, type = 'gadget'): string => `
  import { deviceType, PciDevice, r32, registerMap } from 'southbridge';
  export const map = registerMap('gadget', { ID: r32(0, {}, { access: 'ro', reset: ${id} }) });
  class Gadget extends PciDevice { readonly regs: object = this.bind(map); }
  export const gadget = deviceType({ type: '${type}', summary: 'Gadget ${id}', aliases: ['${type}-alias'],
    pci: { vendor: 0x1b36, device: 0x70fd, class: 0x088000 }, bars: { 0: { size: 4096, map } }, create: Gadget });
`;

function file(name: string, text: string): string {
  const path = join(folder, name);
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(path, text);
  return path;
}

function host(): { plugins: PluginHost; registry: TypeRegistry } {
  const registry = new TypeRegistry();
  registerDevices(registry);
  return { plugins: new PluginHost(registry), registry };
}

const refused = async (t: Test, path: string, code: string, message: RegExp, hint?: RegExp): Promise<void> => {
  const { plugins } = host();
  await t.rejects(plugins.load(path), { code, message, ...(hint && { hint }) });
  t.same(plugins.plugins, [], 'nothing is left');
};

t.test('a single TypeScript file brings its device types, and runs on the bench', async t => {
  const { plugins, registry } = host();
  const loaded = await plugins.load(file('one.ts', device(0x11)));
  t.match(loaded, { name: 'one', api: '1.0', prefix: '' });
  const type = await registry.requireDevice('gadget');
  t.equal(registry.origin('gadget').source, 'one');
  const lab = bench();
  t.equal(lab.pci(type).port(0).read(0, 4), 0x11);
});

t.test('two versions live side by side, and do not share classes', async t => {
  const { plugins, registry } = host();
  await plugins.load(file('v1/gadget.ts', device(1)), { prefix: 'old-' });
  await plugins.load(file('v2/gadget.ts', device(2)));
  const lab = bench();
  const [v1, v2] = [await registry.requireDevice('old-gadget'), await registry.requireDevice('gadget-alias')];
  const old = lab.pci(v1);
  t.equal(old.device.typeName, 'old-gadget');
  t.equal(old.port(0).read(0, 4), 1);
  t.equal(lab.pci(v2).port(0).read(0, 4), 2);
  t.equal(registry.device('old-gadget-alias'), v1);
});

t.test('a second plugin with the same names is refused whole', async t => {
  const { plugins, registry } = host();
  await plugins.load(file('first.ts', device(1)));
  const both = file('second.ts', `${device(2)} export const fresh = gadget.renamed('fresh', []);`);
  await t.rejects(plugins.load(both), {
    code: 'ERR_TYPE_EXISTS',
    message: /'gadget' of second is already there, from first/,
    hint: /prefix=/,
  });
  t.equal(registry.device('fresh'), undefined);
  t.equal(plugins.plugins.length, 1);
  await t.rejects(plugins.load(file('builtin.ts', device(3, 'e1000'))), { message: /from southbridge built in/ });
});

t.test('files that import each other, by .js names too', async t => {
  file('parts/values.ts', `export const id: number = 0x77;`);
  const { plugins, registry } = host();
  await plugins.load(
    file('parts/main.ts', `import { id } from './values.js';${device(0).replace('reset: 0', 'reset: id')}`),
  );
  t.equal(
    bench()
      .pci(await registry.requireDevice('gadget'))
      .port(0)
      .read(0, 4),
    0x77,
  );
});

t.test('packages are found from the folder upwards, by their entry', async t => {
  file(
    'app/node_modules/gadgets/package.json',
    JSON.stringify({
      name: 'gadgets',
      version: '3.2.1',
      type: 'module',
      exports: { '.': { types: './x.d.ts', default: './lib/a.js' } },
    }),
  );
  file('app/node_modules/gadgets/lib/a.js', device(5).replace('readonly regs: object', 'regs'));
  file('app/deep/down/x', '');
  const { plugins, registry } = host();
  t.match(await plugins.load('gadgets', { from: join(folder, 'app/deep/down') }), {
    name: 'gadgets',
    version: '3.2.1',
  });
  t.same(registry.origin('gadget'), { source: 'gadgets', version: '3.2.1' });
  await t.rejects(plugins.load('gizmos', { from: folder }), {
    code: 'ERR_PLUGIN_NOT_FOUND',
    hint: 'npm install gizmos',
  });
});

t.test('what does not fit is refused by name', async t => {
  const declared = (api: string): string =>
    `import { plugin } from 'southbridge'; ${device(1)} export default plugin({ api: '${api}', devices: [gadget] });`;
  await refused(
    t,
    file('api2.ts', declared('2.0')),
    'ERR_PLUGIN_API',
    /is for plugin API 2.0, this program has 1/,
    /update southbridge/,
  );
  await refused(t, file('api0.ts', declared('0.9')), 'ERR_PLUGIN_API', /API 0.9/, /update the plugin/);
  await refused(t, file('api99.ts', declared('1.99')), 'ERR_PLUGIN_API', /API 1.99/, /update southbridge/);
  await refused(t, file('apix.ts', declared('one')), 'ERR_PLUGIN_API', /'one'/);
  await refused(
    t,
    file('empty.ts', 'export const nothing = 1;'),
    'ERR_PLUGIN_EMPTY',
    /brings nothing/,
    /export device types/,
  );
  await refused(t, file('broken.ts', 'export const = ;'), 'ERR_PLUGIN_LOAD', /broken.ts.*TS1|Expression/);
  await refused(t, file('throws.ts', `throw new Error('no luck');`), 'ERR_PLUGIN_LOAD', /throws.ts: no luck/);
  await refused(t, join(folder, 'absent.ts'), 'ERR_PLUGIN_NOT_FOUND', /there is no file/);
  await refused(t, file('none/x', '').replace(/x$/, ''), 'ERR_PLUGIN_NOT_FOUND', /has no package.json/);
  const types = file('map.ts', device(1, '-bad-'));
  await refused(t, types, 'ERR_DEVICE_TYPE', /'-bad-' is no name/);
  const package2 = file('pkg2/package.json', JSON.stringify({ name: 'p', main: 'a.mjs', southbridge: { api: '7.0' } }));
  file('pkg2/a.mjs', device(1).replace('readonly regs: object', 'regs'));
  await refused(t, join(package2, '..'), 'ERR_PLUGIN_API', /API 7.0/);
});
