/**
 * The control plane beside Debian's QEMU in the same run, by turns: qtest round trips on one socket (to reach: half of QEMU's
 * rate), QMP round trips, and the time from the start of the process to the QMP greeting (to reach: 1.5 times QEMU's).
 *
 *   node dist/test/bench/control.js
 */
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { ENVIRONMENT } from './environment.ts';
import { median } from './median.ts';

const TRIPS = 175_000;
const ROUNDS = 3;
const QMP_TRIPS = 5000;
const STARTS = 9;
const SOURCE = fileURLToPath(new URL('../../../test/bench/qtest-trips.c', import.meta.url));
const PROGRAM = fileURLToPath(new URL('../../southbridge.js', import.meta.url));
const COMMON = ['-machine', 'pc', '-nodefaults', '-display', 'none', '-m', '64', '-S'];
/** Debian's QEMU has no qtest accelerator; its qtest server answers beside a stopped CPU. */
const SIDES = {
  ours: [process.execPath, [PROGRAM, '-accel', 'qtest', ...COMMON]],
  qemu: ['qemu-system-x86_64', ['-accel', 'tcg', ...COMMON]],
} as const;
type Side = keyof typeof SIDES;

const folder = mkdtempSync(join(tmpdir(), 'southbridge-control-'));
const sides = (['ours', 'qemu'] as const).filter(
  side => side === 'ours' || spawnSync(SIDES.qemu[0], ['-version']).status === 0,
);

function start(side: Side, ...args: string[]): ChildProcess {
  const [command, before] = SIDES[side];
  return spawn(command, [...before, ...args], { stdio: ['ignore', 'pipe', 'ignore'], env: ENVIRONMENT });
}

async function stop(child: ChildProcess): Promise<void> {
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
}

async function socketOf(side: Side, option: string): Promise<{ child: ChildProcess; path: string }> {
  const path = join(folder, `${side}-${option}`);
  rmSync(path, { force: true });
  const child = start(side, `-${option}`, `unix:${path},server=on,wait=off`);
  while (!existsSync(path)) await new Promise(resolve => setTimeout(resolve, 5));
  return { child, path };
}

/** Round trips a second of one qtest command. */
async function qtestRate(side: Side, client: string, command: string): Promise<number> {
  const { child, path } = await socketOf(side, 'qtest');
  const { stdout } = await promisify(execFile)(client, [path, String(TRIPS), command]);
  await stop(child);
  return (TRIPS * 1e6) / Number(stdout);
}

/** Requests a second of a QMP client that waits for each reply. */
async function qmpRate(side: Side): Promise<number> {
  const { child, path } = await socketOf(side, 'qmp');
  const socket = connect(path).setEncoding('utf8');
  let left = QMP_TRIPS + 2;
  let began = 0;
  await new Promise<void>((resolve, reject) => {
    socket.on('error', reject).on('data', () => {
      if (--left === QMP_TRIPS) began = performance.now();
      if (left === 0) resolve();
      else socket.write(left === QMP_TRIPS + 1 ? '{"execute":"qmp_capabilities"}' : '{"execute":"query-status"}');
    });
  });
  const ms = performance.now() - began;
  socket.destroy();
  await stop(child);
  return (QMP_TRIPS * 1000) / ms;
}

/** Milliseconds from the start to the greeting. */
async function greeting(side: Side): Promise<number> {
  const began = performance.now();
  const child = start(side, '-qmp', 'stdio');
  if (child.stdout !== null) await once(child.stdout, 'data');
  const ms = performance.now() - began;
  await stop(child);
  return ms;
}

/** Measures all sides by turns; prints the medians and, where there is QEMU, our share of its. */
async function compare(
  name: string,
  rounds: number,
  unit: string,
  measure: (side: Side) => Promise<number>,
): Promise<void> {
  const results: Record<Side, number[]> = { ours: [], qemu: [] };
  for (let round = 0; round < rounds; round++) for (const side of sides) results[side].push(await measure(side));
  const [ours, qemu] = [median(results.ours), median(results.qemu)];
  const figure = (value: number): string => Math.round(value).toLocaleString('en').padStart(8);
  const beside = sides.length === 2 ? `   QEMU ${figure(qemu)}   ratio ${(ours / qemu).toFixed(2)}` : '   no QEMU here';
  console.log(`${name.padEnd(36)} ${figure(ours)} ${unit}${beside}`);
}

try {
  const client = join(folder, 'qtest-trips');
  const built = spawnSync(process.env['CC'] ?? 'cc', ['-O2', '-o', client, SOURCE], { stdio: 'inherit' }).status === 0;
  if (built) {
    for (const command of ['outb 0x80 0x12', 'readl 0x1000'])
      await compare(`qtest: ${TRIPS} of ${command}`, ROUNDS, 'a second', side => qtestRate(side, client, command));
  } else console.log('qtest: no C compiler for the client');
  await compare(`QMP: ${QMP_TRIPS} of query-status`, ROUNDS, 'a second', qmpRate);
  await compare('start to the QMP greeting', STARTS, 'ms', greeting);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
