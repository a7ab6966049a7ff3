import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { canSandbox } from '../../../core/host/sandbox.ts';
import { RunningProgram, runToEnd } from '../control/program.ts';

const MODULE = new URL('../../../core/host/sandbox.js', import.meta.url).href;
const PROGRAM = fileURLToPath(new URL('../../../southbridge.js', import.meta.url));
const skip = canSandbox() ? false : 'no addon, or a kernel without seccomp filters for all threads';
t.setTimeout(120_000);
const NOTHING = { obsolete: false, privileges: false, spawn: false, resources: false };

/** Runs `then` in a process that has given up `denied`; what it prints, and how it ends. */
function inSandbox(denied: Partial<typeof NOTHING>, then: string) {
  const code = `
    import * as os from 'node:os';
    import { spawnSync } from 'node:child_process';
    import { readdirSync, readFileSync } from 'node:fs';
    import { pbkdf2 } from 'node:crypto';
    import { Worker } from 'node:worker_threads';
    import { enterSandbox, mayStartPrograms } from ${JSON.stringify(MODULE)};
    await new Promise(resolve => pbkdf2('a', 'b', 1, 8, 'sha256', resolve));
    enterSandbox(${JSON.stringify({ ...NOTHING, ...denied })});
    ${then}
    console.log('alive');`;
  const { stdout, stderr, status, signal } = spawnSync(process.execPath, ['--input-type=module', '-e', code], {
    encoding: 'utf8',
  });
  return { stdout, stderr, status, signal };
}

t.test('a denied call ends the process; the same call passes where its set is allowed', { skip }, async t => {
  const calls = [
    ['privileges', 'process.setgid(process.getgid());'],
    ['privileges', 'process.setuid(process.getuid());'],
    ['spawn', "spawnSync('/bin/true');"],
  ] as const;
  for (const [set, call] of calls) {
    const denied = inSandbox({ [set]: true }, call);
    t.equal(denied.signal, 'SIGSYS', `${call} with ${set} denied`);
    t.equal(denied.stdout, '');
    const allowed = inSandbox({ obsolete: true, privileges: true, spawn: true, [set]: false }, call);
    t.match(allowed, { status: 0, stdout: 'alive\n' }, `${call} with ${set} allowed`);
  }
});

t.test('priorities and schedulers fail with EPERM, and the process goes on', { skip }, async t => {
  const call = 'try { os.setPriority(19); console.log("set"); } catch (error) { console.log(error.info.code); }';
  t.equal(inSandbox({ resources: true }, call).stdout, 'EPERM\nalive\n');
  t.equal(inSandbox({}, call).stdout, 'set\nalive\n');
});

t.test('threads, new code and memory stay possible under all of it', { skip }, async t => {
  const all = { obsolete: true, privileges: true, spawn: true, resources: true };
  const { stdout, status } = inSandbox(
    all,
    `const worker = new Worker("import { parentPort } from 'node:worker_threads'; parentPort.postMessage(6 * 7)", { eval: true });
    console.log(await new Promise(resolve => worker.once('message', resolve)));
    new WebAssembly.Memory({ initial: 1, maximum: 1024, shared: true }).grow(1000);
    const add = new WebAssembly.Module(new Uint8Array([0,97,115,109,1,0,0,0,1,7,1,96,2,127,127,1,127,3,2,1,0,7,5,1,1,97,0,0,10,9,1,7,0,32,0,32,1,106,11]));
    console.log(new WebAssembly.Instance(add).exports.a(40, 2));
    let sum = 0; for (let i = 0; i < 3e6; i++) sum = (sum + i) | 0;`,
  );
  t.equal(stdout, '42\n42\nalive\n');
  t.equal(status, 0);
});

t.test('all threads are in it, and none can gain privileges again', { skip }, async t => {
  const { stdout } = inSandbox(
    {},
    `const lines = readdirSync('/proc/self/task').map(id => readFileSync('/proc/self/task/' + id + '/status', 'latin1'));
    console.log(lines.length > 4, lines.every(text => /^NoNewPrivs:\\t1$/m.test(text) && /^Seccomp:\\t2$/m.test(text)));`,
  );
  t.equal(stdout, 'true true\nalive\n');
});

t.test('who wants to start a program is told first', { skip }, async t => {
  const call = "try { mayStartPrograms('it'); } catch (error) { console.log(error.code, error.message); }";
  t.match(inSandbox({ spawn: true }, call).stdout, /^ERR_SANDBOX it would start a program/);
  t.equal(inSandbox({ privileges: true }, call).stdout, 'alive\n');
});

const LIBVIRT = 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny';

t.test(
  '-sandbox as libvirt gives it: a machine, its QMP, and errors for what would start a program',
  { skip },
  async t => {
    const program = await RunningProgram.start('-machine', 'pc', '-sandbox', LIBVIRT);
    t.teardown(() => void program.process.kill('SIGKILL'));
    await program.execute('qmp_capabilities');
    const tasks = readdirSync(`/proc/${program.process.pid}/task`);
    for (const task of tasks) {
      const status = readFileSync(join('/proc', String(program.process.pid), 'task', task, 'status'), 'latin1');
      t.match(status, /^Seccomp:\t2$/m);
    }
    const options = await program.execute('query-command-line-options', { option: 'sandbox' });
    t.match(options, {
      return: [{ parameters: [{ name: 'enable' }, { name: 'obsolete' }, { name: 'elevateprivileges' }] }],
    });
    await program.execute('migrate', { uri: 'exec:cat > /dev/null' });
    let migration: { status?: string; 'error-desc'?: string } = {};
    for (let tries = 0; tries < 400 && migration.status !== 'failed'; tries++) {
      migration = ((await program.execute('query-migrate')) as { return: typeof migration }).return;
    }
    t.match(migration, { status: 'failed' });
    t.match(await program.execute('query-status'), { return: { status: /./ } });
    t.equal(await program.command('inb 0x64'), 'OK 0x0018');
    t.equal(await program.stop(), 0);
  },
);

t.test('what -sandbox takes, in QEMU’s words', { skip }, async t => {
  for (const name of ['elevateprivileges', 'resourcecontrol']) {
    const { code, errors } = await runToEnd('-machine', 'none', '-sandbox', `on,${name}=maybe`);
    t.equal(code, 1);
    t.match(errors, `: -sandbox on,${name}=maybe: invalid argument for ${name}\n`);
  }
  const { stdout, status } = spawnSync(
    process.execPath,
    [PROGRAM, '-M', 'none', '-display', 'none', '-accel', 'qtest', '-sandbox', 'off,spawn=deny', '-monitor', 'stdio'],
    { encoding: 'utf8', input: 'info status\nquit\n' },
  );
  t.equal(status, 0);
  t.match(stdout, 'VM status');
});

t.test('the software CPU runs its firmware in it', { skip }, async t => {
  const folder = t.testdir({});
  const { status, signal } = spawnSync(
    process.execPath,
    [
      ...[PROGRAM, '-M', 'pc', '-nodefaults', '-display', 'none', '-accel', 'wasm', '-sandbox', LIBVIRT, '-no-reboot'],
      ...['-debugcon', 'file:log', '-global', 'isa-debugcon.iobase=0x402', '-boot', 'reboot-timeout=1'],
    ],
    { cwd: folder, encoding: 'utf8', timeout: 120_000 },
  );
  t.equal(signal, null);
  t.equal(status, 0);
  t.match(readFileSync(join(folder, 'log'), 'latin1'), 'SeaBIOS');
});
