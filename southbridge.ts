#!/usr/bin/env node
import { basename } from 'node:path';
import { builtInTypes } from './built-in.ts';
import { command } from './core/control/startup/command.ts';
import { run } from './core/control/startup/run.ts';

/** The name that it was called by; clients derive the architecture from it. */
const called = basename(process.argv[1] ?? '').replace(/\.js$/, '');
const program = called.startsWith('southbridge') || called.startsWith('qemu') ? called : 'southbridge';
const args = process.argv.slice(2);

if (!(await command({ program, args, registry: builtInTypes }))) await run({ program, args, registry: builtInTypes });
