import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs';
import type { Device } from '../../device/device.ts';
import { prop } from '../../device/property.ts';
import type { Machine } from '../../machine/machine.ts';
import { type TraceSinkType, traceSink } from '../../plugin/plugin.ts';
import { CoverageReport } from '../../register/coverage.ts';
import { VcdRecorder } from '../vcd.ts';

/** Text is collected up to this size before it is written. */
const BUFFER = 65536;

/** A file that is written in large pieces. */
class TextFile {
  readonly #fd: number;
  #text = '';

  constructor(path: string) {
    this.#fd = openSync(path, 'w');
  }

  write(text: string): void {
    this.#text += text;
    if (this.#text.length >= BUFFER) this.flush();
  }

  flush(): void {
    writeSync(this.#fd, this.#text);
    this.#text = '';
  }

  close(): void {
    this.flush();
    closeSync(this.#fd);
  }
}

/** The devices of a machine by id or type name; all that have registers for an empty list. */
function chosen(machine: Machine, names: string): Device[] {
  const wanted = names.split(':').filter(name => name !== '');
  return [...machine.devices()].filter(device =>
    wanted.length === 0
      ? device.banks.length > 0
      : wanted.includes(device.id ?? '') || wanted.includes(device.typeName),
  );
}

const file = prop.string({ required: true, help: 'the file to write' });
const devices = prop.string({
  default: '',
  help: 'ids or types with colons between; default: all that have registers',
});

const log = traceSink({
  name: 'log',
  summary: 'Lines of virtual time, guest address and event',
  properties: { file, pc: prop.bool({ default: true, help: "the guest's instruction" }) },
  open({ file: path, pc }, context) {
    const text = new TextFile(path);
    return {
      write(event, detail, timeNs) {
        const at = pc ? context.programCounter() : undefined;
        const where = at === undefined ? '' : ` pc=0x${at.toString(16)}`;
        // A register's event and its text both begin with the device and the register.
        text.write(`${timeNs}${where} ${detail.startsWith(event) ? detail : `${event} ${detail}`}\n`);
      },
      dispose: () => text.close(),
    };
  },
});

const vcd = traceSink({
  name: 'vcd',
  summary: 'Waveforms of lines and registers',
  properties: { file, devices },
  open({ file: path, devices: names }) {
    const text = new TextFile(path);
    let recorder: VcdRecorder | undefined;
    return {
      built(machine) {
        recorder = new VcdRecorder(
          part => text.write(part),
          () => machine.clocks.virtual.now(),
        );
        for (const device of chosen(machine, names)) recorder.device(device);
        recorder.begin();
      },
      write() {},
      dispose() {
        recorder?.stop();
        text.close();
      },
    };
  },
});

const coverage = traceSink({
  name: 'coverage',
  summary: 'Which bits of registers the guest never touched',
  properties: { file, devices },
  open({ file: path, devices: names }) {
    const report = new CoverageReport();
    return {
      built(machine) {
        for (const device of chosen(machine, names)) report.watch(device);
      },
      write() {},
      dispose: () => writeFileSync(path, String(report)),
    };
  },
});

/** The sinks that need no plugin. */
export const BUILT_IN_SINKS: readonly TraceSinkType[] = [log, vcd, coverage];
