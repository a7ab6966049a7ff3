import { bit, deviceType, PciDevice, prop, type Registers, r32, registerMap, us } from 'southbridge';

/** The registers: one declaration for the model, the driver's side of tests, traces, snapshots, documentation and C headers. */
export const myDeviceRegisters = registerMap('my-device', {
  ID: r32(0x00, {}, { access: 'ro', reset: 0x6d79_6465, doc: 'tells the device' }),
  CONTROL: r32(0x04, { START: bit(0, 'pulse', 'begins a job'), IRQ_ENABLE: bit(1) }),
  STATUS: r32(0x08, { BUSY: bit(0, 'ro'), DONE: bit(1, 'w1c', 'a job is done; write 1 to acknowledge') }),
  VALUE: r32(0x0c, {}, { doc: 'what a job works on, and its result' }),
});

const properties = { latency: prop.u32({ default: 100, help: 'microseconds that a job takes' }) };

/** Doubles a number, and interrupts when that is done. */
class MyDevice extends PciDevice<typeof properties> {
  readonly #regs: Registers<typeof myDeviceRegisters> = this.bind(myDeviceRegisters, {
    CONTROL: { wrote: value => this.#control(value) },
    STATUS: { wrote: () => this.#updateIrq() },
  });
  readonly #job = this.clock.timer('job', () => this.#finish());

  #control(value: number): void {
    if ((value & 1) !== 0 && !this.#regs.STATUS.BUSY) {
      this.#regs.STATUS.BUSY = true;
      this.#job.arm(us(this.props.latency));
    }
    this.#updateIrq();
  }

  #finish(): void {
    this.#regs.VALUE.value *= 2;
    this.#regs.STATUS.BUSY = false;
    this.#regs.STATUS.DONE = true;
    this.#updateIrq();
  }

  #updateIrq(): void {
    this.irq.set(this.#regs.STATUS.DONE && this.#regs.CONTROL.IRQ_ENABLE);
  }
}

export const myDevice = deviceType({
  type: 'my-device',
  summary: 'Doubles numbers',
  properties,
  // 0x1b36 is QEMU's; ask for ids of your own before you publish.
  pci: { vendor: 0x1b36, device: 0x70f0, class: 0x088000, pin: 'A', msi: { vectors: 1 } },
  bars: { 0: { size: 4096, map: myDeviceRegisters } },
  create: MyDevice,
});
