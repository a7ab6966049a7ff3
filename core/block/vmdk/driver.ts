import type { BlockDriver } from '../driver.ts';
import { settingsAlone } from '../reopen-steps.ts';
import { isDescriptor, isEsx, isHosted } from './signature.ts';

export const vmdkDriver: BlockDriver = {
  name: 'vmdk',
  kind: 'format',
  blocksMigration: true,
  supportsBacking: true,
  probe: head => (isHosted(head) || isEsx(head) || isDescriptor(head) ? 100 : 0),
  open: async context => (await import('./image.ts')).open(context),
  create: async (graph, options) => (await import('./create.ts')).create(graph, options),
  reopening: settingsAlone,
};
