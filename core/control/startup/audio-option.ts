import type { TypeRegistry } from '../../device/registry.ts';
import type { Machine } from '../../machine/machine.ts';
import type { JsonObject } from '../json/value.ts';
import { OptionError } from '../options/opts.ts';
import { AUDIO_DRIVERS } from './audiodevs.ts';
import { addDevice, deviceRequest } from './devices.ts';

/** The backend's id where `-audio` gives none. */
const DEFAULT_ID = 'audiodev0';

interface Card {
  readonly summary: string;
  /** Device types, the one that makes the sound last; none where there is no such card. */
  readonly types: readonly string[];
}

/** What `-audio model=` names. */
const CARDS: ReadonlyMap<string, Card> = new Map([
  ['ac97', { summary: 'Intel 82801AA AC97 Audio', types: ['AC97'] }],
  ['es1370', { summary: 'ENSONIQ AudioPCI ES1370', types: ['ES1370'] }],
  ['hda', { summary: 'Intel HD Audio', types: ['intel-hda', 'hda-duplex'] }],
  ['sb16', { summary: 'Creative Sound Blaster 16', types: ['sb16'] }],
]);

/** `-audio model=help`. */
export const CARD_LIST = `Valid sound card names (comma separated):\n${[...CARDS]
  .map(([name, { summary }]) => `${name.padEnd(11)} ${summary}\n`)
  .join('')}`;

/** `-audio help`, `-audiodev help`. */
export const AUDIO_DRIVER_LIST = `Available audio drivers:\n${AUDIO_DRIVERS.map(name => `${name}\n`).join('')}`;

/**
 * The backend's half of `-audio`, as `-audiodev` would give it.
 * @throws OptionError with QEMU's words
 */
export function audioBackend(value: JsonObject): JsonObject {
  const { model, ...backend } = value;
  if (typeof model !== 'string') throw new OptionError("Parameter 'model' is missing");
  if (!CARDS.has(model)) throw new OptionError(`Unknown sound card name \`${model}'`, CARD_LIST.trimEnd());
  return { id: DEFAULT_ID, ...backend };
}

/** The card's half. */
export async function addSoundCard(machine: Machine, registry: TypeRegistry, value: JsonObject): Promise<void> {
  const { model, id = DEFAULT_ID } = value;
  const { types } = CARDS.get(String(model)) ?? { types: [] };
  for (const [index, driver] of types.entries()) {
    const audiodev = index === types.length - 1 ? { audiodev: String(id) } : {};
    await addDevice(machine, registry, deviceRequest({ driver, ...audiodev }), false);
  }
}
