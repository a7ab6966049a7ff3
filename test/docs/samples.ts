/** The samples of documentation pages, so that tests can run them. */
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

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

/** A new folder with the page's files in it. */
export function writeSamples(page: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-docs-'));
  for (const { file, text } of samplesOf(page)) {
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
