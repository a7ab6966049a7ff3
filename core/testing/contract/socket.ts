import { qtest } from '../../accel/qtest/accelerator.ts';
import { type DmaTransfer, IsaBus, type IsaDmaChannel } from '../../bus/isa.ts';
import { HostClock, RealtimeClock } from '../../clock/clock.ts';
import type { Bus } from '../../device/bus.ts';
import type { Device } from '../../device/device.ts';
import type { DeviceType } from '../../device/device-type.ts';
import type { DeviceServices, SystemControl } from '../../device/services.ts';
import { SystemBus } from '../../device/system-bus.ts';
import { SouthbridgeError } from '../../errors.ts';
import { IrqLine } from '../../irq/line.ts';
import { Machine } from '../../machine/machine.ts';
import { DEFAULT_CONFIG } from '../../machine/machine-config.ts';
import { machineType } from '../../machine/machine-type.ts';
import type { AddressSpace } from '../../memory/address-space.ts';
import type { FlatRange } from '../../memory/flat-view.ts';
import { MemoryRegion } from '../../memory/memory-region.ts';
import { CFG, COMMAND } from '../../pci/config-space.ts';
import { PciBus } from '../../pci/pci-bus.ts';
import { PciDevice } from '../../pci/pci-device.ts';
import { type SeededRandom, StandIns } from '../stand-ins.ts';
import { subtree } from './saved.ts';

const RAM_SIZE = 2 ** 20;
const MEMORY_BARS = 0xc000_0000;
const IO_BARS = 0xc000;
const MESSAGE_WINDOW = 0xfee0_0000;
/** Milliseconds since 1970 when a socket's clocks read 0. */
const EPOCH_MS = Date.UTC(2020, 1, 29, 12);
/** Bytes that an ISA DMA channel is programmed for. */
const DMA_BLOCK = 512;
const ROOTS = ['PCI', 'ISA', 'System'];

/** Counts who has registered with the world outside, so that what a device leaves behind is seen. */
class Listeners {
  count = 0;

  readonly register = (): (() => void) => {
    this.count++;
    let there = true;
    return () => {
      if (there) this.count--;
      there = false;
    };
  };
}

/**
 * A board with one free socket for any type of device. PCI, ISA and the system bus are there; for another bus a device is
 * plugged in that provides it, of the types `hosts`.
 */
export class Socket {
  readonly machine: Machine;
  readonly isaIrqs = Array.from({ length: 16 }, (_, irq) => new IrqLine(`irq${irq}`));
  readonly listeners = new Listeners();
  /** PCI interrupt inputs that are high. */
  readonly pciIrqs = new Map<number, boolean>();
  readonly #type: DeviceType;
  readonly #hosts: readonly DeviceType[];
  readonly #roots: readonly Bus[];
  readonly #services: DeviceServices;
  readonly #backends: StandIns;
  #nextMemory = MEMORY_BARS;
  #nextIo = IO_BARS;

  private constructor(type: DeviceType, hosts: readonly DeviceType[], backends: StandIns, random: SeededRandom) {
    this.#type = type;
    this.#backends = backends;
    this.#hosts = hosts;
    const board = machineType({
      type: 'contract',
      summary: 'a board with one socket',
      hasCpus: false,
      build: () => {},
    });
    this.machine = new Machine({
      type: board,
      config: { ...DEFAULT_CONFIG, ramSize: RAM_SIZE },
      accelerator: qtest,
      backends,
      random: () => random.below(0x1_0000) / 0x1_0000,
    }).build();
    const { machine } = this;
    this.#services = { ...machine.services, ...this.#world() };
    machine.memoryRoot.add(MemoryRegion.ram(machine.allocateRam('ram', RAM_SIZE)), 0, 0);
    const window = MemoryRegion.io('messages', 0x10_0000, { read: () => 0, write: () => {} });
    machine.memoryRoot.add(window, MESSAGE_WINDOW, 0x2000);
    this.#roots = this.#makeRoots();
  }

  static async make(type: DeviceType, hosts: readonly DeviceType[], random: SeededRandom): Promise<Socket> {
    return new Socket(type, hosts, await StandIns.make(['disk', 'other']), random);
  }

  /**
   * Plugs a device of the type in; its backends are stand-ins.
   * @throws SouthbridgeError where it does not work with these properties, or has no bus here
   */
  async plug(given: Readonly<Record<string, unknown>> = {}): Promise<Device> {
    await this.#backends.refill();
    const device = this.#busFor(this.#type).plug(this.#type, {}, { ...backendsOf(this.#type, 'disk'), ...given });
    this.enable();
    return device;
  }

  /** Gives base address registers addresses, and lets functions answer and master the bus: what firmware does after a reset. */
  enable(): void {
    for (const device of this.machine.devices()) if (device instanceof PciDevice) this.#place(device);
  }

  /** Lets time pass, on all clocks. */
  advance(deltaNs: number): void {
    this.machine.clocks.virtual.advance(deltaNs);
    this.#services.hostClock.expire();
    this.#services.realtimeClock.expire();
  }

  /** Puts the socket's device, and the host below it, in their power-on state. */
  reset(): void {
    for (const phase of ['enter', 'hold', 'exit'] as const) this.machine.system.resetPhase(phase);
  }

  /** Everything a guest can reach, but for RAM and the message window. */
  reachable(): { readonly io: readonly FlatRange[]; readonly memory: readonly FlatRange[] } {
    return {
      io: this.machine.ports.flat.ranges,
      memory: this.machine.memory.flat.ranges.filter(({ start, end }) => start >= RAM_SIZE && end <= MESSAGE_WINDOW),
    };
  }

  /** What differs from an empty board, in words; empty where nothing does. */
  leftovers(): string[] {
    const { io, memory } = this.reachable();
    const { clock, hostClock, realtimeClock } = this.#services;
    const clocks = [clock, hostClock, realtimeClock];
    return [
      ...[...io, ...memory].map(({ region, start }) => `region '${region.name}' is still at 0x${start.toString(16)}`),
      ...clocks.filter(each => each.nextDeadlineNs !== Infinity).map(each => `a timer of the ${each.name} clock`),
      ...this.high().map(line => `${line} is still high`),
      ...(this.listeners.count === 0 ? [] : [`${this.listeners.count} listeners of the machine`]),
      ...[...this.machine.devices()].map(device => `device ${device.path}`),
    ];
  }

  /** Interrupt lines that are high. */
  high(): string[] {
    return [
      ...this.isaIrqs.filter(line => line.level).map(line => `ISA ${line.name}`),
      ...[...this.pciIrqs].filter(([, level]) => level).map(([input]) => `PCI interrupt ${input}`),
    ];
  }

  /** Takes everything out. */
  clear(): void {
    this.machine.system.removeAll();
  }

  /** Lets finish what devices have begun with their backends. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < 3; turn++) await new Promise(resolve => setImmediate(resolve));
  }

  dispose(): void {
    this.machine.dispose();
  }

  #makeRoots(): readonly Bus[] {
    const { machine } = this;
    const parts = {
      services: this.#services,
      home: machine.home,
      memory: machine.memoryRoot,
      io: machine.ioRoot,
      dmaSpace: machine.memory,
    };
    const router = {
      route: (_devfn: number, pin: number) => pin,
      setIrq: (input: number, level: boolean) => void this.pciIrqs.set(input, level),
    };
    const system = machine.system.own(new SystemBus(parts));
    const pci = machine.system.own(new PciBus('pci.0', { ...parts, router }));
    const express = machine.system.own(new PciBus('pcie.0', { ...parts, router, express: true }));
    const isa = machine.system.own(new IsaBus('isa.0', { ...parts, irqs: this.isaIrqs }));
    isa.dmaChannels = Array.from({ length: 8 }, (_, number) => new EagerDmaChannel(number, machine.memory));
    return [system, pci, express, isa];
  }

  /** A bus that takes the type: a root, or one of a host that is plugged in for it. */
  #busFor(type: DeviceType): Bus {
    for (const bus of this.#roots) {
      const fits = bus instanceof PciBus ? bus.express === (type.pci?.expressOnly ?? false) : true;
      if (fits && bus.accepts(type)) return bus;
    }
    for (const bus of this.machine.buses()) if (bus.accepts(type) && !bus.full) return bus;
    // Hosts on the boards' own buses first, so that no host needs a host of its own where that can be helped.
    const byDepth = [...this.#hosts].sort((a, b) => Number(!ROOTS.includes(a.bus)) - Number(!ROOTS.includes(b.bus)));
    for (const host of byDepth) {
      if (host.bus === type.bus || !(ROOTS.includes(host.bus) || host.bus === 'virtio-bus')) continue;
      const bus = this.#busOf(host, type);
      if (bus !== undefined) return bus;
    }
    throw new SouthbridgeError(
      'ERR_CONTRACT_BUS',
      `no bus for '${type.type}': nothing here provides a bus of kind ${type.bus}`,
      'pass the device type that does as one of `hosts`',
    );
  }

  /** A host that does not work by itself is none. */
  #busOf(host: DeviceType, type: DeviceType): Bus | undefined {
    let device: Device;
    try {
      device = this.#busFor(host).plug(host, {}, backendsOf(host, 'other'));
    } catch {
      return undefined;
    }
    for (const each of subtree(device)) {
      const bus = each.buses.find(candidate => candidate.accepts(type) && !candidate.full);
      if (bus !== undefined) return bus;
    }
    device.bus.unplug(device);
    return undefined;
  }

  #place(device: PciDevice): void {
    for (const bar of device.bars) {
      if (bar === undefined || bar.index > 5) continue;
      const { size, space } = bar.declaration;
      const io = space === 'io';
      const at = Math.ceil((io ? this.#nextIo : this.#nextMemory) / size) * size;
      // Enough room for a few devices; large BARs of the next round start over.
      if (io) this.#nextIo = at + size >= 0xf000 ? IO_BARS : at + size;
      else this.#nextMemory = at + size >= 0xf000_0000 ? MEMORY_BARS : at + size;
      device.configWrite(CFG.BAR0 + 4 * bar.index, 4, at);
    }
    device.configWrite(CFG.COMMAND, 2, COMMAND.IO | COMMAND.MEMORY | COMMAND.MASTER);
  }

  /** The world as the device sees it: requests are heard and not carried out, and all clocks are the test's. */
  #world(): Partial<DeviceServices> {
    const { register } = this.listeners;
    const now = (): number => this.machine.clocks.virtual.now();
    const nothing = (): void => {};
    const system: SystemControl = {
      running: true,
      requestReset: nothing,
      requestShutdown: nothing,
      requestSuspend: nothing,
      requestWakeup: nothing,
      guestPanicked: nothing,
      watchdogExpired: nothing,
      pressPowerButton: nothing,
      onPowerdown: register,
      onRunning: register,
      onStopped: register,
      onSuspend: register,
      onWakeup: register,
      injectNmi: nothing,
      emit: nothing,
    };
    return { system, hostClock: new HostClock(now, EPOCH_MS), realtimeClock: new RealtimeClock(now) };
  }
}

/** A channel of a DMA controller that lets a device transfer as soon as it asks, at most a block at a time. */
class EagerDmaChannel implements IsaDmaChannel {
  readonly number: number;
  readonly autoInit = false;
  readonly #memory: AddressSpace;
  #transfer: DmaTransfer | undefined;
  #busy = false;

  constructor(number: number, memory: AddressSpace) {
    this.number = number;
    this.#memory = memory;
  }

  register(transfer: DmaTransfer): void {
    this.#transfer = transfer;
  }

  request(level: boolean): void {
    if (!level || this.#busy) return;
    this.#busy = true;
    this.#transfer?.(this, 0, DMA_BLOCK);
    this.#busy = false;
  }

  readMemory(target: Uint8Array, at: number, position: number, length: number): void {
    this.#memory.readBytes(position, target, at, length);
  }

  writeMemory(source: Uint8Array, at: number, position: number, length: number): void {
    this.#memory.writeBytes(position, source, at, length);
  }
}

/** Ids of stand-ins for all backends that a type may have. */
function backendsOf(type: DeviceType, disk: string): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(type.properties)
      .filter(([, property]) => property.backend !== undefined)
      .map(([name, property]) => [name, property.backend === 'drive' ? disk : `the-${property.backend}`]),
  );
}
