import type { BlockDriver } from '../driver.ts';
import { settingsAlone } from '../reopen-steps.ts';
import { isVhdx } from './signature.ts';

export const vhdxDriver: BlockDriver = {
  name: 'vhdx',
  kind: 'format',
  blocksMigration: true,
  probe: head => (isVhdx(head) ? 100 : 0),
  open: async context => (await import('./image.ts')).open(context),
  create: async (graph, options) => (await import('./create.ts')).create(graph, options),
  reopening: settingsAlone,
};
