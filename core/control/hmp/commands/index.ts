import type { HmpCommand } from '../command.ts';
import { BLOCK_COMMANDS } from './block.ts';
import { DEVICE_COMMANDS } from './devices.ts';
import { DISPLAY_COMMANDS } from './display.ts';
import { MACHINE_COMMANDS } from './machine.ts';
import { MEMORY_COMMANDS } from './memory.ts';
import { MIGRATION_COMMANDS } from './migration.ts';
import { SOUND_COMMANDS } from './sound.ts';

/** The commands of the human monitor, by name, as its help lists them. */
export const HMP_COMMANDS: readonly HmpCommand[] = [
  ...MACHINE_COMMANDS,
  ...MEMORY_COMMANDS,
  ...BLOCK_COMMANDS,
  ...DEVICE_COMMANDS,
  ...DISPLAY_COMMANDS,
  ...MIGRATION_COMMANDS,
  ...SOUND_COMMANDS,
].sort((a, b) => ((a.names[0] ?? '') < (b.names[0] ?? '') ? -1 : 1));
