/** The how-to page on machine types: JSON and TypeScript make the same machine, and errors name the place. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { qtest } from '../../core/accel/qtest/accelerator.ts';
import { TypeRegistry } from '../../core/device/registry.ts';
import { Machine } from '../../core/machine/machine.ts';
import { DEFAULT_CONFIG } from '../../core/machine/machine-config.ts';
import type { MachineType } from '../../core/machine/machine-type.ts';
import { PluginHost } from '../../core/plugin/host.ts';
import { StandIns } from '../../core/testing/stand-ins.ts';
import { registerDevices } from '../../devices/index.ts';
import { registerMachines } from '../../machines/index.ts';
import { RunningProgram } from '../core/control/program.ts';
import { violations } from '../core/machine/schema-validator.ts';
import { ROOT, samplesOf, writeSamples } from './samples.ts';

t.setTimeout(240_000);

const folder = writeSamples('how-to/machines.md');
const backends = await StandIns.make();

function host(): { registry: TypeRegistry; plugins: PluginHost } {
  const registry = new TypeRegistry();
  registerDevices(registry);
  registerMachines(registry);
  return { registry, plugins: new PluginHost(registry) };
}

async function typeIn(file: string): Promise<MachineType> {
  const { parts } = await host().plugins.load(join(folder, file));
  const [type] = parts.machines;
  if (type === undefined) throw new Error(`no machine in ${file}`);
  return type;
}

function machineOf(t: Test, type: MachineType, options = {}): Machine {
  const machine = new Machine({
    type,
    config: { ...DEFAULT_CONFIG, ramSize: type.defaultRam, bios: 'none', options },
    accelerator: qtest,
    backends,
    romImage: () => new Uint8Array(0x1_0000),
    random: () => 0.5,
  }).build();
  t.teardown(() => machine.dispose());
  machine.resetDevices();
  return machine;
}

/** All that tells machines apart: devices with their properties, and what is at which address. */
function description(machine: Machine): unknown {
  return {
    devices: [...machine.devices()].map(device => ({
      path: device.path,
      type: device.typeName,
      properties: Object.fromEntries(
        device.properties
          .filter(({ name }) => name !== 'chardev' && name !== 'date')
          .map(property => [property.name, property.get()]),
      ),
    })),
    memory: machine.memory.flat.ranges.map(({ start, end, region }) => [start, end, region.name]),
    ports: machine.ports.flat.ranges.map(({ start, end, region }) => [start, end, region.name]),
    options: Object.entries(machine.type.options).map(([name, { type, help }]) => [name, type, help]),
    ram: machine.type.defaultRam,
  };
}

t.test('JSON equals TypeScript', async t => {
  for (const options of [{}, { console: 'com2', mask: '0xffff' }]) {
    const [data, code] = [
      machineOf(t, await typeIn('lab.json'), options),
      machineOf(t, await typeIn('lab.ts'), options),
    ];
    t.same(description(data), description(code));
    const serials = [...data.devices()].filter(device => device.typeName === 'isa-serial');
    t.equal(serials.length, Object.keys(options).length > 0 ? 1 : 0, "'if' decides");
    for (const machine of [data, code]) {
      // The 8259 shows requests in its IRR (OCW3 = 0x0a).
      const irr = (): number => (machine.ports.write(0x20, 1, 0x0a), machine.ports.read(0x20, 1));
      machine.ports.write(0x220, 1, 1);
      t.equal(irr() & 0x20, 0x20, 'the wire raises IRQ 5');
      machine.ports.write(0x220, 1, 0);
    }
  }
});

t.test('own machine types are listed and run', async t => {
  const program = await RunningProgram.start('-machine', join(folder, 'lab.json'), '-nodefaults');
  await program.execute('qmp_capabilities');
  t.match(await program.execute('qom-get', { path: '/machine', property: 'type' }), { return: 'lab-pc-machine' });
  const machines = (await program.execute('query-machines'))['return'] as { name: string }[];
  t.ok(machines.some(({ name }) => name === 'lab-pc'));
  t.match(await program.execute('qom-list', { path: '/machine/peripheral/alarm0' }), { return: [] });
  await program.stop();
});

t.test('errors name the path in the file', async t => {
  const good = JSON.parse(samplesOf('how-to/machines.md').find(({ file }) => file === 'lab.json')?.text ?? '');
  const wrong = async (change: object, message: RegExp, hint = /(?:)/): Promise<void> => {
    const path = join(folder, 'wrong.json');
    writeFileSync(path, JSON.stringify({ ...good, ...change }));
    await t.rejects(async () => machineOf(t, (await host().plugins.load(path)).parts.machines[0] as MachineType), {
      code: 'ERR_MACHINE_DATA',
      message,
      ...(hint.source !== '(?:)' && { hint }),
    });
  };
  const device = (change: object) => ({ devices: [{ driver: 'edu', ...change }], wires: [] });
  await wrong({ sumary: 'x' }, /^wrong\.json: sumary: is not known here/, /'summary'/);
  await wrong({ summary: 7 }, /^wrong\.json: summary: is a number, and must be text/);
  await wrong({ type: '1x' }, /type: '1x' is no name/);
  await wrong({ extends: 'pd' }, /^wrong\.json: extends: there is no 'pd'/);
  await wrong({ devices: {} }, /devices: is an object, and must be a list/);
  await wrong({ options: { mask: { type: 'u64' } } }, /options\.mask\.type: 'u64' is none of/);
  await wrong(
    { options: { console: { type: 'chardev' }, mask: { type: 'uint8', default: 256 } } },
    /options\.mask\.default: Parameter 'mask' expects uint8_t/,
  );
  await wrong({ options: {} }, /devices\[1\]\.properties\.dma_mask\.option: there is no option 'mask'/);
  await wrong({ memory: 'much' }, /memory: 'much' is no size/);
  await wrong({ plugins: ['./absent.ts'] }, /plugins\[0\]: there is no file/);
  await wrong(
    device({ driver: 'edux' }),
    /^wrong\.json: devices\[0\]\.driver: 'edux' is not a valid device/,
    /did you mean 'edu'/,
  );
  await wrong(
    device({ properties: { dmamask: 1 } }),
    /devices\[0\]\.properties\.dmamask: 'edu' has no property/,
    /dma_mask/,
  );
  await wrong(device({ properties: { addr: '99.9' } }), /devices\[0\]\.properties\.addr: .*99\.9/);
  await wrong(device({ properties: { dma_mask: null } }), /devices\[0\]\.properties\.dma_mask: is null/);
  await wrong(device({ bus: 'pci.9' }), /devices\[0\]\.bus: there is no bus 'pci\.9'/, /pci\.0/);
  await wrong(device({ properties: { addr: '01.0' } }), /devices\[0\]: PCI: slot 1 function 0 not available/);
  await wrong(device({ if: 'consol' }), /devices\[0\]\.if: there is no option/, /'console'/);
  await wrong({ wires: [{ from: 'alarm0:alert' }] }, /wires\[0\]\.to: is missing/);
  await wrong(
    { wires: [{ from: 'alarm:alert', to: 'isa.0:irq[5]' }] },
    /wires\[0\]\.from: there is no device 'alarm'/,
    /'alarm0'/,
  );
  await wrong(
    { wires: [{ from: 'alarm0:bell', to: 'isa.0:irq[5]' }] },
    /wires\[0\]\.from: alarm 'alarm0' has no output/,
    /alert/,
  );
  await wrong({ wires: [{ from: 'alarm0:alert', to: 'isa.0:irq[16]' }] }, /wires\[0\]\.to: .*IRQ 16/);
  await wrong({ wires: [{ from: 'alarm0', to: 'isa.0:irq[5]' }] }, /wires\[0\]\.from: 'alarm0' is no pin/);
  const twice = { from: 'alarm0:alert', to: 'isa.0:irq[5]' };
  await wrong({ wires: [twice, twice] }, /wires\[1\]\.from: 'alarm0:alert' is connected already/);
  writeFileSync(join(folder, 'broken.json'), '{ "type": }');
  await t.rejects(host().plugins.load(join(folder, 'broken.json')), {
    code: 'ERR_MACHINE_DATA',
    message: /^broken\.json: is not JSON/,
  });
});

t.test('the published schema knows the page, and what is wrong', async t => {
  const schema = JSON.parse(readFileSync(join(ROOT, 'docs/reference/machine.schema.json'), 'utf8'));
  const good = JSON.parse(samplesOf('how-to/machines.md').find(({ file }) => file === 'lab.json')?.text ?? '');
  t.same(violations(schema, good), []);
  const edu = (properties: object) => ({ ...good, devices: [{ driver: 'edu', properties }] });
  t.same(violations(schema, { ...good, extends: 7 }), ['$.extends: none of the forms']);
  t.same(violations(schema, { ...good, sumary: '' }), ['$.sumary: unknown']);
  t.same(violations(schema, edu({ dma_mask: 1, multifunction: 'on' })), []);
  t.same(violations(schema, edu({ dmamask: 1 })), ['$.devices[0].properties.dmamask: unknown']);
  t.same(violations(schema, edu({ romsize: -1 })), ['$.devices[0].properties.romsize: none of the forms']);
});
