import { plugin } from 'southbridge';
import { virtioCrcDevice, virtioCrcPci } from './virtio-crc.ts';

export default plugin({ api: '1.0', name: 'virtio-crc', version: '1.0.0', devices: [virtioCrcDevice, virtioCrcPci] });
