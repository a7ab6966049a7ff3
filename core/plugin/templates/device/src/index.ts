import { plugin } from 'southbridge';
import { myDevice } from './my-device.ts';

export { myDevice, myDeviceRegisters } from './my-device.ts';

export default plugin({ api: '1.0', devices: [myDevice] });
