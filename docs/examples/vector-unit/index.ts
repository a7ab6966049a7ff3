import { plugin } from 'southbridge';
import { vectorUnit } from './vector-unit.ts';

export default plugin({ api: '1.0', name: 'vector-unit', version: '1.0.0', devices: [vectorUnit] });
