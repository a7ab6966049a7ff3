import { IsaBus } from '../../bus/isa.ts';
import type { Device } from '../../device/device.ts';
import { didYouMean } from '../../errors.ts';
import { IrqLine, WiredOr } from '../../irq/line.ts';
import type { Machine } from '../machine.ts';
import type { DataPlace, WireData } from './format.ts';

interface PinName {
  readonly owner: string;
  readonly pin: string;
  readonly index: number;
}

/** `sensor:alert`, `pic:in[3]`. */
function parsePin(text: string, place: DataPlace): PinName {
  const match = /^(.+):([^[\]:]*)(?:\[(\d+)\])?$/.exec(text);
  if (match === null)
    throw place.error(`'${text}' is no pin`, "write 'ID:PIN' or 'ID:LIST[INDEX]', such as 'isa.0:irq[5]'");
  return { owner: match[1] ?? '', pin: match[2] ?? '', index: Number(match[3] ?? 0) };
}

/** Connects pins by name. Several wires may lead to one input, which is then high while any of them is. */
export class Wiring {
  readonly #machine: Machine;
  readonly #shared = new Map<string, WiredOr>();

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  connect(wire: WireData, place: DataPlace): void {
    const input = this.#input(wire.to, place.member('to'));
    const output = this.#output(wire.from, place.member('from'));
    if (output.connected)
      throw place.member('from').error(`'${wire.from}' is connected already`, 'one output drives one input');
    output.connect(level => input.set(level));
  }

  #output(text: string, place: DataPlace): IrqLine {
    const { owner, pin, index } = parsePin(text, place);
    const device = this.#device(owner, place);
    const named = [...device.outputPins.values()].flat().find(line => line.name === pin);
    const found = device.outputPins.get(pin)?.[index] ?? named;
    if (found !== undefined) return found;
    throw place.error(
      `${device.typeName} '${owner}' has no output '${pin}[${index}]'`,
      listed('outputs', device.outputPins),
    );
  }

  #input(text: string, place: DataPlace): IrqLine {
    const { owner, pin, index } = parsePin(text, place);
    const machine = this.#machine;
    if (owner === 'gsi') return this.#shareable(text, () => this.#gsi(index));
    const bus = machine.findBus(owner);
    if (bus instanceof IsaBus) return place.within(() => bus.irq(index, text));
    const device = this.#device(owner, place);
    const found = device.inputPins.get(pin)?.[index];
    if (found !== undefined) return this.#shareable(text, () => found);
    throw place.error(
      `${device.typeName} '${owner}' has no input '${pin}[${index}]'`,
      listed('inputs', device.inputPins),
    );
  }

  #gsi(number: number): IrqLine {
    const line = new IrqLine(`gsi${number}`);
    this.#machine.connectGsi(line, number);
    return line;
  }

  #shareable(name: string, make: () => IrqLine): IrqLine {
    const shared = this.#shared.get(name) ?? new WiredOr(make());
    this.#shared.set(name, shared);
    return shared.input(name);
  }

  #device(name: string, place: DataPlace): Device {
    const device = this.#machine.findDevice(name);
    if (device !== undefined) return device;
    const ids = [...this.#machine.devices()].flatMap(each => (each.id === undefined ? [] : [each.id]));
    throw place.error(`there is no device '${name}'`, didYouMean(name, ids) ?? "give the device an 'id'");
  }
}

function listed(what: string, pins: ReadonlyMap<string, readonly IrqLine[]>): string {
  const names = [...pins].map(([list, lines]) =>
    list === '' ? lines.map(line => line.name).join(', ') : `${list}[0..${lines.length - 1}]`,
  );
  return names.length === 0 ? `it has no ${what}` : `its ${what}: ${names.join(', ')}`;
}
