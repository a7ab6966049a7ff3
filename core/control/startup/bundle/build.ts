/** `npm run build:bundle`: the program in a few files, and V8's code for what a start of a machine runs through. */
import { spawnSync } from 'node:child_process';
import { lstatSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type BuildOptions, build, type Plugin, transform } from 'esbuild';
import { type Chunk, chunksOf, type Recording } from './chunks.ts';
import { BUNDLE, buildStamp, DIST, ROOTS, STAMP } from './launch.ts';
import { KEEP_CODE } from './linker.ts';
import { Sources } from './sources.ts';

const QUIET = ['-display', 'none', '-qmp', 'stdio'];
/** Starts that are to be short. One that this host cannot do, as it has no KVM perhaps, is left out. */
const STARTS = [
  ['-M', 'pc', '-accel', 'qtest', '-nodefaults', ...QUIET],
  ['-M', 'pc', '-accel', 'qtest', ...QUIET],
  ['-M', 'q35', '-accel', 'qtest', '-nodefaults', ...QUIET],
  ['-M', 'pc', '-accel', 'wasm', '-nodefaults', ...QUIET],
  ['-M', 'pc', '-accel', 'kvm', '-nodefaults', ...QUIET],
];
const COMMANDS = ['qmp_capabilities', 'query-status', 'query-block', 'quit'];
/** Where the phases of a start end in what it says. */
const PHASE_ENDS = [/^\{"QMP"/, /^\{"return"/];

/** What a file may use. No module declares names like these, which would stand before them. */
const LOAD = '$load';
const MODULE_URL = '$moduleUrl';
/** V8 does not let code that comes from a cache import modules; what is left to import is Node's own, which can be required. */
const OPTIONS = {
  platform: 'node',
  supported: { 'dynamic-import': false },
  logLevel: 'warning',
} satisfies BuildOptions;
const OPEN = `(function (module, require, ${LOAD}, ${MODULE_URL}) { "use strict";`;
const CLOSE = '})';
const REST = 'rest';

const sources = new Sources(DIST);
const reached = sources.reach([ROOTS.run, ROOTS.types].map(id => id.slice(id.indexOf('#') + 1)));

/** Runs the program on commands. */
function run(args: readonly string[], options: readonly string[], env: NodeJS.ProcessEnv = {}) {
  return spawnSync(process.execPath, [...options, join(DIST, 'machines/program.js'), ...args], {
    input: COMMANDS.map(execute => JSON.stringify({ execute })).join('\n'),
    env: { ...process.env, ...env },
    encoding: 'utf8',
  });
}

function record(args: readonly string[]): Recording | undefined {
  const { status, stdout } = run(args, ['--import', new URL('record.js', import.meta.url).href]);
  if (status !== 0) return undefined;
  const phases: string[][] = [[]];
  const home = pathToFileURL(DIST).href;
  for (const line of stdout.split('\n')) {
    if (PHASE_ENDS[phases.length - 1]?.test(line)) phases.push([]);
    const path = line.startsWith(home) ? line.slice(home.length + 1) : '';
    if (reached.all.has(path)) phases.at(-1)?.push(path);
  }
  return phases;
}

rmSync(BUNDLE, { recursive: true, force: true });
mkdirSync(BUNDLE, { recursive: true });
const starts = STARTS.flatMap(args => {
  const recording = record(args);
  return recording === undefined ? [] : [{ args, recording }];
});
const chunks = chunksOf(starts.map(({ recording }) => recording));
const chunkOf = new Map(chunks.flatMap(({ name, modules }) => modules.map(module => [module, name] as const)));
const identifier = (path: string): string => {
  const chunk = chunkOf.get(path);
  return chunk === undefined ? join(REST, path.replace(/\.js$/, '')) : `${chunk}#${path}`;
};

/** Modules of other chunks are left to the linker, and so is what is imported later; files beside a module are found from it. */
function linked(chunk?: string): Plugin {
  return {
    name: 'linked',
    setup({ onResolve, onLoad }) {
      onResolve({ filter: /^\./ }, ({ path, resolveDir }) => {
        const target = relative(DIST, join(resolveDir, path));
        const owner = chunkOf.get(target);
        return owner === undefined || owner === chunk ? undefined : { path: identifier(target), external: true };
      });
      onLoad({ filter: /\.js$/ }, ({ path }) => {
        const text = sources.rewriteLazy(
          relative(DIST, path),
          target => `${LOAD}(${JSON.stringify(identifier(target))})`,
        );
        const url = `${MODULE_URL}(${JSON.stringify(relative(BUNDLE, path))})`;
        const folder = `require("node:path").join(__dirname, ${JSON.stringify(relative(BUNDLE, dirname(path)))})`;
        return {
          contents: text.replaceAll('import.meta.url', url).replaceAll('import.meta.dirname', folder),
          loader: 'js',
        };
      });
    },
  };
}

/**
 * The text of a bundle with Node's own modules required when they are first used: `node:crypto` alone takes as long to load as
 * all that the greeting needs of ours. In parentheses, as `new f().Socket()` would be `new f()`.
 */
function builtInsLater(text: string): string {
  const names = new Set<string>();
  return text
    .replace(
      /var (import_\w+)=(__toESM\()?(require\("node:[\w/]+"\))(?:,1\))?;/g,
      (_, name: string, whole: string | undefined, required: string) => {
        names.add(name);
        const value = whole === undefined ? required : `(all=>({__proto__:all,default:all}))(${required})`;
        return `var ${name}$;function ${name}$use(){return ${name}$??=${value}}`;
      },
    )
    .replace(/\b(import_\w+)\b(?!\$)/g, (use, name: string) => (names.has(name) ? `(${name}$use())` : use));
}

async function buildChunk({ name, modules }: Chunk): Promise<void> {
  const imports: string[] = [];
  const members: string[] = [];
  for (const [index, path] of modules.entries()) {
    const names = Object.keys((await import(pathToFileURL(join(DIST, path)).href)) as object);
    const pairs = names.map((each, at) => ({ each, local: `m${index}_${at}` }));
    imports.push(`import { ${pairs.map(({ each, local }) => `${each} as ${local}`).join(', ')} } from './${path}';`);
    members.push(
      `${JSON.stringify(path)}: () => ({ ${pairs.map(({ each, local }) => `${each}: ${local}`).join(', ')} }),`,
    );
  }
  const { outputFiles } = await build({
    ...OPTIONS,
    stdin: { contents: `${imports.join('\n')}\nexport const modules = {\n${members.join('\n')}\n};`, resolveDir: DIST },
    outfile: join(BUNDLE, `${name}.cjs`),
    bundle: true,
    format: 'cjs',
    external: ['v86'],
    minifyWhitespace: true,
    write: false,
    banner: { js: OPEN },
    footer: { js: CLOSE },
    plugins: [linked(name)],
  });
  for (const { path, text } of outputFiles) writeFileSync(path, builtInsLater(text));
}

/** What no recorded start has loaded, split so that each part can be had alone. */
async function buildRest(): Promise<void> {
  const roots = [...reached.lazy].filter(path => !chunkOf.has(path));
  const { outputFiles } = await build({
    ...OPTIONS,
    entryPoints: Object.fromEntries(roots.map(path => [identifier(path), join(DIST, path)])),
    outdir: BUNDLE,
    chunkNames: `${REST}/[name]-[hash]`,
    bundle: true,
    splitting: true,
    format: 'esm',
    external: ['v86'],
    write: false,
    plugins: [linked()],
  });
  for (const { path, text } of outputFiles) {
    const { code } = await transform(text, {
      format: 'cjs',
      platform: 'node',
      minifyWhitespace: true,
      banner: OPEN,
      footer: CLOSE,
    });
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path.replace(/\.js$/, '.cjs'), builtInsLater(code));
  }
}

async function buildLauncher(): Promise<void> {
  await build({
    ...OPTIONS,
    entryPoints: [join(DIST, 'core/control/startup/bundle/launch.js')],
    outfile: join(BUNDLE, 'launch.cjs'),
    bundle: true,
    format: 'cjs',
    plugins: [linked('')],
  });
}

/** See southbridge.ts. */
function renameEntry(): void {
  const entry = join(DIST, 'southbridge.js');
  if (lstatSync(entry).isSymbolicLink()) return;
  renameSync(entry, join(DIST, 'southbridge.cjs'));
  symlinkSync('southbridge.cjs', entry);
}

for (const chunk of chunks) await buildChunk(chunk);
await buildRest();
await buildLauncher();
writeFileSync(STAMP, buildStamp());
renameEntry();
for (const { args } of starts) {
  if (run(args, [], { [KEEP_CODE]: '1' }) === undefined)
    throw new Error(`the bundle does not start: ${args.join(' ')}`);
}
