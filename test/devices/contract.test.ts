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

t.test('there are devices', async t => t.ok(types.length > 40));

for (const type of types) {
  t.test(type.type, async t => {
    for (const { name, check } of deviceContract(type, { hosts: types })) await t.test(name, check);
  });
}
