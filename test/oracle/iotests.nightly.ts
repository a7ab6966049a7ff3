/**
 * QEMU's own block tests (`tests/qemu-iotests` of its source, which we do not have) with our program in the place of QEMU:
 * `SOUTHBRIDGE_QEMU_SOURCE=/path/to/qemu-7.2.0 node dist/test/oracle/iotests.nightly.js`. More may be named, each by its number, in
 * `SOUTHBRIDGE_IOTESTS`.
 */
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const ENTRY = fileURLToPath(new URL('../../southbridge.js', import.meta.url));
const SOURCE = process.env['SOUTHBRIDGE_QEMU_SOURCE'];
const TOOLS = {
  QEMU_IMG_PROG: 'qemu-img',
  QEMU_IO_PROG: 'qemu-io',
  QEMU_NBD_PROG: 'qemu-nbd',
  QSD_PROG: 'qemu-storage-daemon',
};

/** Those that have passed, by image format. */
const PASSING: Readonly<Record<string, readonly string[]>> = {
  qcow2:
    '007 040 056 057 065 068 085 095 096 117 120 124 127 129 130 132 139 140 141 143 144 152 155 156 157 161 165 182 184 195 202 203 206 208 218 223 236 238 242 247 248 249 254 255 256 257 258 260 273 283 295 298 300 307 image-fleecing remove-bitmap-from-backing reopen-file stream-error-on-reset stream-under-throttle'.split(
      ' ',
    ),
};

const pathOf = (tool: string): string => spawnSync('which', [tool], { encoding: 'utf8' }).stdout.trim();

function missing(): string | false {
  if (SOURCE === undefined) return "SOUTHBRIDGE_QEMU_SOURCE does not name a tree of QEMU's source";
  const check = path.join(SOURCE, 'tests/qemu-iotests/check');
  if (!fs.existsSync(check)) return `${check} does not exist`;
  const lacking = ['python3', ...Object.values(TOOLS)].find(tool => pathOf(tool) === '');
  return lacking === undefined ? false : `${lacking} is not installed`;
}

/** A folder to run `check` from, and in it a program that looks like QEMU's. */
function prepare(folder: string): NodeJS.ProcessEnv {
  fs.symlinkSync(path.join(SOURCE ?? '', 'tests/qemu-iotests/check'), path.join(folder, 'check'));
  // Messages begin with the name that the program was called by.
  const script = path.join(folder, 'qemu-system-x86_64');
  fs.symlinkSync(ENTRY, `${script}.js`);
  fs.writeFileSync(script, `#!/bin/sh\nexec '${process.execPath}' '${script}.js' "$@"\n`, { mode: 0o755 });
  const tools = Object.entries(TOOLS).map(([name, tool]) => [name, pathOf(tool)]);
  return { ...process.env, ...Object.fromEntries(tools), QEMU_PROG: script, SOCK_DIR: path.join(folder, 's') };
}

t.setTimeout(7_200_000);

for (const [format, passing] of Object.entries(PASSING)) {
  t.test(`QEMU's block tests: ${format}`, { skip: missing() }, async t => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'sbio-'));
    t.teardown(() => fs.rmSync(folder, { recursive: true, force: true }));
    const tests = process.env['SOUTHBRIDGE_IOTESTS']?.split(' ') ?? passing;
    const check = spawn('python3', ['check', `-${format}`, '-tap', ...tests], {
      cwd: folder,
      env: prepare(folder),
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let done = 0;
    for await (const line of createInterface({ input: check.stdout })) {
      const result = /^(not )?ok \S+ (\S+)( # SKIP)?/.exec(line);
      if (result === null) {
        t.comment(line);
        continue;
      }
      const [, failed, name = '', skipped] = result;
      done++;
      if (skipped === undefined) t.equal(failed, undefined, name);
      else t.comment(`${name} does not run here`);
    }
    t.equal(done, tests.length, 'all were tried');
  });
}
