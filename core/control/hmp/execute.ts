import type { Program } from '../program.ts';

/** Executes one line of the human monitor and returns what it prints. */
export async function executeHmp(_program: Program, line: string, _cpu: number | undefined): Promise<string> {
  const [name = ''] = line.trim().split(/\s+/);
  return name === '' ? '' : `unknown command: '${name}'\r\n`;
}
