import type { Device } from '../device/device.ts';
import type { IrqLine } from '../irq/line.ts';
import type { AnyRegisterBank } from '../register/register.ts';

/** Where the text goes. */
export type VcdWriter = (text: string) => void;

interface Signal {
  readonly code: string;
  readonly width: number;
  value: number;
}

/**
 * Waveforms of lines and registers as a value change dump (IEEE 1364-2005, section 18.2), for GTKWave and the like. Declare all
 * signals, then {@link begin}; times are nanoseconds.
 */
export class VcdRecorder {
  readonly #write: VcdWriter;
  readonly #now: () => number;
  readonly #signals: Signal[] = [];
  readonly #scopes = new Map<string, { readonly name: string; readonly signal: Signal }[]>();
  readonly #stops: (() => void)[] = [];
  #began = false;
  #lastNs = -1;

  constructor(write: VcdWriter, now: () => number) {
    this.#write = write;
    this.#now = now;
  }

  /** A line as one bit. */
  line(scope: string, line: IrqLine, name: string = line.name): void {
    const signal = this.#declare(scope, name, 1, line.level ? 1 : 0);
    this.#stops.push(line.watch(level => this.#change(signal, level ? 1 : 0)));
  }

  /** Each register of a bank as a vector of what is stored in it, after accesses of the guest's. */
  bank(scope: string, bank: AnyRegisterBank): void {
    const signals = new Map<string, Signal>();
    const keyOf = (index: number, element: number, word: number): string => `${index}.${element}.${word}`;
    for (const entry of bank.map.layout) {
      for (let element = 0; element < entry.count; element++) {
        for (let word = 0; word < entry.words; word++) {
          const array = entry.register.options.count === undefined ? '' : `_${element}`;
          const half = entry.words === 1 ? '' : word === 0 ? '_low' : '_high';
          const signal = this.#declare(
            `${scope}.${bank.map.name}`,
            entry.name + array + half,
            Math.min(32, entry.register.width),
            0,
          );
          signals.set(keyOf(entry.index, element, word), signal);
        }
      }
    }
    const stop = bank.observe({
      access: (entry, element, word, _value, _before, after) => {
        const signal = signals.get(keyOf(entry.index, element, word));
        if (signal !== undefined) this.#change(signal, after);
      },
    });
    this.#stops.push(stop);
  }

  /** All pins and registers of a device. */
  device(device: Device, name: string = device.id ?? device.typeName): void {
    for (const [list, pins] of [...device.outputPins, ...device.inputPins])
      for (const [index, pin] of pins.entries()) this.line(name, pin, list === '' ? pin.name : `${list}_${index}`);
    for (const bank of device.banks) this.bank(name, bank);
  }

  /** Writes the header; from now on changes are recorded. */
  begin(): void {
    const scopes = [...this.#scopes].map(([scope, members]) => {
      const variables = members.map(({ name, signal }) => {
        const range = signal.width === 1 ? '' : ` [${signal.width - 1}:0]`;
        return `$var wire ${signal.width} ${signal.code} ${plain(name)}${range} $end\n`;
      });
      return `$scope module ${plain(scope)} $end\n${variables.join('')}$upscope $end\n`;
    });
    this.#write(`$comment southbridge $end\n$timescale 1ns $end\n${scopes.join('')}$enddefinitions $end\n`);
    this.#began = true;
    this.#stamp();
    this.#write(`$dumpvars\n${this.#signals.map(valueText).join('')}$end\n`);
  }

  stop(): void {
    for (const stop of this.#stops.splice(0)) stop();
  }

  #declare(scope: string, name: string, width: number, value: number): Signal {
    const signal = { code: codeOf(this.#signals.length), width, value };
    this.#signals.push(signal);
    const members = this.#scopes.get(scope) ?? [];
    members.push({ name, signal });
    this.#scopes.set(scope, members);
    return signal;
  }

  #change(signal: Signal, value: number): void {
    if (signal.value === value) return;
    signal.value = value;
    if (!this.#began) return;
    this.#stamp();
    this.#write(valueText(signal));
  }

  #stamp(): void {
    const nowNs = Math.round(this.#now());
    if (nowNs === this.#lastNs) return;
    this.#lastNs = nowNs;
    this.#write(`#${nowNs}\n`);
  }
}

const valueText = ({ code, width, value }: Signal): string =>
  width === 1 ? `${value}${code}\n` : `b${(value >>> 0).toString(2)} ${code}\n`;

/** Identifier codes are of printable characters, `!` to `~`. */
function codeOf(index: number): string {
  const digit = String.fromCharCode(33 + (index % 94));
  return index < 94 ? digit : codeOf(Math.floor(index / 94) - 1) + digit;
}

/** Names have no blanks. */
const plain = (name: string): string => name.replace(/[^\w.[\]-]/g, '_');
