import type { HmpCommand } from '../command.ts';
import { BLOCK_INFO } from './block.ts';
import { HOST_INFO } from './host.ts';
import { MACHINE_INFO } from './machine.ts';
import { MEMORY_INFO } from './memory.ts';
import { MIGRATION_INFO } from './migration.ts';
import { VIRTIO_INFO } from './virtio.ts';

/** The subcommands of `info`, by name. */
export const INFO_COMMANDS: readonly HmpCommand[] = [
  ...MACHINE_INFO,
  ...MEMORY_INFO,
  ...BLOCK_INFO,
  ...HOST_INFO,
  ...MIGRATION_INFO,
  ...VIRTIO_INFO,
].sort((a, b) => ((a.names[0] ?? '') < (b.names[0] ?? '') ? -1 : 1));
