#!/usr/bin/env node
import { basename } from 'node:path';
import { run } from './core/control/startup/run.ts';
import { registerDevices } from './devices/index.ts';
import { registerMachines } from './machines/index.ts';

/** The name that it was called by; clients derive the architecture from it. */
const called = basename(process.argv[1] ?? '').replace(/\.js$/, '');

await run({
  program: called.startsWith('southbridge') || called.startsWith('qemu') ? called : 'southbridge',
  args: process.argv.slice(2),
  register(registry) {
    registerDevices(registry);
    registerMachines(registry);
  },
});
