/** The devices through which a guest reports that its kernel crashed (QEMU docs/specs/pvpanic): a port, a PCI function. */
import { IsaDevice } from '../core/bus/isa.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import type { SystemControl } from '../core/device/services.ts';
import { PciDevice } from '../core/pci/pci-device.ts';
import { bit, type RegisterHooks, r8, registerMap } from '../core/register/register.ts';

const PANICKED = 1 << 0;
const CRASH_LOADED = 1 << 1;
const BAR_SIZE = 16;

export const pvpanicRegisters = registerMap('pvpanic', {
  EVENTS: r8(0, { PANICKED: bit(0), CRASH_LOADED: bit(1) }),
});

const events = prop.u8({ default: PANICKED | CRASH_LOADED, help: 'events that the guest is told it may report' });
const isaProperties = { ioport: prop.u16({ default: 0x505 }), events } as const;
const pciProperties = { events } as const;

/** Reading tells which events there are, writing reports one; nothing is stored. */
function eventPort(supported: number, system: SystemControl): RegisterHooks<typeof pvpanicRegisters> {
  return {
    EVENTS: {
      read: () => supported,
      write: value => {
        if ((value & PANICKED) !== 0) system.guestPanicked('pause', false);
        else if ((value & CRASH_LOADED) !== 0) system.guestPanicked('run', true);
        return 0;
      },
    },
  };
}

class PvPanicIsa extends IsaDevice<typeof isaProperties> {
  protected override realize(): void {
    const port = this.bank(pvpanicRegisters, eventPort(this.props.events, this.services.system));
    this.ports(this.props.ioport, 1, port, { valid: { max: 1 }, impl: { max: 1 } }, 'pvpanic');
  }
}

class PvPanicPci extends PciDevice<typeof pciProperties> {
  protected override realize(): void {
    this.bind(pvpanicRegisters, eventPort(this.props.events, this.services.system));
  }
}

export const pvpanic = deviceType({
  type: 'pvpanic',
  summary: 'Lets the guest report a kernel panic (ISA)',
  bus: 'ISA',
  parents: ['isa-device', 'device'],
  properties: isaProperties,
  create: PvPanicIsa,
});

export const pvpanicPci = deviceType({
  type: 'pvpanic-pci',
  summary: 'Lets the guest report a kernel panic (PCI)',
  properties: pciProperties,
  pci: { vendor: 0x1b36, device: 0x0011, revision: 1, class: 0x088000 },
  bars: { 0: { size: BAR_SIZE, map: pvpanicRegisters } },
  create: PvPanicPci,
});
