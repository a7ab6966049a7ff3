import { plugin } from 'southbridge';
import { thermometer } from './thermometer.ts';

export default plugin({ api: '1.0', name: 'thermometer', version: '1.0.0', devices: [thermometer] });
