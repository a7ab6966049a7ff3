import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';

const INSIDE = 'SOUTHBRIDGE_TEST_IN_NAMESPACE';
const NAMESPACE = process.getuid?.() === 0 ? ['--net'] : ['--net', '--map-root-user'];

/** Whether this process is the one in the namespace. */
export const inside = process.env[INSIDE] !== undefined;

/** Why there can be no network namespace with a tap here; false where there can. */
export function noNamespace(): string | false {
  const { error, status, stderr } = spawnSync(
    'unshare',
    [...NAMESPACE, 'ip', 'tuntap', 'add', 'mode', 'tap', 'name', 'probe0'],
    { encoding: 'utf8' },
  );
  if (error !== undefined) return `no unshare: ${error.message}`;
  return status !== 0 && `no network namespace with a tap: ${stderr.trim()}`;
}

/** Runs the test file at `url` once more, in a network namespace of its own; all of its `count` tests have to pass there. */
export async function runInNamespace(t: Test, url: string, count: number): Promise<void> {
  const child = spawn('unshare', [...NAMESPACE, process.execPath, fileURLToPath(url)], {
    env: { ...process.env, [INSIDE]: '1' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  const [status] = await once(child, 'close');
  for (const line of output.split('\n')) if (status !== 0 || line.startsWith('ok')) t.comment(line);
  t.equal(status, 0);
  t.match(output, new RegExp(`^ok ${count}`, 'm'), `all ${count}`);
}

/** Runs `ip` with these arguments, which have to be right. Returns what it says. */
export function ip(t: Test, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync('ip', args, { encoding: 'utf8' });
  t.equal(status, 0, `ip ${args.join(' ')}${status === 0 ? '' : `: ${stderr}`}`);
  return stdout;
}
