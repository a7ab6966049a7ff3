/** `npm run build:bundle`: the program in one file, and V8's code for what a start of a PC runs through. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, relative } from 'node:path';
import { build, type Plugin } from 'esbuild';
import { BUNDLE, buildStamp, DIST, KEEP_CODE } from './launch.ts';

const FOLDER = dirname(BUNDLE.program);

/** A module in the bundle still finds what lies beside the file that it was. */
const moduleUrls: Plugin = {
  name: 'module-urls',
  setup({ onLoad }) {
    onLoad({ filter: /\.js$/ }, async ({ path }) => {
      const text = await readFile(path, 'utf8');
      const url = `new URL(${JSON.stringify(relative(FOLDER, path))}, bundleUrl).href`;
      return { contents: text.replaceAll('import.meta.url', url), loader: 'js' };
    });
  },
};

rmSync(FOLDER, { recursive: true, force: true });
mkdirSync(FOLDER, { recursive: true });
await build({
  stdin: {
    contents:
      "export { run } from './core/control/startup/run.js'; export { builtInTypes } from './machines/built-in.js';",
    resolveDir: DIST,
  },
  outfile: BUNDLE.program,
  bundle: true,
  platform: 'node',
  format: 'cjs',
  external: ['v86'],
  // V8 does not let code that comes from a cache import modules; what is left to import is Node's own, which can be required.
  supported: { 'dynamic-import': false },
  minifyWhitespace: true,
  banner: { js: "const bundleUrl = require('node:url').pathToFileURL(__filename).href;" },
  plugins: [moduleUrls],
  logLevel: 'warning',
});
writeFileSync(BUNDLE.stamp, buildStamp());

const commands = ['qmp_capabilities', 'query-status', 'query-block', 'qom-list-types', 'quit'];
const { status, stderr } = spawnSync(
  process.execPath,
  [`${DIST}southbridge.js`, '-accel', 'qtest', '-display', 'none', '-qmp', 'stdio'],
  {
    input: commands.map(execute => JSON.stringify({ execute })).join('\n'),
    env: { ...process.env, [KEEP_CODE]: '1' },
    encoding: 'utf8',
  },
);
if (status !== 0) throw new Error(`the bundled program does not start: ${stderr}`);
