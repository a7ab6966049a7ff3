import type { Clock } from '../clock/clock.ts';
import type { Timer } from '../clock/timer-queue.ts';
import { SouthbridgeError } from '../errors.ts';
import { IrqLine } from '../irq/line.ts';
import {
  type AnyRegisterBank,
  RegisterBank,
  type RegisterHooks,
  type RegisterMap,
  type Registers,
} from '../register/register.ts';
import {
  asRecord,
  badState,
  initialValues,
  loadValues,
  type SavedRecord,
  type SavedValue,
  type StateFields,
  type StateValues,
  saveValues,
} from '../state/fields.ts';
import type { Bus } from './bus.ts';
import { DeviceLog } from './device-log.ts';
import type { DeviceContext, DeviceType, DeviceTypeInfo } from './device-type.ts';
import { ObjectNode, type PropertyValue } from './object.ts';
import type { PropSet, PropValues } from './property.ts';
import type { DeviceServices } from './services.ts';

/** A clock as one device sees it: its timers are saved, cancelled on reset and dropped with the device. */
export interface DeviceClock {
  /** Nanoseconds. */
  now(): number;
  /** @param name unique within the device; the timer is saved under it */
  timer(name: string, callback: () => void, options?: { readonly onReset?: 'cancel' | 'keep' }): Timer;
  /** A timer for the rest of work that is too long for one go, so that others have their turn in between. */
  deferred(name: string, callback: () => void): Timer;
}

interface StateSection {
  readonly name: string;
  readonly version: number;
  readonly fields: StateFields;
  readonly values: Record<string, unknown>;
  readonly onReset: 'initial' | 'keep';
}

interface OwnedTimer {
  readonly timer: Timer;
  readonly onReset: 'cancel' | 'keep';
}

/**
 * A device: registers, lines, timers and declared state, with the behaviour in the subclass. Constructing one has no effect
 * outside it; its bus attaches it and calls {@link realize}. Reset, save and restore of all that it declares are derived.
 */
export abstract class Device<S extends PropSet = PropSet> extends ObjectNode {
  readonly type: DeviceTypeInfo;
  readonly id: string | undefined;
  readonly props: PropValues<S>;
  readonly bus: Bus;
  /** Its type, to make another one of. */
  readonly ownType: DeviceType;
  /** Buses that this device provides. */
  readonly buses: Bus[] = [];
  protected readonly services: DeviceServices;
  protected readonly clock: DeviceClock;
  protected readonly hostClock: DeviceClock;
  protected readonly realtimeClock: DeviceClock;
  protected readonly log: DeviceLog;
  /** Whether it came while the machine was there already. */
  readonly hotplugged: boolean;
  readonly #banks: AnyRegisterBank[] = [];
  readonly #sections: StateSection[] = [];
  readonly #timers = new Map<string, OwnedTimer>();
  readonly #lines = new Map<string, IrqLine>();
  readonly #inputs = new Map<string, IrqLine[]>();
  readonly #outputs = new Map<string, IrqLine[]>();
  readonly #wires = new Map<string, IrqLine>();
  readonly #pinLists = new Set<string>();
  readonly #cleanups: (() => void)[] = [];
  #realized = false;

  constructor(context: DeviceContext<S>) {
    super(context.type.type);
    this.type = context.type;
    this.id = context.id;
    this.props = context.props;
    this.bus = context.bus;
    this.ownType = context.ownType;
    this.hotplugged = context.bus.hotplugging;
    this.services = context.services;
    this.clock = this.#deviceClock(context.services.clock);
    this.hostClock = this.#deviceClock(context.services.hostClock);
    this.realtimeClock = this.#deviceClock(context.services.realtimeClock);
    this.log = new DeviceLog(context.services.trace, context.type.type);
    this.#defineProperties();
  }

  override get typeChain(): readonly string[] {
    return [this.typeName, ...this.type.parents, 'object'];
  }

  get realized(): boolean {
    return this.#realized;
  }

  /**
   * Where the device is, whatever it is called: saved state belongs to a place, as management tools give other ids to the same
   * devices when they make a machine anew. Without an address on its bus it is known by its path.
   */
  get location(): string {
    const { bus } = this;
    const address = bus.addressOf(this);
    if (address === undefined) return this.path;
    const owner = bus.owner === undefined ? bus.path : `${bus.owner.location}/${bus.owner.buses.indexOf(bus)}`;
    return `${owner}/${address}`;
  }

  /** The register banks, for tools. */
  get banks(): readonly AnyRegisterBank[] {
    return this.#banks;
  }

  /** Input pins by list name; '' is the unnamed list. */
  get inputPins(): ReadonlyMap<string, readonly IrqLine[]> {
    return this.#inputs;
  }

  /** Output pins by list name; '' is the unnamed list. */
  get outputPins(): ReadonlyMap<string, readonly IrqLine[]> {
    return this.#outputs;
  }

  /** Outputs that are no pins of QEMU's device of the same name: its lists of pins are what qtest clients know. */
  get wires(): ReadonlyMap<string, IrqLine> {
    return this.#wires;
  }

  /** The names of the lists of pins, in the order in which the device has made them. */
  get pinLists(): readonly string[] {
    return [...this.#pinLists];
  }

  /** What a chip on the system bus shows in the memory's address space, by place. */
  get mappedRegions(): readonly { readonly offset: number; readonly size: number }[] {
    return [];
  }

  /** Why it has to stay while the machine runs, in QEMU's words; undefined where it can be taken out. */
  get fixture(): string | undefined {
    return undefined;
  }

  /** Name in firmware's boot order (Open Firmware device path), where the device has one. */
  get firmwareName(): string | undefined {
    return undefined;
  }

  // What a subclass uses to declare itself

  /** Gives the device the registers of `map`. `hooks` are its behaviour: see {@link RegisterHooks}. */
  protected bind<M extends RegisterMap>(map: M, hooks: RegisterHooks<M> = {}): Registers<M> {
    return this.bank(map, hooks).regs;
  }

  /** As {@link bind}, for a device that places the bank itself. */
  protected bank<M extends RegisterMap>(map: M, hooks: RegisterHooks<M> = {}): RegisterBank<M> {
    const bank = new RegisterBank(map, hooks);
    this.#cleanups.push(this.log.attach(bank));
    this.#banks.push(bank);
    return bank;
  }

  /** Declares what is saved besides registers, timers and lines. Raise `version` when its meaning changes. */
  protected state<F extends StateFields>(
    version: number,
    fields: F,
    options: { readonly name?: string; readonly onReset?: 'initial' | 'keep' } = {},
  ): StateValues<F> {
    const values = initialValues(fields);
    const name = options.name ?? (this.#sections.length === 0 ? 'state' : `state${this.#sections.length}`);
    this.#sections.push({
      name,
      version,
      fields,
      values: values as Record<string, unknown>,
      onReset: options.onReset ?? 'initial',
    });
    return values;
  }

  /** An output pin. */
  protected output(name: string, list = ''): IrqLine {
    const line = new IrqLine(name);
    this.#addPin(this.#outputs, list, line);
    this.#lines.set(`${list}:${this.#outputs.get(list)?.length ?? 0}`, line);
    return line;
  }

  /** An output that goes where the device's bus or board takes it, and is no pin of a list. */
  protected unlistedOutput(name: string): IrqLine {
    const line = new IrqLine(name);
    this.#wires.set(name, line);
    this.#lines.set(`wire:${name}`, line);
    return line;
  }

  /** `count` input pins of one list; `changed` is told each edge. */
  protected inputs(list: string, count: number, changed: (index: number, level: boolean) => void): readonly IrqLine[] {
    const pins: IrqLine[] = [];
    for (let index = 0; index < count; index++) {
      const pin = new IrqLine(`${list}[${index}]`, level => changed(index, level));
      pins.push(pin);
      this.#addPin(this.#inputs, list, pin);
      this.#lines.set(`in:${list}:${this.#inputs.get(list)?.length ?? 0}`, pin);
    }
    return pins;
  }

  /** Runs `cleanup` when the device goes away: the undoing of what {@link realize} did outside the device. */
  protected onUnrealize(cleanup: () => void): void {
    this.#cleanups.push(cleanup);
  }

  protected addBus<B extends Bus>(bus: B): B {
    this.buses.push(bus);
    this.addChild(bus.busName, bus);
    return bus;
  }

  // What a subclass may implement

  /** Called once the device is on its bus and its address is known. Throws a named error where it cannot work. */
  protected realize(): void {}

  /** First phase of reset: local state only, nothing outside may be touched. */
  protected resetEnter(): void {}

  /** Second phase: registers and state are at their reset values, lines low; drive lines that idle high. */
  protected resetHold(): void {}

  /** Third phase: the reset is over; start what runs by itself. */
  protected resetExit(): void {}

  /** All declared state is back; recompute what is derived from it. Lines must not be driven. */
  protected restored(): void {}

  // The life cycle, driven by the bus and the machine

  /** @throws whatever {@link realize} throws; the device is then as if never made */
  attach(): void {
    try {
      this.realize();
      this.#realized = true;
    } catch (error) {
      this.detach();
      throw error;
    }
  }

  /** Takes the device out: unmaps, cancels timers, lowers lines, releases backends. */
  detach(): void {
    for (const bus of this.buses) bus.removeAll();
    for (const line of this.#lines.values()) line.disconnect();
    for (const { timer } of this.#timers.values()) timer.dispose();
    for (const cleanup of this.#cleanups.splice(0).reverse()) cleanup();
    this.#realized = false;
  }

  /** The three phases over this device and all below it: children first, as QEMU's Resettable. */
  resetPhase(phase: 'enter' | 'hold' | 'exit'): void {
    for (const bus of this.buses) bus.resetPhase(phase);
    if (phase === 'enter') {
      this.#resetDeclared();
      this.resetEnter();
    } else if (phase === 'hold') {
      for (const lines of this.#outputs.values()) for (const line of lines) line.lower();
      for (const line of this.#wires.values()) line.lower();
      this.resetHold();
    } else {
      this.resetExit();
    }
  }

  /** Tells what it drives to whom it is connected: it has taken another's place, and its state, which went unsaid. */
  redrive(): void {
    for (const pins of this.#outputs.values()) for (const pin of pins) if (pin.level) pin.force(true);
  }

  /** Resets this device and what is below it. */
  reset(): void {
    this.resetPhase('enter');
    this.resetPhase('hold');
    this.resetPhase('exit');
  }

  /** All declared state. The keys are stable; the value is a copy. */
  save(): SavedRecord {
    const sections: Record<string, SavedValue> = {};
    for (const section of this.#sections) {
      sections[section.name] = {
        version: section.version,
        values: saveValues(section.fields, section.values as StateValues<StateFields>),
      };
    }
    return {
      registers: this.#banks.map(bank => bank.save()),
      sections,
      timers: Object.fromEntries(
        [...this.#timers].map(([name, { timer }]) => [name, timer.pending ? timer.deadlineNs : null]),
      ),
      lines: Object.fromEntries([...this.#lines].map(([name, line]) => [name, line.level])),
    };
  }

  /**
   * Puts back what {@link save} gave.
   * @throws SouthbridgeError ERR_STATE_VALUE, ERR_STATE_VERSION where it does not fit; nothing is changed in that case
   */
  restore(saved: SavedValue): void {
    const where = this.path;
    const record = asRecord(saved, where);
    const timers = asRecord(record['timers'], `${where}.timers`);
    const lines = asRecord(record['lines'], `${where}.lines`);
    const sections = this.#sections.map(section =>
      this.#loadSection(section, asRecord(record['sections'], `${where}.sections`)),
    );
    const deadlines = [...this.#timers.keys()].map(name => deadline(timers[name], `${where}.timers.${name}`));
    const levels = [...this.#lines.keys()].map(name => level(lines[name], `${where}.lines.${name}`));
    const registers = record['registers'];
    if (!Array.isArray(registers) || registers.length !== this.#banks.length)
      badState(`${where}.registers`, `${this.#banks.length} register banks`);
    for (const [index, bank] of this.#banks.entries()) bank.checkSaved(registers[index]);
    for (const [index, bank] of this.#banks.entries()) bank.restore(registers[index]);
    this.#sections.forEach((section, index) => Object.assign(section.values, sections[index]));
    [...this.#timers.values()].forEach(({ timer }, index) => {
      const at = deadlines[index];
      if (at === undefined || at === null) timer.cancel();
      else timer.armAt(at);
    });
    [...this.#lines.values()].forEach((line, index) => line.restore(levels[index] ?? false));
    this.restored();
  }

  #loadSection(section: StateSection, sections: SavedRecord): StateValues<StateFields> {
    const where = `${this.path}.${section.name}`;
    const record = asRecord(sections[section.name], where);
    if (record['version'] !== section.version)
      badState(where, `version ${section.version}, it is version ${String(record['version'])}`);
    return loadValues(section.fields, record['values'], where);
  }

  #resetDeclared(): void {
    for (const bank of this.#banks) bank.reset();
    for (const section of this.#sections) {
      if (section.onReset === 'initial') Object.assign(section.values, initialValues(section.fields));
    }
    for (const { timer, onReset } of this.#timers.values()) if (onReset === 'cancel') timer.cancel();
  }

  #deviceClock(clock: Clock): DeviceClock {
    const own = (name: string, timer: Timer, onReset: 'cancel' | 'keep' = 'cancel'): Timer => {
      this.#timers.set(name, { timer, onReset });
      return timer;
    };
    return {
      now: () => clock.now(),
      timer: (name, callback, options) =>
        own(name, clock.timer(`${this.typeName}.${name}`, callback), options?.onReset),
      deferred: (name, callback) => own(name, clock.deferred(`${this.typeName}.${name}`, callback)),
    };
  }

  #addPin(lists: Map<string, IrqLine[]>, list: string, line: IrqLine): void {
    const pins = lists.get(list);
    this.#pinLists.add(list);
    if (pins === undefined) lists.set(list, [line]);
    else pins.push(line);
  }

  #defineProperties(): void {
    const values: Readonly<Record<string, unknown>> = this.props;
    for (const [name, property] of Object.entries(this.type.properties)) {
      this.defineProperty({
        name,
        type: property.type,
        ...(property.description !== undefined && { description: property.description }),
        get: () => property.format(values[name]),
        ...(property.exchange !== undefined &&
          values[name] !== undefined && {
            set: (value: PropertyValue) => property.exchange?.(values[name], referenceOf(name, value)),
          }),
      });
    }
    this.defineProperty({ name: 'type', type: 'string', get: () => this.typeName });
    this.defineProperty({ name: 'realized', type: 'bool', get: () => this.#realized });
    this.defineProperty({ name: 'hotplugged', type: 'bool', get: () => this.hotplugged });
    this.defineProperty({ name: 'hotpluggable', type: 'bool', get: () => this.type.hotpluggable });
    this.defineProperty({ name: 'parent_bus', type: 'link<bus>', get: () => this.bus.path });
  }
}

/** @throws SouthbridgeError ERR_PROPERTY_VALUE where the value of the property `name` is no name of anything */
function referenceOf(name: string, value: PropertyValue): string {
  if (typeof value === 'string') return value;
  throw new SouthbridgeError('ERR_PROPERTY_VALUE', `Invalid parameter type for '${name}', expected: string`);
}

function deadline(saved: SavedValue | undefined, where: string): number | null {
  return saved === null || (typeof saved === 'number' && saved >= 0)
    ? saved
    : badState(where, 'a deadline in nanoseconds');
}

function level(saved: SavedValue | undefined, where: string): boolean {
  return typeof saved === 'boolean' ? saved : badState(where, 'a level');
}
