import t from 'tap';
import { featureNamed } from '../../../core/cpu/features.ts';
import { parseCpuOption } from '../../../core/cpu/option.ts';
import { ANY_CPU, resolveCpu } from '../../../core/cpu/resolve.ts';
import { SOFTWARE_CPU } from '../../../core/cpu/software-cpu.ts';
import { apicIdOf, placeOf, placeOfApicId } from '../../../core/cpu/topology.ts';
import { CpuSlots } from '../../../core/machine/cpu-slots.ts';
import { Numa } from '../../../core/machine/numa.ts';

function resolve(text: string): ReturnType<typeof resolveCpu> {
  const { cpu, properties } = parseCpuOption(text);
  const features = new Map<string, boolean>();
  for (const [name, value] of properties) {
    const feature = featureNamed(name);
    if (feature !== undefined) features.set(feature, value === true || value === 'on');
  }
  return resolveCpu({ model: cpu.model, features }, ANY_CPU);
}

t.test('features raise the levels that they need, and no other', async t => {
  t.equal(resolve('486').level, 1);
  t.equal(resolve('486,arat=on').level, 6);
  t.equal(resolve('phenom,avx512vbmi=on').level, 7);
  t.equal(resolve('486,+svm,+npt').xlevel, 0x8000_000a);
  t.equal(resolve('phenom,xstore=on').xlevel2, 0xc000_0001);
  t.equal(resolve('SandyBridge,arat=on').level, 0xd);
});

t.test('a feature goes with what it depends on', async t => {
  t.ok(resolve('qemu64,npt=on').features.has('npt'));
  const without = resolve('qemu64,svm=off,npt=on');
  t.notOk(without.features.has('npt'));
  t.ok(without.filtered.has('npt'), 'and whoever asked for it is told');
});

t.test('the software CPU offers what QEMU emulates, and tells what a model lacks on it', async t => {
  const missing = (name: string): string[] => {
    const { model } = parseCpuOption(name).cpu;
    return [...resolveCpu({ model, features: new Map() }, SOFTWARE_CPU).filtered];
  };
  // QEMU's `unavailable-features` in its answer to query-cpu-definitions.
  t.same(missing('qemu64'), []);
  t.same(missing('Haswell'), ['pcid', 'x2apic', 'tsc-deadline', 'hle', 'invpcid', 'rtm']);
  const epyc = [
    'rdseed',
    'sha-ni',
    'fxsr-opt',
    'misalignsse',
    '3dnowprefetch',
    'osvw',
    'topoext',
    'nrip-save',
    'xsavec',
  ];
  t.same(missing('EPYC'), epyc);
  const { features } = resolveCpu({ model: parseCpuOption('max').cpu.model, features: new Map() }, SOFTWARE_CPU);
  t.ok(features.has('avx2') && features.has('la57') && !features.has('vmx') && !features.has('ia64'));
});

t.test("minus wins over plus, and mixing them with '=' is warned about", async t => {
  const option = parseCpuOption('pentium,-fpu,+fpu,-mce,mce=on,sse4_2=on');
  t.equal(option.properties.get('fpu'), false);
  t.equal(option.properties.get('mce'), false);
  t.equal(option.properties.get('sse4-2'), 'on');
  t.match(option.warnings[0], 'Don\'t mix both "-mce" and "mce=on"');
  t.throws(() => parseCpuOption('Nehelem'), { code: 'ERR_CPU_MODEL', hint: "did you mean 'Nehalem'?" });
});

t.test('versions build on each other', async t => {
  t.notOk(resolve('Nehalem').features.has('spec-ctrl'));
  t.ok(resolve('Nehalem-IBRS').features.has('spec-ctrl'));
  t.equal(parseCpuOption('Nehalem-IBRS').cpu.aliasOf, 'Nehalem-v2');
});

t.test('APIC IDs leave room for a power of two at each level', async t => {
  const shape = { dies: 1, cores: 3, threads: 2, maxCpus: 12 };
  t.strictSame(
    [0, 1, 2, 5, 6].map(index => apicIdOf(placeOf(index, shape), shape)),
    [0, 1, 2, 5, 8],
  );
  t.strictSame(placeOfApicId(8, shape), { socket: 1, die: 0, core: 0, thread: 0 });
});

t.test('NUMA nodes take CPUs by number, by place or by default', async t => {
  const numa = (): [CpuSlots, Numa] => {
    const cpus = new CpuSlots({ dies: 1, cores: 1, threads: 1, maxCpus: 4 });
    return [cpus, new Numa({ cpus, hmat: false, memdevSize: id => (id === 'm' ? 64 : undefined) })];
  };
  const [split, byDefault] = numa();
  byDefault.set({ type: 'node', memdev: 'm' });
  byDefault.set({ type: 'node' });
  byDefault.complete(64);
  t.strictSame(
    split.slots.map(slot => slot.nodeId),
    [0, 1, 0, 1],
  );

  const [cpus, partial] = numa();
  partial.set({ type: 'node', memdev: 'm', cpus: [0] });
  partial.set({ type: 'node' });
  partial.set({ type: 'cpu', nodeId: 1, socket: 3 });
  t.throws(() => partial.set({ type: 'cpu', nodeId: 0, socket: 3 }), {
    message: 'CPU is already assigned to node-id: 1',
  });
  t.throws(() => partial.set({ type: 'node', nodeid: 0 }), { message: 'Duplicate NUMA nodeid: 0' });
  t.equal(partial.complete(64).length, 2, 'CPUs in no node are warned about');
  t.strictSame(
    cpus.slots.map(slot => slot.nodeId),
    [0, 0, 0, 1],
  );
});
