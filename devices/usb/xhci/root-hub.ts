import type { Registers } from '../../../core/register/register.ts';
import type { UsbDevice } from '../../../core/usb/device.ts';
import type { UsbEndpoint } from '../../../core/usb/endpoint.ts';
import { PID } from '../../../core/usb/packet.ts';
import { type PortHandler, UsbPort } from '../../../core/usb/port.ts';
import { SPEED_MASK } from '../../../core/usb/speed.ts';
import { CC, EP_STATE, PLS, PORT, SPEED_ID, TRB, type xhciRegisters } from './registers.ts';
import type { Slots } from './slots.ts';

const USB2_SPEEDS = SPEED_MASK.low | SPEED_MASK.full | SPEED_MASK.high;

/** A root port as software sees it: a connector has one at USB 2 and one at SuperSpeed. */
interface RootPort {
  readonly connector: UsbPort;
  readonly speeds: number;
}

export interface RootHubHost {
  readonly regs: Registers<typeof xhciRegisters>;
  readonly slots: Slots;
  event(interrupter: number, type: number, parameter: number, status: number, control: number): void;
}

/** Connectors and ports (xHCI 1.1, section 4.19). */
export class RootHub implements PortHandler {
  readonly connectors: readonly UsbPort[];
  readonly #ports: readonly RootPort[];
  readonly #host: RootHubHost;

  /**
   * @param usb2 how many of the connectors have a USB 2 port
   * @param usb3 how many have a SuperSpeed port
   */
  constructor(host: RootHubHost, usb2: number, usb3: number, superSpeedFirst: boolean) {
    this.#host = host;
    this.connectors = Array.from({ length: Math.max(usb2, usb3) }, (_, index) => {
      const slow = index < usb2 ? USB2_SPEEDS : 0;
      return new UsbPort(this, index, slow | (index < usb3 ? SPEED_MASK.super : 0));
    });
    const side = (count: number, speeds: number): RootPort[] =>
      this.connectors.slice(0, count).map(connector => ({ connector, speeds }));
    const [slow, fast] = [side(usb2, USB2_SPEEDS), side(usb3, SPEED_MASK.super)];
    this.#ports = superSpeedFirst ? [...fast, ...slow] : [...slow, ...fast];
  }

  /** The connector of port `number`, counted from 1. */
  connector(number: number): UsbPort | undefined {
    return this.#ports[number - 1]?.connector;
  }

  #running(): boolean {
    return !this.#host.regs.USBSTS.HCH;
  }

  /** All ports as they are after a reset of the controller. */
  reset(): void {
    this.#ports.forEach((_, index) => {
      this.#update(index, true);
    });
    this.#host.regs.USBSTS.PCD = false;
  }

  /** The root port that `connector`'s device is seen at. */
  #portOf(connector: UsbPort): number {
    const speed = connector.device?.speed;
    if (speed === undefined) return -1;
    return this.#ports.findIndex(port => port.connector === connector && (port.speeds & SPEED_MASK[speed]) !== 0);
  }

  /** Software wrote `written` to PORTSC of port `index`, counted from 0. */
  written(index: number, previous: number, written: number): void {
    const root = this.#ports[index];
    const register = this.#host.regs.PORTSC.at(index);
    if (root === undefined) {
      register.value = 0;
      return;
    }
    if ((written & (PORT.RESET | PORT.WARM_RESET)) !== 0) {
      register.value = previous;
      this.#reset(index, (written & PORT.WARM_RESET) !== 0);
      return;
    }
    if ((written & PORT.STROBE) === 0) return;
    const state = PORT.PLS(written);
    if (state === PLS.U0 && register.PLS !== PLS.U0) {
      register.PLS = PLS.U0;
      this.#notify(index, 'PLC');
    } else if (state === PLS.U3 && register.PLS < PLS.U3) register.PLS = PLS.U3;
  }

  #reset(index: number, warm: boolean): void {
    const root = this.#ports[index];
    const device = root?.connector.device;
    if (root === undefined || !device?.attached || this.#portOf(root.connector) !== index) return;
    device.resetSignal();
    const register = this.#host.regs.PORTSC.at(index);
    if (device.speed === 'super' && warm) register.WRC = true;
    register.PLS = PLS.U0;
    register.PED = true;
    this.#notify(index, 'PRC');
  }

  /** A change bit that was not yet set is an event. */
  #notify(index: number, change: 'CSC' | 'PRC' | 'PLC'): void {
    const register = this.#host.regs.PORTSC.at(index);
    if (register[change]) return;
    register[change] = true;
    this.#host.regs.USBSTS.PCD = true;
    if (this.#running()) this.#host.event(0, TRB.PORT_STATUS_CHANGE, (index + 1) * 2 ** 24, CC.SUCCESS << 24, 0);
  }

  #update(index: number, connected: boolean): void {
    const root = this.#ports[index];
    const register = this.#host.regs.PORTSC.at(index);
    const device = connected ? root?.connector.device : undefined;
    register.value = 0;
    register.PP = true;
    register.PLS = PLS.RX_DETECT;
    if (root !== undefined && device?.attached && (root.speeds & SPEED_MASK[device.speed]) !== 0) {
      register.CCS = true;
      register.SPEED = SPEED_ID[device.speed];
      // SuperSpeed links train by themselves.
      register.PED = device.speed === 'super';
      register.PLS = device.speed === 'super' ? PLS.U0 : PLS.POLLING;
    }
    this.#notify(index, 'CSC');
  }

  portAttached(port: UsbPort): void {
    const index = this.#portOf(port);
    if (index >= 0) this.#update(index, true);
  }

  portDetached(port: UsbPort): void {
    this.#host.slots.detach(port);
    const index = this.#portOf(port);
    if (index >= 0) this.#update(index, false);
  }

  childDetached(_port: UsbPort, child: UsbDevice): void {
    this.#host.slots.detach(child.port);
  }

  /** A suspended link resumes (section 4.15.2.1). */
  wakeup(port: UsbPort): void {
    const index = this.#portOf(port);
    if (index < 0) return;
    const register = this.#host.regs.PORTSC.at(index);
    if (register.PLS !== PLS.U3) return;
    register.PLS = PLS.RESUME;
    this.#notify(index, 'PLC');
  }

  ready(_port: UsbPort, endpoint: UsbEndpoint, stream: number): void {
    if (!this.#running()) return;
    const slot = this.#host.slots.ofPort(endpoint.device.port);
    const id = endpoint.number === 0 ? 1 : 2 * endpoint.number + (endpoint.pid === PID.IN ? 1 : 0);
    const pipe = slot?.endpoints[id];
    if (pipe?.state === EP_STATE.RUNNING) pipe.kick(pipe.retry?.streamId ?? stream);
  }
}
