import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { QtestClient } from '../../core/testing/traffic/qtest-port.ts';

const BIOS_SIZE = 0x1_0000;
const PCI = { ADDRESS: 0xcf8, DATA: 0xcfc, COMMAND: 4, BAR0: 0x10, SLOT_3: 0x8000_1800, ENABLE: 7 } as const;
const BAR = { MEMORY: 0xfea0_0000, IO: 0xc000 } as const;
const RING = 0x10_0000;
const RECEIVE_RING = 0x12_0000;
const BUFFERS = 0x20_0000;
const BUFFER = 0x800;
const E1000 = {
  DESCRIPTORS: 4096,
  EOP_IFCS_RS: 0x0b00_0000,
  TCTL_EN: 2,
  RCTL: 0x0400_801a,
  PHY_LOOPBACK: 0x0420_4140,
} as const;
/** QEMU's card takes nothing for so long after its receiver has been enabled. */
const QEMU_FLUSH_MS = 1200;
const VIRTIO = { DESCRIPTORS: 256, ANY_LAYOUT: 0x0800_0000, HEADER: 10, DRIVER_OK: 7 } as const;

/** A machine whose CPU only halts, and its qtest server. */
export class CardsAlone {
  readonly #process: ChildProcess;
  readonly #qtest: QtestClient;

  private constructor(process: ChildProcess, qtest: QtestClient) {
    this.#process = process;
    this.#qtest = qtest;
  }

  /** @param command the program and its accelerator; @param device the card in slot 3, whose hub has an open end */
  static async start(command: readonly string[], device: string, folder: string): Promise<CardsAlone> {
    const bios = join(folder, 'halt.bin');
    const image = Buffer.alloc(BIOS_SIZE);
    image.set([0xfa, 0xf4, 0xeb, 0xfd], BIOS_SIZE - 16); // cli; hlt; jmp $-1
    writeFileSync(bios, image);
    const path = join(folder, `qtest-${process.hrtime.bigint()}`);
    const [program = '', ...first] = command;
    const options = `-M pc -m 64 -nodefaults -display none -bios ${bios} -netdev hubport,hubid=0,id=n0 -netdev hubport,hubid=0,id=n1 -device ${device},netdev=n0,addr=3,romfile= -qtest unix:${path},server=on,wait=off`;
    const child = spawn(program, [...first, ...options.split(' ')], { stdio: ['ignore', 'ignore', 'ignore'] });
    for (let attempt = 0; !existsSync(path) && attempt < 600; attempt++) await sleep(50);
    await sleep(200);
    return new CardsAlone(child, await QtestClient.connect(path));
  }

  stop(): void {
    this.#qtest.close();
    this.#process.kill('SIGKILL');
  }

  /** Nanoseconds a frame of `size` bytes that an e1000 sends to nobody, or with `loop` also receives itself. */
  async e1000(size: number, loop: boolean, rounds: number): Promise<number> {
    const { DESCRIPTORS } = E1000;
    await this.#place(BAR.MEMORY);
    const put = (register: number, value: number): Promise<string> =>
      this.#qtest.command(`writel ${BAR.MEMORY + register} ${value}`);
    const sending = Buffer.alloc(DESCRIPTORS * 16);
    const receiving = Buffer.alloc(DESCRIPTORS * 16);
    for (let at = 0; at < sending.length; at += 16) {
      sending.writeUInt32LE(BUFFERS, at);
      sending.writeUInt32LE(E1000.EOP_IFCS_RS | size, at + 8);
      receiving.writeUInt32LE(BUFFERS + BUFFER, at);
    }
    await this.#fill(BUFFERS, Buffer.alloc(size, 0xff));
    await put(0, 0x40); // CTRL.SLU
    await put(0x100, loop ? E1000.RCTL : 0);
    if (loop) {
      await put(0x20, E1000.PHY_LOOPBACK); // MDIC
      await sleep(QEMU_FLUSH_MS);
    }
    for (const [base, at] of [
      [0x2800, RECEIVE_RING],
      [0x3800, RING],
    ] as const) {
      await put(base, at);
      await put(base + 4, 0);
      await put(base + 8, DESCRIPTORS * 16);
    }
    await put(0x400, E1000.TCTL_EN);
    let best = Number.POSITIVE_INFINITY;
    for (let round = 0; round < rounds; round++) {
      await this.#fill(RING, sending);
      await this.#fill(RECEIVE_RING, receiving);
      for (const [register, value] of [
        [0x2810, 0],
        [0x2818, DESCRIPTORS - 1],
        [0x3818, 0],
        [0x3810, 0],
      ] as const)
        await put(register, value);
      const began = performance.now();
      await put(0x3818, DESCRIPTORS - 1);
      // Ours gives others a turn before it has moved them all, and goes on in guest time, which stands still here.
      for (let turns = 0; (await this.#head(loop)) !== DESCRIPTORS - 1; turns++) {
        if (turns === DESCRIPTORS) throw new Error('the card has stopped half-way');
        await this.#qtest.command('clock_step');
      }
      best = Math.min(best, performance.now() - began);
    }
    return (best * 1e6) / (DESCRIPTORS - 1);
  }

  /** The descriptor that the card is at: RDH or TDH. */
  async #head(receiving: boolean): Promise<number> {
    return Number(await this.#qtest.command(`readl ${BAR.MEMORY + (receiving ? 0x2810 : 0x3810)}`));
  }

  /** Nanoseconds a frame of `size` bytes that virtio-net sends to nobody. */
  async virtio(size: number, rounds: number): Promise<number> {
    const { DESCRIPTORS, HEADER } = VIRTIO;
    await this.#place(BAR.IO | 1);
    const out = (size: 'b' | 'w' | 'l', register: number, value: number): Promise<string> =>
      this.#qtest.command(`out${size} ${BAR.IO + register} ${value}`);
    await out('b', 18, 0);
    await out('b', 18, 3);
    await out('l', 4, VIRTIO.ANY_LAYOUT);
    await out('w', 14, 1);
    await out('l', 8, RING >> 12);
    const ring = Buffer.alloc(DESCRIPTORS * 18 + 4);
    for (let index = 0; index < DESCRIPTORS; index++) {
      ring.writeUInt32LE(BUFFERS, index * 16);
      ring.writeUInt32LE(HEADER + size, index * 16 + 8);
      ring.writeUInt16LE(index, DESCRIPTORS * 16 + 4 + index * 2);
    }
    ring.writeUInt16LE(1, DESCRIPTORS * 16); // no interrupts
    await this.#fill(RING, ring);
    await this.#fill(BUFFERS, Buffer.alloc(HEADER + size, 0));
    await out('b', 18, VIRTIO.DRIVER_OK);
    const available = RING + DESCRIPTORS * 16 + 2;
    const used = RING + 0x2000 + 2;
    let index = 0;
    const turn = async (frames: number): Promise<number> => {
      index = (index + frames) & 0xffff;
      await this.#qtest.command(`writew ${available} ${index}`);
      const began = performance.now();
      await out('w', 16, 1);
      while (Number(await this.#qtest.command(`readw ${used}`)) !== index);
      return performance.now() - began;
    };
    let [best, nothing] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
    for (let round = 0; round < rounds * 8; round++) {
      best = Math.min(best, await turn(DESCRIPTORS));
      nothing = Math.min(nothing, await turn(0));
    }
    return ((best - nothing) * 1e6) / DESCRIPTORS;
  }

  async #place(bar: number): Promise<void> {
    const config = async (offset: number, value: number): Promise<void> => {
      await this.#qtest.command(`outl ${PCI.ADDRESS} ${PCI.SLOT_3 + offset}`);
      await this.#qtest.command(`outl ${PCI.DATA} ${value}`);
    };
    await config(PCI.BAR0, bar);
    await config(PCI.COMMAND, PCI.ENABLE);
  }

  async #fill(address: number, bytes: Buffer): Promise<void> {
    await this.#qtest.command(`b64write ${address} ${bytes.length} ${bytes.toString('base64')}`);
  }
}
