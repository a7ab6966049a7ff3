/** The samples of documentation pages, so that tests can run them. */
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

export const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../../..');

interface Sample {
  readonly language: string;
  /** `file=NAME` behind the language. */
  readonly file: string | undefined;
  /** `from=PATH`: it is an excerpt of that file of the project. */
  readonly from: string | undefined;
  readonly text: string;
}

/** The fenced blocks of a page below docs/. */
export function samplesOf(page: string): readonly Sample[] {
  const text = readFileSync(join(ROOT, 'docs', page), 'utf8');
  return [...text.matchAll(/^```(\w+)(?: (file|from)=(\S+))?\n(.*?)^```$/gms)].map(match => ({
    language: match[1] ?? '',
    file: match[2] === 'file' ? match[3] : undefined,
    from: match[2] === 'from' ? match[3] : undefined,
    text: match[4] ?? '',
  }));
}

/** A new folder with the pages' files in it. */
export function writeSamples(...pages: readonly string[]): string {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-docs-'));
  for (const { file, text } of pages.flatMap(samplesOf)) {
    if (file === undefined) continue;
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    writeFileSync(join(folder, file), text);
  }
  return folder;
}

/** The commands of the page's `sh` blocks, one each, continued lines joined. */
export function commandsOf(page: string): readonly string[] {
  return samplesOf(page)
    .filter(({ language, from }) => language === 'sh' && from === undefined)
    .flatMap(({ text }) => text.replaceAll('\\\n', ' ').split('\n'))
    .map(line => line.replace(/\s+/g, ' ').trim())
    .filter(line => line !== '' && !line.startsWith('#'));
}

/**
 * Compiles the pages' samples, beside other `files`, as a reader's package would be, with all checks, and runs its tests under Node.js's own runner.
 * Returns what that printed, in TAP.
 */
export async function runSamples(
  pages: readonly string[],
  files: Readonly<Record<string, Uint8Array>> = {},
): Promise<string> {
  const run = promisify(execFile);
  const folder = writeSamples(...pages);
  for (const [name, bytes] of Object.entries(files)) writeFileSync(join(folder, name), bytes);
  const modules = join(folder, 'node_modules');
  mkdirSync(modules);
  symlinkSync(ROOT, join(modules, 'southbridge'));
  for (const name of ['typescript', '@types']) symlinkSync(join(ROOT, 'node_modules', name), join(modules, name));
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'samples', type: 'module' }));
  const config = JSON.parse(readFileSync(join(ROOT, 'core/plugin/templates/device/tsconfig.json'), 'utf8'));
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ ...config, include: ['*.ts'] }));
  const options = { cwd: folder };
  // The loaders of the test runner are not for these.
  const node = ['-u', 'NODE_OPTIONS', process.execPath];
  try {
    await run('env', [...node, join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', '.'], options);
    const { stdout } = await run('env', [...node, '--test', '--test-reporter=tap', 'dist/'], options);
    return stdout;
  } catch (error) {
    if (error instanceof Error && 'stdout' in error) throw new Error(String(error.stdout), { cause: error });
    throw error;
  }
}
