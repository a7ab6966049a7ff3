import { createRequire } from 'node:module';
import { invocation, launch } from '../core/control/startup/bundle/launch.ts';

/** The program: from the bundle where there is one that fits, or from its modules. */
if (!launch(createRequire(import.meta.url))) {
  const { command } = await import('../core/control/startup/command.ts');
  const { run } = await import('../core/control/startup/run.ts');
  const { builtInTypes } = await import('./built-in.ts');
  const entry = { ...invocation(), registry: builtInTypes };
  if (!(await command(entry))) await run(entry);
}
