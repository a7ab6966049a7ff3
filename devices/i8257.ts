import { type DmaTransfer, IsaDevice, type IsaDmaChannel } from '../core/bus/isa.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { MemoryRegion } from '../core/memory/memory-region.ts';
import { field, type StateValues } from '../core/state/fields.ts';

const CHANNELS = 4;
/** Registers beyond the channels' own, by number (8237A datasheet, figure 5). */
const REG = {
  STATUS_COMMAND: 0,
  REQUEST: 1,
  SINGLE_MASK: 2,
  MODE: 3,
  CLEAR_FLIP_FLOP: 4,
  MASTER_CLEAR: 5,
  CLEAR_MASK: 6,
  ALL_MASK: 7,
} as const;
/** Command bits that this controller has no use for on a PC: memory to memory, timing, priorities, polarities. */
const COMMAND_UNSUPPORTED = 0xd8;
const COMMAND_DISABLE = 0x04;
const MODE = { TYPE: 0x0c, TYPE_READ: 0x08, AUTO_INIT: 0x10, DECREMENT: 0x20 } as const;
/** The page registers: which port, counted from the page base, is which channel's. */
const PAGE_CHANNELS: Readonly<Record<number, number>> = { 1: 2, 2: 3, 3: 1, 7: 0 };

const properties = {
  base: prop.i32({ default: 0x00 }),
  'page-base': prop.i32({ default: 0x80 }),
  'pageh-base': prop.i32({ default: 0x480 }),
  dshift: prop.i32({ default: 0 }),
};

const channelState = {
  baseAddress: field.u16(),
  baseCount: field.u16(),
  address: field.u32(),
  position: field.u32(),
  page: field.u8(),
  pageHigh: field.u8(),
  mode: field.u8(),
  ended: field.bool(),
};

/** One of a PC's two 8237A DMA controllers: 8-bit channels 0 to 3, or 16-bit channels 4 to 7. */
export class I8257 extends IsaDevice<typeof properties> {
  readonly #channels = Array.from({ length: CHANNELS }, (_, index) =>
    this.state(1, channelState, { name: `channel${index}` }),
  );
  readonly #s = this.state(1, {
    status: field.u8(),
    command: field.u8(),
    /** Bits 7:4 belong to no channel; they read as ones until the mask is written. */
    mask: field.u8(0xff),
    flipFlop: field.bool(),
  });
  readonly #handlers: (DmaTransfer | undefined)[] = new Array(CHANNELS).fill(undefined);
  readonly #shift = this.props.dshift;
  readonly #service = this.clock.timer('service', () => this.#run());

  /** The channels as devices use them, by their number on this controller. */
  readonly channels: readonly IsaDmaChannel[] = Array.from({ length: CHANNELS }, (_, index) => this.#channelFor(index));

  protected override realize(): void {
    const { base, 'page-base': page, 'pageh-base': pageHigh } = this.props;
    const bytes = { impl: { min: 1, max: 1 } };
    const channelPorts = MemoryRegion.io(
      'dma-chan',
      8 << this.#shift,
      { read: offset => this.#readChannel(offset), write: (offset, _size, value) => this.#writeChannel(offset, value) },
      bytes,
    );
    const controlPorts = MemoryRegion.io(
      'dma-cont',
      8 << this.#shift,
      { read: offset => this.#readControl(offset), write: (offset, _size, value) => this.#writeControl(offset, value) },
      bytes,
    );
    this.isaBus.io.add(channelPorts, base);
    this.isaBus.io.add(controlPorts, base + (8 << this.#shift));
    this.onUnrealize(() => [channelPorts, controlPorts].forEach(region => this.isaBus.io.remove(region)));
    this.#pagePorts(page, 'dma-page', channel => ({ get: () => channel.page, set: value => (channel.page = value) }));
    if (pageHigh >= 0)
      this.#pagePorts(pageHigh, 'dma-pageh', channel => ({
        get: () => channel.pageHigh,
        set: value => (channel.pageHigh = value),
      }));
  }

  /** Software may leave the page registers alone that no channel has. */
  #pagePorts(
    base: number,
    name: string,
    access: (channel: StateValues<typeof channelState>) => { get(): number; set(value: number): void },
  ): void {
    for (const [port, index] of Object.entries(PAGE_CHANNELS)) {
      const channel = this.#channels[index];
      if (channel === undefined) continue;
      const { get, set } = access(channel);
      this.ports(
        base + Number(port),
        1,
        { read: get, write: (_offset, _size, value) => set(value) },
        { impl: { min: 1, max: 1 } },
        name,
      );
    }
  }

  #channelFor(index: number): IsaDmaChannel {
    const channel = this.#channels[index];
    if (channel === undefined) throw new RangeError(`the 8237 has no channel ${index}`);
    const isAutoInit = (): boolean => (channel.mode & MODE.AUTO_INIT) !== 0;
    return {
      number: index,
      get autoInit() {
        return isAutoInit();
      },
      register: transfer => {
        this.#handlers[index] = transfer;
      },
      request: level => this.#request(index, level),
      readMemory: (target, at, position, length) =>
        this.#copy(channel, position, length, (address, done, step) => this.dma.read(address, target, at + done, step)),
      writeMemory: (source, at, position, length) =>
        this.#copy(channel, position, length, (address, done, step) =>
          this.dma.write(address, source, at + done, step),
        ),
    };
  }

  /** Bus address of byte `position` of the channel's block: the page, and a counter that wraps within 64 Ki transfers. */
  #address(channel: StateValues<typeof channelState>, position: number): number {
    const page = ((channel.pageHigh & 0x7f) << 24) | ((channel.page & (this.#shift === 0 ? 0xff : 0xfe)) << 16);
    const step = (channel.mode & MODE.DECREMENT) !== 0 ? -position : position;
    return page + (((channel.address << this.#shift) + step) & ((0x1_0000 << this.#shift) - 1));
  }

  #copy(
    channel: StateValues<typeof channelState>,
    position: number,
    length: number,
    move: (address: number, done: number, step: number) => boolean,
  ): void {
    if ((channel.mode & MODE.DECREMENT) !== 0) {
      for (let done = 0; done < length; done++) move(this.#address(channel, position + done), done, 1);
      return;
    }
    const span = 0x1_0000 << this.#shift;
    for (let done = 0; done < length; ) {
      const address = this.#address(channel, position + done);
      const step = Math.min(length - done, span - (address % span));
      move(address, done, step);
      done += step;
    }
  }

  #request(index: number, level: boolean): void {
    const mask = 1 << (index + 4);
    const s = this.#s;
    s.status = level ? s.status | mask : s.status & ~mask;
    // The transfer happens once the access that caused the request is over.
    if (level) this.#service.arm(0);
  }

  #run(): void {
    const s = this.#s;
    let more = false;
    for (let index = 0; index < CHANNELS; index++) {
      if ((s.status & (1 << (index + 4))) === 0 || (s.mask & (1 << index)) !== 0 || (s.command & COMMAND_DISABLE) !== 0)
        continue;
      this.#serve(index);
      more ||= (s.status & (1 << (index + 4))) !== 0 && (s.mask & (1 << index)) === 0;
    }
    if (more) this.#service.arm(1000);
  }

  #serve(index: number): void {
    const channel = this.#channels[index];
    const handler = this.#handlers[index];
    if (channel === undefined || handler === undefined) return;
    const size = (channel.baseCount + 1) << this.#shift;
    const position = handler(this.#channelFor(index), channel.position, size);
    channel.position = position;
    if (position < size) return;
    // Terminal count (datasheet, "Terminal Count").
    this.#s.status |= 1 << index;
    if ((channel.mode & MODE.AUTO_INIT) !== 0) {
      channel.position = 0;
      channel.address = channel.baseAddress;
    } else {
      this.#s.mask |= 1 << index;
    }
  }

  #readChannel(offset: number): number {
    const register = offset >> this.#shift;
    const channel = this.#channels[register >> 1];
    if (channel === undefined) return 0xff;
    const isCount = (register & 1) !== 0;
    const high = this.#s.flipFlop;
    this.#s.flipFlop = !high;
    const moved = channel.position >> this.#shift;
    const value = isCount
      ? channel.baseCount - moved
      : channel.address + ((channel.mode & MODE.DECREMENT) !== 0 ? -moved : moved);
    return (value >> (high ? 8 : 0)) & 0xff;
  }

  #writeChannel(offset: number, value: number): void {
    const register = offset >> this.#shift;
    const channel = this.#channels[register >> 1];
    if (channel === undefined) return;
    const high = this.#s.flipFlop;
    this.#s.flipFlop = !high;
    const merge = (old: number): number => (high ? (old & 0x00ff) | (value << 8) : (old & 0xff00) | value);
    if ((register & 1) !== 0) channel.baseCount = merge(channel.baseCount);
    else channel.baseAddress = merge(channel.baseAddress);
    // Both halves are in: the current registers follow.
    if (high) {
      channel.address = channel.baseAddress;
      channel.position = 0;
    }
  }

  #readControl(offset: number): number {
    const s = this.#s;
    switch (offset >> this.#shift) {
      case REG.STATUS_COMMAND: {
        const { status } = s;
        s.status &= 0xf0; // reading clears the terminal counts
        return status;
      }
      case REG.REQUEST:
        return s.mask;
      default:
        return 0;
    }
  }

  #writeControl(offset: number, value: number): void {
    const s = this.#s;
    switch (offset >> this.#shift) {
      case REG.STATUS_COMMAND:
        if ((value & COMMAND_UNSUPPORTED) !== 0) this.log.unimplemented(`command 0x${value.toString(16)}`);
        else s.command = value;
        break;
      case REG.REQUEST: {
        const index = value & 3;
        if ((value & 4) !== 0) s.status |= 1 << (index + 4);
        else s.status &= ~(1 << (index + 4));
        s.status &= ~(1 << index);
        break;
      }
      case REG.SINGLE_MASK:
        if ((value & 4) !== 0) s.mask |= 1 << (value & 3);
        else s.mask &= ~(1 << (value & 3));
        break;
      case REG.MODE: {
        const channel = this.#channels[value & 3];
        if (channel !== undefined) channel.mode = value;
        break;
      }
      case REG.CLEAR_FLIP_FLOP:
        s.flipFlop = false;
        break;
      case REG.MASTER_CLEAR:
        Object.assign(s, { flipFlop: false, mask: 0xff, status: 0, command: 0 });
        break;
      case REG.CLEAR_MASK:
        s.mask = 0;
        break;
      case REG.ALL_MASK:
        s.mask = value & 0x0f;
        break;
      default:
        break;
    }
    this.#service.arm(0);
  }
}

export const i8257 = deviceType({
  type: 'i8257',
  summary: '8237A DMA controller',
  bus: 'ISA',
  parents: ['isa-device', 'device'],
  userCreatable: false,
  properties,
  create: I8257,
});
