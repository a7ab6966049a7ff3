import fc from 'fast-check';
import t from 'tap';
import { ms } from '../../../core/clock/units.ts';
import { bench } from '../../../core/testing/bench.ts';
import { usbEhci } from '../../../devices/usb/ehci/ehci.ts';
import { ehciRegisters } from '../../../devices/usb/ehci/registers.ts';
import { usbTablet } from '../../../devices/usb/hid/pointer.ts';
import { xhciRegisters } from '../../../devices/usb/xhci/registers.ts';
import { qemuXhci } from '../../../devices/usb/xhci/xhci.ts';

const BASE = 0x1000;
const WORDS = 256;
/** DMA accesses that a controller may make for one doorbell, or in one frame. */
const LIMIT = 200_000;

/** Words that look like pointers into the same memory, with the low bits that have meaning there, and any others. */
const word = fc.oneof(
  fc.nat(0xffff_ffff),
  fc.tuple(fc.nat(31), fc.nat(15)).map(([slot, low]) => BASE + 32 * slot + low),
  fc.constantFrom(
    0x0008_0180,
    0x0008_8080,
    0x0008_0d80,
    0x8000_0000,
    1,
    0x0040_8000,
    0x0400,
    0x0c01,
    0x1801,
    0x2401,
    0x0c21,
  ),
);
const memory = fc.array(word, { minLength: WORDS, maxLength: WORDS });

t.test('hostile EHCI schedules: bounded work in each frame', async t => {
  fc.assert(
    fc.property(memory, words => {
      const lab = bench();
      const card = lab.pci(usbEhci);
      card.device.buses[0]?.plug(usbTablet, {}, {});
      const view = new DataView(lab.ram.bytes.buffer, lab.ram.bytes.byteOffset);
      words.forEach((value, index) => view.setUint32(BASE + 4 * index, value, true));
      const regs = card.bar(0, ehciRegisters);
      regs.PORTSC.at(0).RESET = true;
      regs.PORTSC.at(0).RESET = false;
      regs.PERIODICLISTBASE.value = BASE;
      regs.ASYNCLISTADDR.value = BASE;
      let accesses = 0;
      card.device.dma.fault = () => {
        accesses++;
        return false;
      };
      regs.USBCMD.value = 0x31;
      for (let frame = 0; frame < 8; frame++) {
        accesses = 0;
        lab.clock.advance(ms(1));
        // A frame has up to four looks at the asynchronous list.
        if (accesses > 4 * LIMIT) throw new Error(`${accesses} accesses in one frame`);
      }
      lab.dispose();
    }),
    { numRuns: 40 },
  );
  t.pass();
});

t.test('hostile xHCI rings: bounded work for each doorbell', async t => {
  fc.assert(
    fc.property(memory, fc.nat(31), fc.nat(255), (words, target, slot) => {
      const lab = bench();
      const card = lab.pci(qemuXhci);
      card.device.buses[0]?.plug(usbTablet, {}, {});
      const view = new DataView(lab.ram.bytes.buffer, lab.ram.bytes.byteOffset);
      words.forEach((value, index) => view.setUint32(BASE + 4 * index, value, true));
      const regs = card.bar(0, xhciRegisters);
      view.setUint32(0x8000, 0x9000, true);
      view.setUint32(0x8008, 64, true);
      regs.ERSTSZ.at(0).value = 1;
      regs.ERSTBA_LOW.at(0).value = 0x8000;
      regs.ERSTBA_HIGH.at(0).value = 0;
      regs.ERDP_LOW.at(0).value = 0x9000;
      regs.DCBAAP_LOW.value = BASE;
      regs.CRCR_LOW.value = BASE | 1;
      regs.CRCR_HIGH.value = 0;
      regs.USBCMD.RS = true;
      let accesses = 0;
      card.device.dma.fault = () => {
        accesses++;
        return false;
      };
      const port = card.port(0);
      for (const [doorbell, value] of [
        [0, 0],
        [1, target],
        [(slot % 64) + 1, target],
        [0, 0],
      ] as const) {
        accesses = 0;
        port.write(0x2000 + 4 * doorbell, 4, value);
        lab.clock.advance(ms(1));
        if (accesses > LIMIT) throw new Error(`${accesses} accesses for a doorbell`);
      }
      lab.dispose();
    }),
    { numRuns: 40 },
  );
  t.pass();
});
