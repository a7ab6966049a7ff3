import type { RegisterScript } from '../register-script.ts';
import { virtioNetRegisters } from '../virtio-net-registers.ts';

export const plain = (): RegisterScript => virtioNetRegisters('');
export const multiqueue = (): RegisterScript => virtioNetRegisters(',mq=on,rss=on,hash=on,vectors=20');
export const fast = (): RegisterScript => virtioNetRegisters(',speed=10000,duplex=full,host_mtu=9000,guest_rsc_ext=on');
export const hash = (): RegisterScript => virtioNetRegisters(',hash=on,mrg_rxbuf=off,ctrl_vlan=off,gso=off,packed=on');
export const bare = (): RegisterScript =>
  virtioNetRegisters(
    ',status=off,ctrl_vq=off,guest_announce=off,event_idx=off,indirect_desc=off,rx_queue_size=1024,tx_queue_size=1024',
  );
