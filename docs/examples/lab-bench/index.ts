import { plugin } from 'southbridge';
import { isaStopwatch } from '../isa-stopwatch/isa-stopwatch.ts';
import { thermometer } from '../thermometer/thermometer.ts';
import { vectorUnit } from '../vector-unit/vector-unit.ts';
import { virtioCrcDevice, virtioCrcPci } from '../virtio-crc/virtio-crc.ts';
import { labBench } from './lab-bench.ts';

export default plugin({
  api: '1.0',
  name: 'lab-bench',
  version: '1.0.0',
  devices: [isaStopwatch, thermometer, vectorUnit, virtioCrcDevice, virtioCrcPci],
  machines: [labBench],
});
