import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import type { AudioBackend } from '../../core/audio/backend.ts';
import { WavBackend } from '../../core/audio/wav.ts';
import { ms } from '../../core/clock/units.ts';
import { bench } from '../../core/testing/bench.ts';
import { hdaDuplex } from '../../devices/hda-codec/hda-codec.ts';
import { intelHda } from '../../devices/intel-hda/intel-hda.ts';
import { hdaRegisters } from '../../devices/intel-hda/registers.ts';

const COMMANDS = 0x1000;
const RESPONSES = 0x2000;
const LIST = 0x3000;
const BUFFER = 0x4000;
const BUFFER_SIZE = 0x1000;
const OUTPUT = 4;

function lab(backend?: AudioBackend) {
  const b = bench({ backends: { find: () => backend } });
  const card = b.pci(intelHda);
  const [link] = card.device.buses;
  link?.plug(hdaDuplex, {}, backend === undefined ? {} : { audiodev: backend.id });
  const regs = card.bar(0, hdaRegisters);
  regs.GCTL.CRST = false;
  regs.GCTL.CRST = true;
  let command = 0;
  /** One verb to codec 0 by the rings. */
  const verb = (node: number, value: number): number => {
    command = (command + 1) & 0xff;
    b.machine.memory.write(COMMANDS + 4 * command, 4, ((node << 20) | value) >>> 0);
    regs.CORBWP.value = command;
    regs.RIRBSTS.RINTFL = true;
    return b.machine.memory.read(RESPONSES + 8 * regs.RIRBWP.WP, 4);
  };
  regs.CORBLBASE.value = COMMANDS;
  regs.RIRBLBASE.value = RESPONSES;
  regs.RINTCNT.value = 1;
  regs.RIRBCTL.value = 3;
  regs.CORBCTL.RUN = true;
  return { b, card, regs, verb };
}

t.test('codecs are found and describe themselves', async t => {
  const { b, card, regs, verb } = lab();
  t.equal(regs.STATESTS.SDIWAKE, 1, 'a codec at 0');
  t.equal(verb(0, 0xf0000), 0x1af4_0022, 'identity of hda-duplex with mixer');
  t.equal(verb(0, 0xf0004), 0x0001_0001, 'one function');
  t.equal(verb(1, 0xf0004), 0x0002_0004, 'four widgets');
  t.equal(verb(3, 0xf1c00), 0x0000_4010, 'a green line output');
  t.equal(verb(3, 0xf0200), 2, 'connected to the converter');
  t.equal(verb(9, 0xf0000), 0, 'no such node');
  verb(2, 0x3b020);
  t.equal(verb(2, 0xba000), 0x20, 'gain, left');
  regs.INTCTL.value = 0xc000_0000;
  b.machine.memory.write(COMMANDS + 4 * (regs.CORBWP.WP + 1), 4, 0xf0000);
  regs.CORBWP.value = regs.CORBWP.WP + 1;
  t.equal(card.intx.level, true, 'a response interrupts');
  regs.RIRBSTS.RINTFL = true;
  t.equal(card.intx.level, false);
  regs.ICOI.value = 0xf0000;
  regs.ICIS.ICB = true;
  t.match({ ...{ valid: regs.ICIS.IRV, answer: regs.IRII.value } }, { valid: true, answer: 0x1af4_0022 }, 'immediate');
});

t.test('a stream plays to a file at its own pace, and interrupts where its list says', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'out.wav');
  const backend = new WavBackend('a', path, { format: 's16', channels: 2, frequency: 48_000 });
  const { b, card, regs, verb } = lab(backend);
  const { memory } = b.machine;
  for (let at = 0; at < BUFFER_SIZE; at += 4) memory.write(BUFFER + at, 4, (at << 16) | at);
  for (const [at, value] of [BUFFER, 0, BUFFER_SIZE / 2, 0, BUFFER + BUFFER_SIZE / 2, 0, BUFFER_SIZE / 2, 1].entries())
    memory.write(LIST + 4 * at, 4, value);
  verb(2, 0x20011);
  verb(2, 0x70610); // stream 1
  const stream = regs.SDCTL.at(OUTPUT);
  regs.SDBDPL.at(OUTPUT).value = LIST;
  regs.SDCBL.at(OUTPUT).value = BUFFER_SIZE;
  regs.SDLVI.at(OUTPUT).value = 1;
  regs.INTCTL.value = 0xc000_00ff;
  stream.value = (1 << 20) | 6;
  b.clock.advance(ms(10));
  t.equal(regs.SDLPIB.at(OUTPUT).value, 480 * 4, '10 ms of frames');
  t.equal(card.intx.level, false);
  b.clock.advance(ms(20));
  t.equal(stream.BCIS, true, 'the second entry has been played');
  t.equal(card.intx.level, true);
  t.equal(regs.INTSTS.SIS, 1 << OUTPUT);
  stream.BCIS = true;
  t.equal(card.intx.level, false, 'acknowledged');
  stream.value = 0;
  b.clock.advance(ms(50));
  backend.dispose();
  const wav = readFileSync(path);
  t.equal(wav.toString('latin1', 0, 4), 'RIFF');
  t.equal(wav.readUInt32LE(24), 48_000);
  t.equal(wav.readUInt32LE(40), 1440 * 4, '30 ms, and none after it was stopped');
  t.equal(wav.readUInt32LE(44 + 4 * 100), (400 << 16) | 400, 'as it was in memory');
  t.equal(wav.readUInt32LE(44 + BUFFER_SIZE + 8), (8 << 16) | 8, 'and from the beginning again');
});

t.test('state comes back, and a hostile list ends', async t => {
  const { b, card, regs, verb } = lab();
  verb(2, 0x70610);
  regs.SDBDPL.at(OUTPUT).value = 0xffff_ff80;
  regs.SDLVI.at(OUTPUT).value = 255;
  regs.SDCTL.at(OUTPUT).value = (1 << 20) | 2;
  b.clock.advance(ms(30));
  const saved = card.device.save();
  regs.SDCTL.at(OUTPUT).value = 0;
  card.device.restore(saved);
  t.equal(regs.SDCTL.at(OUTPUT).RUN, true);
  // All entries empty, in RAM: each turn makes no progress.
  regs.SDCTL.at(OUTPUT).value = 0;
  regs.SDBDPL.at(OUTPUT).value = LIST;
  regs.SDCTL.at(OUTPUT).value = (1 << 20) | 2;
  b.clock.advance(ms(30));
  t.equal(regs.SDLPIB.at(OUTPUT).value, 0);
});
