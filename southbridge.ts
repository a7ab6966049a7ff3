#!/usr/bin/env node
import { basename } from 'node:path';
import { bundledProgram } from './core/control/startup/bundle/launch.ts';

/** The name that it was called by; clients derive the architecture from it. */
const called = basename(process.argv[1] ?? '').replace(/\.js$/, '');
const program = called.startsWith('southbridge') || called.startsWith('qemu') ? called : 'southbridge';
const args = process.argv.slice(2);

const bundle = bundledProgram(args);
if (bundle !== undefined) {
  await bundle.run({ program, args, registry: bundle.builtInTypes });
} else {
  const { command } = await import('./core/control/startup/command.ts');
  const { run } = await import('./core/control/startup/run.ts');
  const { builtInTypes } = await import('./machines/built-in.ts');
  const entry = { program, args, registry: builtInTypes };
  if (!(await command(entry))) await run(entry);
}
