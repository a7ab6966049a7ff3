import { writeFileSync } from 'node:fs';
import type { TypeRegistry } from '../device/registry.ts';
import { didYouMean, SouthbridgeError } from '../errors.ts';
import { PluginHost } from '../plugin/host.ts';
import { cHeader, htmlReference, markdownReference, type RegisterMap, rustConstants } from '../register/register.ts';
import { subtree } from './contract/saved.ts';
import { Socket } from './contract/socket.ts';
import { SeededRandom } from './stand-ins.ts';

const USAGE = `Usage: southbridge generate header|rust|markdown|html [-plugin PATH] [-o FILE] TYPE...

Writes what the register maps of device types say: a C header, Rust constants, a reference page.
`;

type Generator = (maps: readonly RegisterMap[], title: string) => string;

const GENERATORS: ReadonlyMap<string, Generator> = new Map<string, Generator>([
  ['header', maps => maps.map(cHeader).join('\n')],
  ['rust', maps => maps.map(rustConstants).join('\n')],
  ['markdown', (maps, title) => `# ${title}\n\n${maps.map(markdownReference).join('\n\n')}\n`],
  ['html', htmlReference],
]);

/** `southbridge generate`. Returns what is to be printed. */
export async function generateTool(
  args: readonly string[],
  { registry }: { registry(): TypeRegistry },
): Promise<string> {
  const [kind = '', ...rest] = args;
  if (kind === '' || kind.startsWith('-')) return USAGE;
  const generator = GENERATORS.get(kind);
  if (generator === undefined)
    throw new SouthbridgeError(
      'ERR_GENERATE',
      `'${kind}' cannot be generated`,
      didYouMean(kind, GENERATORS.keys()) ?? USAGE,
    );
  const types = registry();
  const plugins = new PluginHost(types);
  const names: string[] = [];
  let output: string | undefined;
  for (let at = 0; at < rest.length; at++) {
    const word = rest[at] ?? '';
    if (word === '-o') output = rest[++at];
    else if (word === '-plugin') await plugins.load(rest[++at] ?? '');
    else names.push(word);
  }
  if (names.length === 0) return USAGE;
  const maps = new Set<RegisterMap>();
  for (const name of names) for (const map of await mapsOf(types, name)) maps.add(map);
  if (maps.size === 0)
    throw new SouthbridgeError(
      'ERR_GENERATE',
      `${names.join(', ')} has no register map`,
      'it serves its registers by code',
    );
  const text = generator([...maps], names.join(', '));
  if (output === undefined) return text;
  writeFileSync(output, text);
  return '';
}

/** The maps of a device type: those of its BARs, and those that it binds once it is plugged in. */
async function mapsOf(types: TypeRegistry, name: string): Promise<ReadonlySet<RegisterMap>> {
  const type = await types.requireDevice(name);
  const maps = new Set(Object.values(type.bars).flatMap(bar => (bar.map === undefined ? [] : [bar.map])));
  await types.loadAll();
  const socket = await Socket.make(type, types.devices(), new SeededRandom());
  try {
    for (const device of subtree(await socket.plug())) for (const bank of device.banks) maps.add(bank.map);
  } finally {
    socket.dispose();
  }
  return maps;
}
