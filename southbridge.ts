#!/usr/bin/env node
import { basename } from 'node:path';
import { run } from './core/control/startup/run.ts';
import { registerDevices } from './devices/index.ts';
import { registerMachines } from './machines/index.ts';

await run({
  program: basename(process.argv[1] ?? 'southbridge').replace(/\.js$/, ''),
  args: process.argv.slice(2),
  register(registry) {
    registerDevices(registry);
    registerMachines(registry);
  },
});
