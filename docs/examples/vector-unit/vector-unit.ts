import { bit, choice, deviceType, PciDevice, type Registers, r32, r64, registerMap, us } from 'southbridge';

/** An accelerator with a ring of jobs, as the README beside this file specifies it. */
export const vectorUnitRegisters = registerMap('vector-unit', {
  ID: r32(0x00, {}, { access: 'ro', reset: 0x7663_0001, doc: 'what it is, and its version' }),
  CONTROL: r32(0x04, { ENABLE: bit(0), RESET: bit(1, 'pulse') }),
  STATUS: r32(0x08, { BUSY: bit(0), HALTED: bit(1) }, { access: 'ro' }),
  ERROR: r32(0x0c, { CODE: choice(0, 3, { none: 0, ring: 1, job: 2, memory: 3 }) }, { access: 'ro' }),
  RING_BASE: r64(0x10, {}, { doc: 'bus address of the ring' }),
  RING_SIZE: r32(0x18, {}, { doc: 'jobs in the ring: a power of two, at most 1024' }),
  HEAD: r32(0x1c, {}, { access: 'ro', doc: 'the job that the unit takes next' }),
  TAIL: r32(0x20, {}, { doc: 'doorbell: the first place without a job' }),
  DONE: r32(0x24, {}, { access: 'ro', doc: 'jobs done since the reset' }),
});

export const VECTOR = { DONE: 0, ERROR: 1 } as const;
export const OPERATION = { ADD: 0, MULTIPLY: 1, SUM: 2 } as const;
export const JOB_SIZE = 32;
export const JOB_INTERRUPT = 1 << 8;
const MAX_JOBS = 1024;
const MAX_ELEMENTS = 4096;
const ELEMENTS_PER_US = 64;

type ErrorCode = 'ring' | 'job' | 'memory';

interface Job {
  readonly a: number;
  readonly b: number;
  readonly result: number;
  readonly elements: number;
  readonly operation: number;
  readonly interrupt: boolean;
}

class VectorUnit extends PciDevice {
  readonly #regs: Registers<typeof vectorUnitRegisters> = this.bind(vectorUnitRegisters, {
    CONTROL: { wrote: (_value, _previous, _index, written) => this.#control(written) },
    TAIL: { wrote: () => this.#look() },
  });
  readonly #timer = this.clock.timer('job', () => this.#finish());
  readonly #bytes = new Uint8Array(JOB_SIZE);
  readonly #job = new DataView(this.#bytes.buffer);
  readonly #a = new Uint32Array(MAX_ELEMENTS);
  readonly #b = new Uint32Array(MAX_ELEMENTS);

  #control(written: number): void {
    if ((written & 2) === 0) {
      this.#look();
      return;
    }
    this.#timer.cancel();
    const { CONTROL, STATUS, ERROR, HEAD, TAIL, DONE } = this.#regs;
    for (const register of [CONTROL, STATUS, ERROR, HEAD, TAIL, DONE]) register.value = 0;
  }

  /** Begins the next job, where there is one and nothing is in the way. */
  #look(): void {
    const { CONTROL, STATUS, RING_SIZE, HEAD, TAIL } = this.#regs;
    if (!CONTROL.ENABLE || STATUS.BUSY || STATUS.HALTED || HEAD.value === TAIL.value) return;
    const size = RING_SIZE.value;
    if (size === 0 || size > MAX_JOBS || (size & (size - 1)) !== 0 || TAIL.value >= size) {
      this.#halt('ring');
      return;
    }
    STATUS.BUSY = true;
    const job = this.#fetch();
    this.#timer.arm(us(1 + (job?.elements ?? 0) / ELEMENTS_PER_US));
  }

  /** The job at HEAD, copied once: what the driver does to it later has no effect on this fetch. */
  #fetch(): Job | undefined {
    const { RING_BASE, HEAD } = this.#regs;
    if (!this.dma.read(Number(RING_BASE.value) + HEAD.value * JOB_SIZE, this.#bytes)) return undefined;
    const address = (at: number): number => this.#job.getUint32(at, true) + this.#job.getUint32(at + 4, true) * 2 ** 32;
    const flags = this.#job.getUint32(28, true);
    return {
      a: address(0),
      b: address(8),
      result: address(16),
      elements: Math.min(this.#job.getUint32(24, true), MAX_ELEMENTS + 1),
      operation: flags & 0xff,
      interrupt: (flags & JOB_INTERRUPT) !== 0,
    };
  }

  #finish(): void {
    const { STATUS, RING_SIZE, HEAD, DONE } = this.#regs;
    STATUS.BUSY = false;
    const job = this.#fetch();
    const error = job === undefined ? 'memory' : this.#run(job);
    if (job === undefined || error !== undefined) {
      this.#halt(error ?? 'memory');
      return;
    }
    HEAD.value = (HEAD.value + 1) & (RING_SIZE.value - 1);
    DONE.value++;
    if (job.interrupt) this.#signal(VECTOR.DONE);
    this.#look();
  }

  #run({ a, b, result, elements, operation }: Job): ErrorCode | undefined {
    if (elements === 0 || elements > MAX_ELEMENTS || operation > OPERATION.SUM) return 'job';
    const bytes = elements * 4;
    const left = this.#a;
    const right = this.#b;
    if (!this.dma.read(a, new Uint8Array(left.buffer), 0, bytes)) return 'memory';
    if (operation !== OPERATION.SUM && !this.dma.read(b, new Uint8Array(right.buffer), 0, bytes)) return 'memory';
    let written = bytes;
    if (operation === OPERATION.SUM) {
      let sum = 0;
      for (let at = 0; at < elements; at++) sum = (sum + (left[at] ?? 0)) >>> 0;
      left[0] = sum;
      written = 4;
    } else {
      const add = operation === OPERATION.ADD;
      for (let at = 0; at < elements; at++) {
        const [x = 0, y = 0] = [left[at], right[at]];
        left[at] = add ? x + y : Math.imul(x, y);
      }
    }
    return this.dma.write(result, new Uint8Array(left.buffer), 0, written) ? undefined : 'memory';
  }

  /** Stops at the job that is wrong, until software resets the unit. */
  #halt(code: ErrorCode): void {
    this.#regs.STATUS.HALTED = true;
    this.#regs.ERROR.CODE = code;
    this.log.guestError(`halted at job ${this.#regs.HEAD.value}: ${code}`);
    this.#signal(VECTOR.ERROR);
  }

  #signal(vector: number): void {
    if (this.messageSignalled) this.notify(vector);
  }
}

export const vectorUnit = deviceType({
  type: 'vector-unit',
  summary: 'Accelerator for vectors of 32-bit integers: a ring of jobs, DMA and MSI-X',
  pci: { vendor: 0x1b36, device: 0x70f0, class: 0x12_0000, msix: { vectors: 2, bar: 2 } },
  bars: { 0: { size: 4096, map: vectorUnitRegisters } },
  create: VectorUnit,
});
