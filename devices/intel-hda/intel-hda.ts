import { HdaBus, type HdaCodec, type HdaController } from '../../core/bus/hda.ts';
import { type DeviceContext, type DeviceTypeInfo, deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { field } from '../../core/state/fields.ts';
import { FIRST_OUTPUT, hdaRegisters, STREAMS } from './registers.ts';
import { Stream, streamState } from './stream.ts';

const REGISTERS_SIZE = 0x2000;
const BAR_SIZE = 0x4000;
/** Signals on the link's wires are those of HD Audio, not of AC'97 (ICH6 datasheet, section 18.1.19). */
const HDCTL = 0x40;
const WALL_CLOCK_MHZ = 24;
const VERB_INDIRECT = 1 << 27;
/** Commands before the response ring is full, while software lets it fill (RINTCNT 0 counts as 256). */
const RING = 256;

const properties = {
  debug: prop.u32({ default: 0 }),
  msi: prop.onOffAuto({ default: 'auto' }),
  old_msi_addr: prop.bool({ default: false }),
};

/** Intel's High Definition Audio controller: command and response rings, and the streams of its codecs. */
class IntelHda extends PciDevice<typeof properties> implements HdaController {
  readonly #bank = this.bank(hdaRegisters, {
    GCTL: { wrote: () => this.#globalControl() },
    WAKEEN: { wrote: () => this.#update() },
    STATESTS: { wrote: () => this.#update() },
    INTCTL: { wrote: () => this.#update() },
    WALCLK: { read: () => Math.floor(((this.clock.now() - this.#s.wallBaseNs) * WALL_CLOCK_MHZ) / 1000) % 2 ** 32 },
    CORBWP: { wrote: () => this.#runCommands() },
    CORBCTL: { wrote: () => this.#runCommands() },
    RIRBWP: { wrote: value => this.#resetResponses(value) },
    RIRBSTS: { wrote: (_value, previous) => this.#responsesAcknowledged(previous) },
    ICIS: { wrote: () => this.#immediateCommand() },
    SDCTL: { wrote: (_value, previous, index) => this.#streamControl(index, previous) },
  });
  readonly #regs = this.#bank.regs;
  readonly #s = this.state(1, { responses: field.u32(), wallBaseNs: field.number() });
  readonly #streams = Array.from(
    { length: STREAMS },
    (_, index) => new Stream(this.dma, this.state(1, streamState, { name: `stream${index}` })),
  );
  readonly #link: HdaBus;

  constructor(context: DeviceContext<typeof properties>) {
    super({ ...context, type: withMessages(context) });
    this.config.set8(HDCTL, 1);
    this.#link = this.addBus(
      new HdaBus(busName(this, context.id), this, {
        services: context.services,
        home: context.bus.home,
        owner: this,
      }),
    );
  }

  protected override realize(): void {
    const container = MemoryRegion.container('intel-hda-container', BAR_SIZE);
    const registers = MemoryRegion.io('intel-hda', REGISTERS_SIZE, this.shielded(this.#bank), {
      impl: { min: 1, max: 4, unaligned: true },
    });
    container.add(registers, 0);
    container.add(MemoryRegion.alias('intel-hda-alias', registers, 0, REGISTERS_SIZE), REGISTERS_SIZE);
    this.bar(0, container, { size: BAR_SIZE });
  }

  protected override resetHold(): void {
    this.#s.wallBaseNs = this.clock.now();
    for (const stream of this.#streams) stream.stop();
    this.#regs.STATESTS.SDIWAKE = this.#link.codecs.reduce((bits, { address }) => bits | (1 << address), 0);
    this.#update();
  }

  protected override restored(): void {
    for (let index = 0; index < STREAMS; index++) if (this.#regs.SDCTL.at(index).RUN) this.#load(index, false);
  }

  // HdaController

  response(codec: HdaCodec, solicited: boolean, value: number): void {
    const { ICIS, IRII, RIRBCTL, RIRBWP, RIRBSTS } = this.#regs;
    if (ICIS.ICB) {
      IRII.value = value;
      Object.assign(ICIS, { ICB: false, IRV: true, IRRADD: codec.address });
      return;
    }
    if (!RIRBCTL.RUN) return;
    RIRBWP.WP = (RIRBWP.WP + 1) & 0xff;
    const at = base(this.#regs.RIRBLBASE.value, this.#regs.RIRBUBASE.value) + 8 * RIRBWP.WP;
    const written = this.dma.write32(at, value) && this.dma.write32(at + 4, codec.address | (solicited ? 0 : 0x10));
    if (!written && RIRBCTL.OIC) RIRBSTS.OIS = true;
    this.#s.responses++;
    if (RIRBCTL.RINTCTL && (this.#responsesFull || this.#commandsDone)) RIRBSTS.RINTFL = true;
    this.#update();
  }

  transfer(number: number, output: boolean, bytes: Uint8Array): boolean {
    const first = output ? FIRST_OUTPUT : 0;
    for (let index = first; index < first + FIRST_OUTPUT; index++) {
      const control = this.#regs.SDCTL.at(index);
      const stream = this.#streams[index];
      if (control.STRM !== number) continue;
      if (stream === undefined || !stream.loaded) return false;
      const position = this.#regs.SDLPIB.at(index);
      const moved = stream.move(bytes, output, position.value);
      position.value = moved.position;
      this.#reportPosition(index, moved.position);
      if (moved.interrupt) {
        control.BCIS = true;
        this.#update();
      }
      return true;
    }
    return false;
  }

  // Commands (section 4.4)

  get #responsesFull(): boolean {
    return this.#s.responses >= (this.#regs.RINTCNT.N || RING);
  }

  get #commandsDone(): boolean {
    return this.#regs.CORBRP.RP === this.#regs.CORBWP.WP;
  }

  #immediateCommand(): void {
    if (this.#regs.ICIS.ICB) this.#send(this.#regs.ICOI.value);
  }

  #runCommands(): void {
    const { CORBCTL, CORBRP, CORBLBASE, CORBUBASE } = this.#regs;
    for (let turns = 0; turns < RING; turns++) {
      if (!CORBCTL.RUN || this.#commandsDone || this.#responsesFull) return;
      CORBRP.value = (CORBRP.RP + 1) & 0xff;
      this.#send(this.dma.read32(base(CORBLBASE.value, CORBUBASE.value) + 4 * CORBRP.RP));
    }
  }

  #send(verb: number): void {
    if ((verb & VERB_INDIRECT) !== 0) return;
    this.#link.at(verb >>> 28)?.command((verb >>> 20) & 0x7f, verb & 0xf_ffff);
  }

  #resetResponses(value: number): void {
    if ((value & 0x8000) !== 0) this.#regs.RIRBWP.WP = 0;
  }

  #responsesAcknowledged(previous: number): void {
    this.#update();
    if ((previous & 1) === 0 || this.#regs.RIRBSTS.RINTFL) return;
    this.#s.responses = 0;
    this.#runCommands();
  }

  // Streams (section 4.5)

  #streamControl(index: number, previous: number): void {
    const control = this.#regs.SDCTL.at(index);
    const wasRunning = (previous & 2) !== 0;
    const number = control.SRST ? (previous >>> 20) & 0x0f : control.STRM;
    if (control.SRST) Object.assign(control, { value: 0x2000_0001 });
    if (control.RUN !== wasRunning) {
      if (control.RUN) this.#load(index, true);
      else this.#streams[index]?.stop();
      for (const codec of this.#link.codecs) codec.streamChanged(number, control.RUN, index >= FIRST_OUTPUT);
    }
    this.#update();
  }

  #load(index: number, fromBeginning: boolean): void {
    const { SDBDPL, SDBDPU, SDLVI, SDCBL, SDLPIB } = this.#regs;
    const list = base(SDBDPL.at(index).value, SDBDPU.at(index).value);
    this.#streams[index]?.load(list, SDLVI.at(index).LVI + 1, SDCBL.at(index).value, fromBeginning);
    if (fromBeginning) SDLPIB.at(index).value = 0;
  }

  /** Software may have positions in memory (section 3.6.1). */
  #reportPosition(index: number, position: number): void {
    const { DPLBASE, DPUBASE } = this.#regs;
    if (DPLBASE.ENABLE) this.dma.write32(base(DPLBASE.value & ~1, DPUBASE.value) + 8 * index, position);
  }

  // Reset and interrupts

  /** Section 4.2.2: the controller's registers and the codecs, not the function that it is. */
  #globalControl(): void {
    if (this.#regs.GCTL.CRST) return;
    this.#bank.reset();
    this.#s.responses = 0;
    for (const phase of ['enter', 'hold', 'exit'] as const) this.#link.resetPhase(phase);
    this.resetHold();
  }

  /** Section 3.3.15: what is pending, and of that what is enabled. */
  #update(): void {
    const { INTSTS, INTCTL, RIRBSTS, STATESTS, WAKEEN } = this.#regs;
    let streams = 0;
    for (let index = 0; index < STREAMS; index++) {
      const { BCIS, IOCE } = this.#regs.SDCTL.at(index);
      if (BCIS && IOCE) streams |= 1 << index;
    }
    const controller = RIRBSTS.RINTFL || RIRBSTS.OIS || (STATESTS.SDIWAKE & WAKEEN.VALUE) !== 0;
    const enabled = (streams & INTCTL.SIE) !== 0 || (controller && INTCTL.CIE);
    Object.assign(INTSTS, { SIS: streams, CIS: controller, GIS: enabled });
    const level = enabled && INTCTL.GIE;
    // Each new reason is a message of its own.
    if (level && this.messageSignalled) this.irq.lower();
    this.irq.set(level);
  }
}

/** The type with the MSI capability that the properties ask for. */
function withMessages({ type, props }: DeviceContext<typeof properties>): DeviceTypeInfo {
  if (type.pci === undefined || props.msi === 'off') return type;
  return { ...type, pci: { ...type.pci, msi: { vectors: 1, offset: props.old_msi_addr ? 0x50 : 0x60 } } };
}

const base = (low: number, high: number): number => low + high * 2 ** 32;

/** The link's name: the controller's id, or what QEMU calls the first. */
const busName = (device: PciDevice, id: string | undefined): string =>
  id === undefined ? `hda.${device.pciBus.functions.filter(other => other instanceof IntelHda).length}` : `${id}.0`;

const parents = ['intel-hda-generic', 'pci-device', 'device'];

export const intelHda = deviceType({
  type: 'intel-hda',
  summary: 'Intel HD Audio controller (ICH6)',
  category: 'sound',
  parents,
  properties,
  pci: { vendor: 0x8086, device: 0x2668, revision: 1, class: 0x04_0300, pin: 'A' },
  create: IntelHda,
});

export const ich9IntelHda = deviceType({
  type: 'ich9-intel-hda',
  summary: 'Intel HD Audio controller (ICH9)',
  category: 'sound',
  parents,
  properties,
  pci: { vendor: 0x8086, device: 0x293e, revision: 3, class: 0x04_0300, pin: 'A' },
  create: IntelHda,
});
