import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SouthbridgeError } from '../errors.ts';

const PACKAGE = new URL('../../../', import.meta.url);
const TEMPLATES = fileURLToPath(new URL('core/plugin/templates/', PACKAGE));
const KINDS = ['device', 'machine'] as const;

const USAGE = `Usage: southbridge create device|machine NAME [FOLDER]

Writes an npm package with a device or machine type, its tests, documentation and CI into FOLDER (default: NAME).
`;

/**
 * `southbridge create`: writes a package that works, to begin from. Returns what to tell the user.
 * @throws SouthbridgeError ERR_CREATE for a name that is none, or a folder that is not empty
 */
export function create(args: readonly string[]): string {
  const [given, name, folder] = args;
  const kind = KINDS.find(candidate => candidate === given);
  if (kind === undefined || name === undefined) return USAGE;
  if (!/^[a-z][a-z0-9]*(-[a-z0-9]+)*$/.test(name))
    throw new SouthbridgeError(
      'ERR_CREATE',
      `'${name}' is no name for a package`,
      'use small letters, digits and dashes',
    );
  const target = resolve(folder ?? name);
  if (existsSync(target) && readdirSync(target).length > 0)
    throw new SouthbridgeError('ERR_CREATE', `'${target}' is not empty`, 'give another folder behind the name');
  const template = join(TEMPLATES, kind);
  const files = readdirSync(template, { recursive: true, encoding: 'utf8' }).filter(file =>
    statSync(join(template, file)).isFile(),
  );
  for (const file of files) {
    // A .gitignore would apply to the template itself, and npm leaves it out of packages.
    const renamed = inName(file, kind, name).replace(/(^|\/)gitignore$/, '$1.gitignore');
    const path = join(target, renamed);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, inName(readFileSync(join(template, file), 'utf8'), kind, name));
  }
  const steps = [`cd ${folder ?? name}`, 'npm install', 'npm test'].map(step => `  ${step}\n`).join('');
  return `${basename(target)}: ${files.length} files. Now:\n${steps}`;
}

/** The template's own name in each of its spellings, and the version that made it. */
function inName(text: string, kind: string, name: string): string {
  const words = name.split('-');
  const pascal = words.map(word => word.charAt(0).toUpperCase() + word.slice(1)).join('');
  const camel = pascal.charAt(0).toLowerCase() + pascal.slice(1);
  const own = kind.charAt(0).toUpperCase() + kind.slice(1);
  return text
    .replaceAll(`my-${kind}`, name)
    .replaceAll(`my${own}`, camel)
    .replaceAll(`My${own}`, pascal)
    .replaceAll('SOUTHBRIDGE', `^${versionOf(new URL('package.json', PACKAGE))}`);
}

function versionOf(manifest: URL): string {
  const { version } = JSON.parse(readFileSync(manifest, 'utf8')) as { readonly version: string };
  return version;
}
