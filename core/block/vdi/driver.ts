import type { BlockDriver } from '../driver.ts';
import { settingsAlone } from '../reopen-steps.ts';
import { isVdi } from './signature.ts';

export const vdiDriver: BlockDriver = {
  name: 'vdi',
  kind: 'format',
  blocksMigration: true,
  probe: head => (isVdi(head) ? 100 : 0),
  open: async context => (await import('./image.ts')).open(context),
  create: async (graph, options) => (await import('./image.ts')).create(graph, options),
  reopening: settingsAlone,
};
