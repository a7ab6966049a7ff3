/** The how-to page on register maps: its commands write what it says. */
import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { RunningProgram } from '../core/control/program.ts';
import { echoGuest } from '../core/testing/echo-guest.ts';
import { commandsOf, ROOT, runSamples } from './samples.ts';

const PAGE = 'how-to/registers.md';
const folder = mkdtempSync(join(tmpdir(), 'southbridge-registers-'));
t.teardown(() => rmSync(folder, { recursive: true }));
t.setTimeout(240_000);
const words = (part: string): string[] =>
  (commandsOf(PAGE).find(line => line.includes(part)) ?? '').replaceAll("'", '').split(' ').slice(1);
const read = (name: string): string => readFileSync(join(folder, name), 'utf8');
const program = join(ROOT, 'dist/southbridge.js');

t.test('generated files', async t => {
  for (const kind of ['header', 'rust', 'markdown', 'html']) {
    await promisify(execFile)(process.execPath, [program, ...words(`generate ${kind}`)], { cwd: folder });
  }
  t.match(read('edu.h'), /#define EDU_STATUS 0x20[\s\S]*#define EDU_STATUS_COMPUTING 0x1u/);
  t.match(read('edu.rs'), /pub const STATUS: usize = 0x20;/);
  t.match(read('edu.md'), /## edu[\s\S]*`IRQ_ON_FACTORIAL`/);
  t.match(read('edu.html'), /<h2>edu<\/h2>/);
  const compiler = spawnSync('cc', ['-fsyntax-only', '-Wall', '-Werror', '-x', 'c', join(folder, 'edu.h')]);
  if (compiler.error === undefined) t.equal(compiler.status, 0, String(compiler.stderr));
  const serial = await promisify(execFile)(process.execPath, [program, 'generate', 'header', 'isa-serial']);
  t.match(serial.stdout, /#define SERIAL_LCR/, 'a map that is bound by code');
  await t.rejects(promisify(execFile)(process.execPath, [program, 'generate', 'heder', 'edu']), {
    code: 1,
    stderr: /did you mean 'header'/,
  });
  await t.rejects(promisify(execFile)(process.execPath, [program, 'generate', 'header', 'edx']), {
    code: 1,
    stderr: /did you mean 'edu'/,
  });
});

t.test('waveforms and coverage of a machine', async t => {
  const options = [...words('vcd,file'), ...words('coverage,file').slice(-3)].filter(word => word !== '-nographic');
  const placed = options.map(word => word.replace('file=', `file=${folder}/`));
  const running = await RunningProgram.start(...placed, '-nodefaults', '-serial', 'null');
  await running.execute('qmp_capabilities');
  for (const [port, value] of [
    [0xcf8, 0x8000_1010],
    [0xcfc, 0xe000_0000],
    [0xcf8, 0x8000_1004],
    [0xcfc, 7],
  ] as const)
    await running.command(`outl ${port} ${value}`);
  await running.command('writel 0xe0000004 5');
  await running.command('readl 0xe0000000');
  await running.stop();
  t.match(
    read('edu.vcd'),
    /\$scope module card\.edu \$end[\s\S]*LIVENESS[\s\S]*\$scope module isa-serial[\s\S]*\nb1{29}010 /,
  );
  t.match(read('coverage.txt'), /^edu: 1 of \d+ fields covered\n {2}LIVENESS: never read\n/);
  t.match(
    (await promisify(execFile)(process.execPath, [program, '-trace-sink', 'help'])).stdout,
    /log .*\n {2}vcd .*\n {2}coverage /,
  );
});

t.test("the log has the guest's addresses", async t => {
  writeFileSync(join(folder, 'echo.elf'), echoGuest);
  const suite = `import { guestSuite } from 'southbridge/testing';
    import { programCounter } from 'southbridge';
    const lines: string[] = [];
    export default guestSuite({ name: 'pc', machine: 'pc', memory: 16 * 2 ** 20, kernel: ${JSON.stringify(join(folder, 'echo.elf'))},
      ready: 'ready> ', tests: {
        addresses: async guest => {
          const { machine } = guest;
          machine.trace.enable('*.THR');
          machine.trace.addSink((event, detail) => lines.push(\`\${programCounter(machine)?.toString(16)} \${detail}\`));
          guest.type('a');
          await guest.expect('a');
          if (!/^1000(5[0-9a-f]) serial\\.THR/.test(lines[0] ?? '')) throw new Error(lines.join('; '));
        } } });`;
  writeFileSync(join(folder, 'pc.ts'), suite);
  const { stdout } = await promisify(execFile)(process.execPath, [program, 'test', join(folder, 'pc.ts')]).catch(
    error => error,
  );
  t.match(stdout, /ok 2 - pc: addresses/);
});

t.test('the sample', async t => {
  t.match(await runSamples([PAGE]), /# pass 1\n# fail 0/);
});
