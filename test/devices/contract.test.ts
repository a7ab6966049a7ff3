/** The device contract (DESIGN, section 8) on every device type that there is. */
import t from 'tap';
import { TypeRegistry } from '../../core/device/registry.ts';
import { deviceContract } from '../../core/testing/contract/contract.ts';
import { registerDevices } from '../../devices/index.ts';

t.setTimeout(240_000);

const registry = new TypeRegistry();
registerDevices(registry);
await registry.loadAll();
const types = registry.devices();

/** What has no default and must be said. */
const NEEDED: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  'cfi.pflash01': { 'sector-length': 4096, 'num-blocks': 16, width: 1, name: 'flash' },
};

t.test('there are devices', async t => t.ok(types.length > 40));

for (const type of types) {
  t.test(type.type, async t => {
    for (const { name, check } of deviceContract(type, { hosts: types, properties: NEEDED[type.type] ?? {} }))
      await t.test(name, check);
  });
}
