#!/usr/bin/env node
/*
 * Neither imports nor exports anything, so that it can be of either kind: as it comes from the compiler this is an ES module;
 * `npm run build:bundle` renames it to `southbridge.cjs` and leaves a link, and Node, which goes by the file's own name, starts
 * it without the loader of ES modules, which alone takes a sixth of Node's own start (docs/design/start.md).
 */
if (
  typeof require !== 'function' ||
  !require('node:fs').existsSync(`${__dirname}/bundle/launch.cjs`) ||
  !require('./bundle/launch.cjs').launch(require)
)
  void import('./machines/program.ts');
