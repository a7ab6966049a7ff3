import { plugin } from 'southbridge';
import { isaStopwatch } from './isa-stopwatch.ts';

export default plugin({ api: '1.0', name: 'isa-stopwatch', version: '1.0.0', devices: [isaStopwatch] });
