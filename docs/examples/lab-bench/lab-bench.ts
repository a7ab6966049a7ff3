import { I2cBus, IsaBus, type Machine, type MachineType, PciBus, SouthbridgeError } from 'southbridge';
import { pc } from 'southbridge/machines/pc';
import { isaStopwatch } from '../isa-stopwatch/isa-stopwatch.ts';
import { thermometer } from '../thermometer/thermometer.ts';
import { vectorUnit } from '../vector-unit/vector-unit.ts';
import { virtioCrcPci } from '../virtio-crc/virtio-crc.ts';

/** Address of the sensor on the SMBus, where `sensors-detect` looks for one. */
const THERMOMETER = 0x48;

/** A PC with the four example devices in it. */
export const labBench: MachineType = {
  ...pc,
  type: 'lab-bench',
  summary: 'PC with a vector unit, a checksum device, a stopwatch card and a thermometer',
  aliases: [],
  isDefault: false,
  build(machine) {
    pc.build(machine);
    const pci = bus(machine, 'pci.0', PciBus);
    pci.plug(vectorUnit, { addr: '10.0' }, {}, 'vector');
    pci.plug(virtioCrcPci, { addr: '11.0' }, {}, 'crc');
    bus(machine, 'isa.0', IsaBus).plug(isaStopwatch, {}, {}, 'stopwatch');
    bus(machine, 'i2c', I2cBus).plug(thermometer, {}, { address: THERMOMETER, celsius: '36.5' }, 'thermometer');
  },
};

function bus<B>(machine: Machine, name: string, kind: abstract new (...args: never[]) => B): B {
  const found = machine.findBus(name);
  if (found instanceof kind) return found;
  throw new SouthbridgeError('ERR_MACHINE_BUS', `the machine has no bus '${name}'`);
}
