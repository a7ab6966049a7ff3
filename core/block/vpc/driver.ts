import type { BlockDriver } from '../driver.ts';
import { settingsAlone } from '../reopen-steps.ts';
import { fit } from './geometry.ts';
import { isVpc } from './signature.ts';

const SECTOR = 512;

export const vpcDriver: BlockDriver = {
  name: 'vpc',
  kind: 'format',
  blocksMigration: true,
  probe: head => (isVpc(head) ? 100 : 0),
  open: async context => (await import('./image.ts')).open(context),
  create: async (graph, options) => (await import('./image.ts')).create(graph, options),
  reopening: settingsAlone,
  imageSize: size => fit(Math.ceil(size / SECTOR) * SECTOR, false).total * SECTOR,
};
