import { SouthbridgeError } from '../errors.ts';
import { type CpuName, cpuModelNamed } from './model.ts';

/** What `-cpu MODEL,+a,-b,c=on,d=5` says. */
export interface CpuOption {
  readonly cpu: CpuName;
  /** Properties by name, in QEMU's spelling with dashes; text or, from `+` and `-`, true and false. */
  readonly properties: ReadonlyMap<string, string | boolean>;
  /** What the user should know, in QEMU's words. */
  readonly warnings: readonly string[];
}

/**
 * Reads QEMU's CPU model syntax. `-feature` wins over `+feature`, and both over `feature=`, wherever they stand.
 * @throws SouthbridgeError ERR_CPU_MODEL for an unknown model, ERR_CPU_OPTION for a value that is none
 */
export function parseCpuOption(text: string): CpuOption {
  const [name = '', ...parts] = text.split(',');
  const cpu = cpuModelNamed(name);
  const properties = new Map<string, string | boolean>();
  const plus: string[] = [];
  const minus: string[] = [];
  const warnings: string[] = [];
  for (const part of parts) {
    if (part === '') continue;
    if (part.startsWith('+')) plus.push(part.slice(1));
    else if (part.startsWith('-')) minus.push(part.slice(1));
    else assign(part, properties, plus, minus, warnings);
  }
  if (warnings.length > 0)
    warnings.push("Compatibility of ambiguous CPU model strings won't be kept on future QEMU versions");
  for (const feature of plus) properties.set(dashed(feature), true);
  for (const feature of minus) properties.set(dashed(feature), false);
  return { cpu, properties, warnings };
}

const dashed = (name: string): string => name.replaceAll('_', '-');

function assign(
  part: string,
  properties: Map<string, string | boolean>,
  plus: string[],
  minus: string[],
  warnings: string[],
): void {
  const at = part.indexOf('=');
  const name = dashed(at < 0 ? part : part.slice(0, at));
  const value = at < 0 ? 'on' : part.slice(at + 1);
  for (const [sign, list] of [
    ['+', plus],
    ['-', minus],
  ] as const) {
    if (!list.includes(name)) continue;
    warnings.push(`Ambiguous CPU model string. Don't mix both "${sign}${name}" and "${name}=${value}"`);
  }
  if (name === 'tsc-freq') properties.set('tsc-frequency', String(frequency(value)));
  else properties.set(name, value);
}

/** Hertz with a metric suffix. */
function frequency(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([kmgt]?)$/i.exec(text);
  if (match === null) throw new SouthbridgeError('ERR_CPU_OPTION', `bad numerical value ${text}`);
  const power = ['', 'k', 'm', 'g', 't'].indexOf((match[2] ?? '').toLowerCase());
  return Math.trunc(Number(match[1]) * 1000 ** power);
}
