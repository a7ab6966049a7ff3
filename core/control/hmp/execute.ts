import type { CpuState } from '../../accel/cpu-state.ts';
import { HelpWanted } from '../options/opts.ts';
import type { Program } from '../program.ts';
import { ROOT } from '../qapi/types.ts';
import type { CommandName } from '../qmp/catalog.ts';
import { HmpUsage, parseArguments } from './arguments.ts';
import { type HmpCommand, type HmpContext, hmp } from './command.ts';
import { HMP_COMMANDS } from './commands/index.ts';
import { INFO_COMMANDS } from './info/index.ts';

/** Executes one line of the human monitor and returns what it prints, lines ending in CR LF. */
export async function executeHmp(program: Program, line: string, cpu: number | undefined): Promise<string> {
  const context = hmpContext(program, cpu ?? 0);
  return (await executeIn(context, line)).replaceAll('\n', '\r\n');
}

export function hmpContext(program: Program, cpu: number, history: () => readonly string[] = () => []): HmpContext {
  return {
    history,
    program,
    cpu,
    cpuState(): CpuState | undefined {
      const { machine } = program;
      return machine.vcpu(this.cpu)?.readState();
    },
    async qmp(name: CommandName, args = {}) {
      const bound = (await program.commands()).get(name);
      if (bound === undefined) throw new Error(`${name} is not supported by this program`);
      return bound.handle(bound.command.args.read(args as never, ROOT), { outOfBand: false } as never);
    },
  };
}

/** Declarations with numbers, which may be expressions of registers. */
const USES_NUMBERS = /:[ilM]/;

const find = (table: readonly HmpCommand[], name: string): HmpCommand | undefined =>
  table.find(command => command.names.includes(name));

/** Executes a line; newlines are plain. */
export async function executeIn(context: HmpContext, line: string): Promise<string> {
  const text = line.trim();
  if (text === '') return '';
  const [, name = '', rest = ''] = /^([\w?-]+)(.*)$/s.exec(text) ?? [];
  if (name === 'help' || name === '?') return help(rest.trim());
  if (name === 'info') {
    const [topic = '', ...more] = rest.trim().split(/\s+/);
    if (topic === '') return helpFor(INFO_COMMANDS, 'info ');
    const command = find(INFO_COMMANDS, topic);
    if (command === undefined) return `unknown command: 'info ${topic}'\n`;
    return run(command, `info ${topic}`, context, more.join(' '));
  }
  const command = find(HMP_COMMANDS, name);
  if (command === undefined) return `unknown command: '${name === '' ? text : name}'\n`;
  return run(command, name, context, rest);
}

async function run(command: HmpCommand, typed: string, context: HmpContext, text: string): Promise<string> {
  try {
    const cpu = USES_NUMBERS.test(command.spec) ? context.cpuState() : undefined;
    return (await command.run(context, parseArguments(command.names.join('|'), command.spec, text, cpu))) ?? '';
  } catch (error) {
    if (error instanceof HelpWanted) return '';
    if (error instanceof HmpUsage) return `${error.message}\nTry "help ${typed}" for more information\n`;
    return `Error: ${error instanceof Error ? error.message : String(error)}\n`;
  }
}

const nothing = (): undefined => undefined;
const HELP = hmp('help|?', 'name:S?', '[cmd]', 'show the help', nothing);
const INFO = hmp('info', 'item:s?', '[subcommand]', 'show what is', nothing);
const byName = ({ names: [a = ''] }: HmpCommand, { names: [b = ''] }: HmpCommand): number => (a < b ? -1 : 1);

const usage = (command: HmpCommand, prefix: string): string =>
  `${prefix}${command.names.join('|')} ${command.params} -- ${command.help}\n`;
const helpFor = (table: readonly HmpCommand[], prefix: string): string =>
  table.map(command => usage(command, prefix)).join('');

function help(topic: string): string {
  const [first = '', second] = topic.split(/\s+/);
  if (first === '') return helpFor([...HMP_COMMANDS, HELP, INFO].sort(byName), '');
  if (first === 'info') {
    if (second === undefined) return helpFor(INFO_COMMANDS, 'info ');
    const command = find(INFO_COMMANDS, second);
    return command === undefined ? `unknown command: 'info ${second}'\n` : usage(command, 'info ');
  }
  const command = find(HMP_COMMANDS, first);
  return command === undefined ? `unknown command: '${first}'\n` : usage(command, '');
}
