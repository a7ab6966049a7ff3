import type { Chardev } from '../../core/char/chardev.ts';
import { prop } from '../../core/device/property.ts';
import { machineType } from '../../core/machine/machine-type.ts';
import type { IntxRouter } from '../../core/pci/pci-bus.ts';
import { edu } from '../../devices/edu.ts';
import { i440fx, i440fxHost } from '../../devices/i440fx.ts';
import { i8254 } from '../../devices/i8254.ts';
import { isaDebugExit } from '../../devices/isa-debug-exit.ts';
import { isaSerial } from '../../devices/isa-serial.ts';
import { mc146818rtc } from '../../devices/mc146818rtc.ts';
import { piix3 } from '../../devices/piix3.ts';
import { piix4Pm } from '../../devices/piix4-pm.ts';
import { PcInterrupts } from '../../machines/pc-interrupts.ts';
import { mapPcRam } from '../../machines/pc-memory.ts';

const SCI_IRQ = 9;
/** Out of the way of everything else: no firmware moves it. */
const SMBUS_BASE = 0x700;

/** A machine as a parts list: a small PC for one card on the bench, with one serial port and no firmware. */
export const labPc = machineType({
  type: 'lab-pc',
  summary: 'PC with one serial port and the edu card, without firmware',
  defaultRam: 32 * 2 ** 20,
  options: { console: prop.backend<Chardev>('chardev') },
  build(machine, options) {
    const ram = mapPcRam(machine, { below4g: machine.config.ramSize, above4g: 0 });
    const interrupts = new PcInterrupts(machine);

    const router: IntxRouter = {
      route: (devfn, pin) => southbridge.route(devfn, pin),
      setIrq: (input, level) => southbridge.setIrq(input, level),
    };
    const host = machine.system.plug(i440fxHost);
    const pci = host.wire(router);
    pci.plug(i440fx, { addr: '00.0' }).wire(machine.memoryRoot, ram.lowRegion, host.pciMemory);

    const southbridge = pci.plug(piix3, { addr: '01.0', multifunction: true });
    const irqs = interrupts.lines.slice(0, 16);
    const isa = southbridge.wire({ memory: host.pciMemory, io: machine.ioRoot, dmaSpace: machine.memory, irqs });
    interrupts.plugControllers(isa);
    if (!machine.acceleratorPit) {
      const timer = isa.irq(0, 'pit');
      isa.plug(i8254, { iobase: 0x40 }).interrupt.connect(level => timer.set(level));
    }
    isa.plug(mc146818rtc).setTime(Date.now(), () => Date.now());
    isa.plug(isaSerial, { iobase: 0x3f8, irq: 4 }, { chardev: options.console });
    isa.plug(isaDebugExit, { iobase: 0xf4 });
    const sci = isa.irq(SCI_IRQ, 'sci');
    pci.plug(piix4Pm, { addr: '01.3' }, { smb_io_base: SMBUS_BASE }).sci.connect(level => sci.set(level));

    pci.plug(edu, { addr: '04.0' }, { dma_mask: 0xffff_ffffn });
  },
});
