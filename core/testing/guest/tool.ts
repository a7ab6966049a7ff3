import { writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { TypeRegistry } from '../../device/registry.ts';
import { SouthbridgeError } from '../../errors.ts';
import { PluginHost } from '../../plugin/host.ts';
import { importPlugin } from '../../plugin/modules.ts';
import { junit, tapLine } from './reports.ts';
import { type GuestSuite, runSuite, type TestResult } from './suite.ts';

const USAGE = `Usage: southbridge test [-plugin PATH] [--junit FILE] FILE...

Boots the guest of each file's suite (its default export: guestSuite({...})), and runs its tests, each from the booted state.
Reports in TAP; the exit status is 1 where a test fails.
`;

/** `southbridge test`. Returns what is left to print. */
export async function testTool(args: readonly string[], { registry }: { registry(): TypeRegistry }): Promise<string> {
  const files: string[] = [];
  const types = registry();
  const plugins = new PluginHost(types);
  let report: string | undefined;
  for (let at = 0; at < args.length; at++) {
    const word = args[at] ?? '';
    if (word === '--junit') report = args[++at];
    else if (word === '-plugin') await plugins.load(args[++at] ?? '');
    else if (word.startsWith('-')) return USAGE;
    else files.push(word);
  }
  if (files.length === 0) return USAGE;
  const results: TestResult[] = [];
  process.stdout.write('TAP version 14\n');
  for (const file of files) {
    const suite = await suiteIn(resolve(file));
    await runSuite({ registry: types, ...suite }, result => {
      results.push(result);
      process.stdout.write(tapLine(result, results.length));
    });
  }
  if (report !== undefined) writeFileSync(report, junit(results));
  const failed = results.filter(result => result.failure !== undefined).length;
  if (failed > 0) process.exitCode = 1;
  return `1..${results.length}\n# ${results.length - failed} passed, ${failed} failed\n`;
}

const isSuite = (value: unknown): value is GuestSuite =>
  typeof value === 'object' && value !== null && 'ready' in value && 'tests' in value && 'machine' in value;

async function suiteIn(file: string): Promise<GuestSuite> {
  const { default: suite } = await importPlugin(file);
  if (isSuite(suite)) return suite;
  throw new SouthbridgeError('ERR_GUEST_SUITE', `${file} has no suite`, 'export default guestSuite({ ... })');
}
