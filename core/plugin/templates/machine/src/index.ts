import { extendMachine, plugin, prop } from 'southbridge';
import { edu } from 'southbridge/devices/edu';
import { pc } from 'southbridge/machines/pc';

/** The same as my-machine.json, for what data cannot say. */
export const myMachine = extendMachine(pc, {
  type: 'my-machine',
  summary: 'PC with an educational device',
  defaultRam: 128 * 2 ** 20,
  options: { mask: prop.u64({ default: 0xffff_ffffn, help: 'address lines of the edu card' }) },
  build(machine, { mask }) {
    machine.findBus('pci.0')?.plug(edu, { addr: '1e.0' }, { dma_mask: mask });
  },
});

export default plugin({ api: '1.0', machines: [myMachine] });
