import type { Registers } from '../../core/register/register.ts';
import type { Bench, PciProbe } from '../../core/testing/bench.ts';
import { type Nvme, nvme } from '../../devices/nvme/nvme.ts';
import { ADMIN, nvmeRegisters } from '../../devices/nvme/registers.ts';

export const PAGE = 4096;
const DOORBELLS = 0x1000;
/** Where the driver has its queues and buffers. */
export const QUEUES_AT = 0x10_0000;
export const DATA_AT = 0x20_0000;

export interface Command {
  readonly opcode: number;
  readonly flags?: number;
  readonly nsid?: number;
  readonly prp1?: number;
  readonly prp2?: number | bigint;
  readonly dwords?: readonly number[];
}

export interface Completion {
  readonly status: number;
  readonly result: number;
}

export interface Ring {
  readonly id: number;
  readonly submissions: number;
  readonly completions: number;
  readonly size: number;
  tail: number;
  head: number;
  phase: number;
}

export const tick = (): Promise<void> => new Promise(resolve => setImmediate(resolve));

/** A small driver: queues, doorbells and phases, as the specification has them. */
export class Driver {
  readonly lab: Bench;
  readonly probe: PciProbe<Nvme>;
  readonly regs: Registers<typeof nvmeRegisters>;
  readonly admin: Ring;
  readonly #queuesAt: number;
  #cid = 0;
  readonly #done = new Map<number, Completion>();

  /** @param queuesAt where it has its queues, each two pages */
  constructor(lab: Bench, props: Readonly<Record<string, unknown>>, queuesAt = QUEUES_AT) {
    this.lab = lab;
    this.#queuesAt = queuesAt;
    this.probe = lab.pci(nvme, props);
    this.regs = this.probe.bar(0, nvmeRegisters);
    this.admin = this.#ring(0, 16);
  }

  get memory(): DataView {
    return this.lab.ram.view;
  }

  #ring(id: number, size: number): Ring {
    const submissions = this.#queuesAt + id * 2 * PAGE;
    this.lab.ram.bytes.fill(0, submissions, submissions + 2 * PAGE);
    return { id, submissions, completions: submissions + PAGE, size, tail: 0, head: 0, phase: 1 };
  }

  start(messages = true): void {
    if (messages) this.probe.enableMsix();
    const { regs, admin } = this;
    regs.AQA.value = ((admin.size - 1) << 16) | (admin.size - 1);
    regs.ASQ.value = BigInt(admin.submissions);
    regs.ACQ.value = BigInt(admin.completions);
    regs.CC.value = (4 << 20) | (6 << 16) | 1;
  }

  doorbell(offset: number, value: number): void {
    this.probe.port(0).write(DOORBELLS + offset, 4, value);
  }

  write(ring: Ring, { opcode, flags = 0, nsid = 0, prp1 = 0, prp2 = 0, dwords = [] }: Command): number {
    const at = ring.submissions + ring.tail * 64;
    const cid = this.#cid++ & 0xffff;
    this.lab.ram.bytes.fill(0, at, at + 64);
    this.memory.setUint32(at, opcode | (flags << 8) | (cid << 16), true);
    this.memory.setUint32(at + 4, nsid, true);
    this.memory.setBigUint64(at + 24, BigInt(prp1), true);
    this.memory.setBigUint64(at + 32, BigInt(prp2), true);
    for (const [index, value] of dwords.entries()) this.memory.setUint32(at + 40 + 4 * index, value, true);
    ring.tail = (ring.tail + 1) % ring.size;
    return cid;
  }

  /** Takes what has ended. */
  poll(ring: Ring): void {
    const before = ring.head;
    for (;;) {
      const at = ring.completions + ring.head * 16;
      const word = this.memory.getUint16(at + 14, true);
      if ((word & 1) !== ring.phase) break;
      const cid = this.memory.getUint16(at + 12, true);
      this.#done.set(cid, { status: word >>> 1, result: this.memory.getUint32(at, true) });
      ring.head = (ring.head + 1) % ring.size;
      if (ring.head === 0) ring.phase ^= 1;
    }
    if (ring.head !== before) this.doorbell(ring.id * 8 + 4, ring.head);
  }

  submit(ring: Ring, command: Command): number {
    const cid = this.write(ring, command);
    this.doorbell(ring.id * 8, ring.tail);
    return cid;
  }

  ended(ring: Ring, cid: number): Completion | undefined {
    this.poll(ring);
    const completion = this.#done.get(cid);
    this.#done.delete(cid);
    return completion;
  }

  async wait(ring: Ring, cid: number): Promise<Completion> {
    for (;;) {
      const completion = this.ended(ring, cid);
      if (completion !== undefined) return completion;
      await tick();
    }
  }

  run(ring: Ring, command: Command): Promise<Completion> {
    return this.wait(ring, this.submit(ring, command));
  }

  async status(ring: Ring, command: Command): Promise<number> {
    return (await this.run(ring, command)).status;
  }

  async ioQueue(id: number, size = 8): Promise<Ring> {
    const ring = this.#ring(id, size);
    const dword10 = ((size - 1) << 16) | id;
    const { completions, submissions } = ring;
    await this.run(this.admin, { opcode: ADMIN.CREATE_CQ, prp1: completions, dwords: [dword10, 3 | (id << 16)] });
    await this.run(this.admin, { opcode: ADMIN.CREATE_SQ, prp1: submissions, dwords: [dword10, 1 | (id << 16)] });
    return ring;
  }

  data(length: number, at = DATA_AT): Buffer {
    return Buffer.from(this.lab.ram.bytes.slice(at, at + length));
  }

  fill(byte: number, length: number, at = DATA_AT): void {
    this.lab.ram.bytes.fill(byte, at, at + length);
  }
}

/** A command for blocks of namespace 1. */
export const rw = (opcode: number, block: number, blocks: number, prp1 = DATA_AT, prp2 = 0): Command => ({
  ...{ opcode, nsid: 1, prp1, prp2, dwords: [block, 0, blocks - 1] },
});
