import { Reporter } from './report.ts';
import type { Entry } from './run.ts';

/** A tool beside the emulator: `southbridge create ...`. Returns what to print. */
type Tool = (args: readonly string[], entry: Entry) => string | Promise<string>;

const TOOLS: ReadonlyMap<string, () => Promise<Tool>> = new Map<string, () => Promise<Tool>>([
  ['generate', async () => (await import('../../testing/generate-tool.ts')).generateTool],
  ['test', async () => (await import('../../testing/guest/tool.ts')).testTool],
  ['create', async () => (await import('../../plugin/create.ts')).create],
]);

/** Runs the tool that the first argument names; false where it names none, which an option or a disk image does not. */
export async function command(entry: Entry): Promise<boolean> {
  const [name = '', ...args] = entry.args;
  const load = TOOLS.get(name);
  if (load === undefined) return false;
  try {
    const tool = await load();
    process.stdout.write(await tool(args, entry));
  } catch (error) {
    new Reporter(entry.program).error(error);
    process.exitCode = 1;
  }
  return true;
}
