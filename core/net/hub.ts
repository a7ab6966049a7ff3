import { type NetBackend, NetClient, type NetReceiver } from './net-client.ts';

/** Wires of one number: what comes in on one goes out on all the others. */
export class Hub {
  readonly number: number;
  readonly #ports = new Set<HubPort>();

  constructor(number: number) {
    this.number = number;
  }

  get ports(): ReadonlySet<HubPort> {
    return this.#ports;
  }

  addPort(id: string): HubPort {
    const port = new HubPort(id, this);
    this.#ports.add(port);
    return port;
  }

  removePort(port: HubPort): void {
    this.#ports.delete(port);
  }

  repeat(from: HubPort, frame: Uint8Array, length: number): void {
    for (const port of this.#ports) if (port !== from) port.client.send(frame, length);
  }

  burst(from: HubPort, lasts: boolean): void {
    for (const port of this.#ports) if (port !== from) port.client.burst(lasts);
  }
}

/** `-netdev hubport`. */
export class HubPort implements NetBackend, NetReceiver {
  readonly id: string;
  readonly client: NetClient;
  readonly hub: Hub;

  constructor(id: string, hub: Hub) {
    this.id = id;
    this.hub = hub;
    this.client = new NetClient(id, 'hubport', this);
    this.client.description = `hub=${hub.number}`;
  }

  canReceive(): boolean {
    return true;
  }

  receive(frame: Uint8Array, length: number): boolean {
    this.hub.repeat(this, frame, length);
    return true;
  }

  burst(lasts: boolean): void {
    this.hub.burst(this, lasts);
  }

  dispose(): void {
    this.hub.removePort(this);
    this.client.disconnect();
  }
}
