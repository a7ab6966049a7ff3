import t, { type Test } from 'tap';
import { AudioBackend } from '../../core/audio/backend.ts';
import { IsaBus } from '../../core/bus/isa.ts';
import { ms } from '../../core/clock/units.ts';
import { type Bench, bench } from '../../core/testing/bench.ts';
import { ac97 } from '../../devices/ac97/ac97.ts';
import { busMasterRegisters, mixerRegisters } from '../../devices/ac97/registers.ts';
import { es1370 } from '../../devices/es1370/es1370.ts';
import { es1370Registers } from '../../devices/es1370/registers.ts';
import { i8257 } from '../../devices/i8257.ts';
import { sb16Registers } from '../../devices/sb16/registers.ts';
import { sb16 } from '../../devices/sb16/sb16.ts';

const RATE = 48_000;

/** A bench with somebody who listens: what is heard on the left, frame by frame. */
function listening(t: Test): { lab: Bench; sound: AudioBackend; heard: number[] } {
  const sound = new AudioBackend('sound', 'none');
  const heard: number[] = [];
  const lab = bench({ backends: { find: () => sound } });
  t.teardown(() => lab.dispose());
  sound.listen({
    format: { format: 's16', channels: 1, frequency: RATE },
    playing: () => {},
    samples: bytes => {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      for (let at = 0; at < bytes.length; at += 2) heard.push(view.getInt16(at, true));
    },
  });
  return { lab, sound, heard };
}

/** Frames of 16-bit stereo that count up, from `from`. */
function ramp(lab: Bench, address: number, frames: number, from: number): void {
  for (let frame = 0; frame < frames; frame++) {
    lab.ram.view.setInt16(address + frame * 4, from + frame, true);
    lab.ram.view.setInt16(address + frame * 4 + 2, from + frame, true);
  }
}

t.test("AC'97: a list of buffers is played, with its interrupts, and stops at its end", async t => {
  const { lab, sound, heard } = listening(t);
  const card = lab.pci(ac97, { audiodev: sound });
  const mixer = card.bar(0, mixerRegisters);
  const regs = card.bar(1, busMasterRegisters);
  t.equal(regs.CAS.value, 0, 'the codec is free');
  t.equal(regs.CAS.value, 1, 'and now it is not');
  t.equal(mixer.VENDOR_ID1.value, 0x8384);
  t.equal(regs.CAS.value, 0, 'using it gives it back');
  t.ok(regs.GLOB_STA.S0CR);
  mixer.MASTER_VOLUME.value = 0;
  mixer.PCM_OUT_VOLUME.value = 0;
  mixer.HEADPHONE_VOLUME.value = 0x1234;
  t.equal(mixer.HEADPHONE_VOLUME.value, 0, 'there is none');
  const list = 0x1000;
  for (const [index, control] of [0x8000_0000, 0, 0x8000_0000].entries()) {
    ramp(lab, 0x2000 + index * 0x1000, 480, 1000 * (index + 1));
    lab.ram.view.setUint32(list + index * 8, 0x2000 + index * 0x1000, true);
    lab.ram.view.setUint32(list + index * 8 + 4, (control | 960) >>> 0, true);
  }
  const out = { LVI: regs.LVI.at(1), SR: regs.SR.at(1), CR: regs.CR.at(1), CIV: regs.CIV.at(1) };
  regs.BDBAR.at(1).value = list;
  out.LVI.value = 2;
  out.CR.value = 0x1d;
  t.notOk(out.SR.DCH);
  lab.clock.advance(ms(5));
  t.notOk(card.intx.level);
  lab.clock.advance(ms(10));
  t.ok(card.intx.level, 'the first buffer is done');
  t.ok(regs.GLOB_STA.POINT);
  t.ok(out.SR.BCIS);
  out.SR.value = 0x1c;
  t.notOk(card.intx.level);
  t.equal(out.CIV.value, 1);
  lab.clock.advance(ms(10));
  t.notOk(card.intx.level, 'the second wants none');
  lab.clock.advance(ms(10));
  t.ok(out.SR.LVBCI && out.SR.DCH && out.SR.CELV && out.SR.BCIS, 'the last one');
  t.ok(card.intx.level);
  t.same([heard[0], heard[479], heard[480], heard[1439]], [1000, 1479, 2000, 3479]);
  out.SR.value = 0x1c;
  lab.ram.view.setUint32(list + 3 * 8, 0x2000, true);
  lab.ram.view.setUint32(list + 3 * 8 + 4, 960, true);
  out.LVI.value = 3;
  t.notOk(out.SR.DCH, 'more buffers let it go on');
  const before = heard.length;
  lab.clock.advance(ms(20));
  t.ok(heard.slice(before).includes(1400));
  out.CR.value = 2;
  t.equal(out.CIV.value, 0, 'a reset of the channel');
  t.equal(regs.LVI.at(1).value, 0);
});

t.test("AC'97: rates, volumes, recording, a pause, a reset", async t => {
  const { lab, sound, heard } = listening(t);
  const card = lab.pci(ac97, { audiodev: sound });
  const mixer = card.bar(0, mixerRegisters);
  const regs = card.bar(1, busMasterRegisters);
  mixer.FRONT_DAC_RATE.value = 24_000;
  t.equal(mixer.FRONT_DAC_RATE.value, 24_000);
  mixer.EXTENDED_AUDIO_CONTROL.value = 0;
  t.equal(mixer.FRONT_DAC_RATE.value, RATE, 'without variable rates there is one');
  mixer.FRONT_DAC_RATE.value = 24_000;
  t.equal(mixer.FRONT_DAC_RATE.value, RATE);
  mixer.PCM_OUT_VOLUME.value = 0;
  for (let frame = 0; frame < 4800; frame++) lab.ram.view.setUint32(0x1_0000 + frame * 4, 0x4000_4000, true);
  lab.ram.view.setUint32(0x1000, 0x1_0000, true);
  lab.ram.view.setUint32(0x1004, 9600, true);
  regs.BDBAR.at(1).value = 0x1000;
  regs.CR.at(1).value = 1;
  lab.clock.advance(ms(10));
  t.equal(heard.at(-1), 0, 'muted, as it is after reset');
  mixer.MASTER_VOLUME.value = 0;
  lab.clock.advance(ms(10));
  t.equal(heard.at(-1), 0x4000);
  regs.CR.at(1).value = 0;
  const left = regs.PICB.at(1).value;
  lab.clock.advance(ms(30));
  t.equal(regs.PICB.at(1).value, left, 'it pauses');
  regs.CR.at(1).value = 1;
  t.equal(regs.PICB.at(1).value, left, 'and goes on where it was');
  lab.ram.bytes.fill(0xff, 0x2_0000, 0x2_1000);
  lab.ram.view.setUint32(0x1800, 0x2_0000, true);
  lab.ram.view.setUint32(0x1804, 0x8000_0100, true);
  regs.BDBAR.at(0).value = 0x1800;
  regs.CR.at(0).value = 0x11;
  lab.clock.advance(ms(20));
  t.ok(regs.GLOB_STA.PIINT);
  t.equal(lab.ram.view.getUint32(0x2_0000, true), 0, 'silence was recorded');
  t.equal(lab.ram.view.getUint32(0x2_0200, true), 0xffff_ffff, 'and no more than there was room for');
  const saved = card.device.save();
  card.device.reset();
  card.device.restore(saved);
  lab.clock.advance(ms(10));
  t.equal(heard.at(-1), 0x4000, 'after a restore it plays on');
  mixer.RESET.value = 0;
  t.equal(mixer.MASTER_VOLUME.value, 0x8000);
});

t.test('ES1370: rings, sample counts, pause and stop', async t => {
  const { lab, sound, heard } = listening(t);
  const card = lab.pci(es1370, { audiodev: sound });
  const regs = card.bar(0, es1370Registers);
  ramp(lab, 0x2000, 960, 5000);
  regs.MEMPAGE.value = 12;
  regs.DAC2_FRAME_ADDRESS.value = 0x2000;
  regs.DAC2_FRAME_COUNT.value = 960 - 1;
  regs.DAC1_FRAME_ADDRESS.value = 0x1111;
  regs.MEMPAGE.value = 13;
  t.not(regs.ADC_FRAME_ADDRESS.value, 0x1111, 'another page');
  regs.SAMPLE_COUNT.at(1).value = 480 - 1;
  regs.SERIAL_CONTROL.value = 0x0c | (1 << 9);
  regs.CONTROL.value = ((1_411_200 / 44_100 - 2) << 16) | (1 << 5);
  lab.clock.advance(ms(5));
  t.notOk(card.intx.level);
  lab.clock.advance(ms(20));
  t.ok(card.intx.level);
  t.ok(regs.STATUS.DAC2 && regs.STATUS.INTR);
  regs.SERIAL_CONTROL.P2INTEN = false;
  t.notOk(card.intx.level);
  regs.SERIAL_CONTROL.P2INTEN = true;
  lab.clock.advance(ms(20));
  t.ok(card.intx.level, 'and again');
  t.equal(heard[0], 0, 'the resampler begins in silence');
  t.ok(
    heard.some(sample => sample > 5900),
    'to the end of the ring',
  );
  regs.SERIAL_CONTROL.P2PAUSE = true;
  const paused = heard.length;
  lab.clock.advance(ms(50));
  t.equal(heard.length, paused);
  regs.SERIAL_CONTROL.P2PAUSE = false;
  regs.SERIAL_CONTROL.P2LOOPSEL = true;
  lab.clock.advance(ms(100));
  const stopped = heard.length;
  lab.clock.advance(ms(50));
  t.equal(heard.length, stopped, 'stop mode ends with the sample count');
  regs.MEMPAGE.value = 13;
  regs.ADC_FRAME_ADDRESS.value = 0x8000;
  regs.ADC_FRAME_COUNT.value = 255;
  lab.ram.bytes.fill(0xff, 0x8000, 0x9000);
  regs.SAMPLE_COUNT.at(2).value = 99;
  regs.SERIAL_CONTROL.value = 0x30 | (1 << 10);
  regs.CONTROL.value = regs.CONTROL.value | (1 << 4);
  lab.clock.advance(ms(20));
  t.ok(regs.STATUS.ADC);
  t.equal(lab.ram.view.getUint32(0x8000, true), 0);
  t.equal(lab.ram.view.getUint32(0x8400, true), 0xffff_ffff, 'the ring wraps');
});

t.test('Sound Blaster 16: the DSP plays by DMA, with 8 and 16 bits', async t => {
  const { lab, sound, heard } = listening(t);
  const isa = lab.machine.findBus('isa.0');
  if (!(isa instanceof IsaBus)) throw new TypeError('there is no ISA bus');
  const low = lab.isa(i8257);
  const high = lab.isa(i8257, { base: 0xc0, 'page-base': 0x88, 'pageh-base': 0x488, dshift: 1 });
  isa.dmaChannels = [...low.channels, ...high.channels];
  const card = lab.isa(sb16, { audiodev: sound });
  card.reset();
  const regs = lab.ports(0x220, sb16Registers);
  const [, , , , , line] = lab.isaIrqs;
  if (line === undefined) throw new TypeError('there is no IRQ 5');
  const irq = lab.watch(line);
  const { ports } = lab.machine;
  const out = (port: number, value: number): void => ports.write(port, 1, value);
  const dsp = (...bytes: number[]): void => bytes.forEach(byte => out(0x22c, byte));
  t.equal(regs.DSP_READ_DATA.value, 0xaa);
  out(0x226, 1);
  out(0x226, 0);
  t.ok(regs.DSP_READ_STATUS.READY);
  t.equal(regs.DSP_READ_DATA.value, 0xaa);
  t.notOk(regs.DSP_READ_STATUS.READY);
  dsp(0xe1);
  t.same([regs.DSP_READ_DATA.value, regs.DSP_READ_DATA.value], [4, 5]);
  dsp(0xe0, 0x55);
  t.equal(regs.DSP_READ_DATA.value, 0xaa);
  const mixer = (index: number, value?: number): number => {
    out(0x224, index);
    if (value !== undefined) out(0x225, value);
    return ports.read(0x225, 1);
  };
  t.equal(mixer(0x80), 2, 'IRQ 5');
  t.equal(mixer(0x81), 0x22, 'channels 1 and 5');
  for (const index of [0x30, 0x31, 0x32, 0x33]) mixer(index, 0xf8);

  // Channel 5: 16-bit words, single mode, from memory; counts are in words.
  const frames = 960;
  ramp(lab, 0x2_0000, frames, 3000);
  const words = frames * 2 - 1;
  for (const [port, value] of [
    [0xd4, 5],
    [0xd8, 0],
    [0xd6, 0x59],
    [0xc4, 0],
    [0xc4, 0],
    [0xc6, words & 0xff],
    [0xc6, words >> 8],
    [0x8b, 2],
    [0xd4, 1],
  ] as const)
    out(port, value);
  const block = frames - 1;
  dsp(0x41, 44_100 >> 8, 44_100 & 0xff);
  dsp(0xb6, 0x30, block & 0xff, block >> 8);
  lab.clock.advance(ms(25));
  t.ok(irq.level, 'half of the buffer');
  t.equal(mixer(0x82), 2);
  t.equal(regs.ACKNOWLEDGE_16.value, 0xff);
  t.notOk(irq.level);
  dsp(0xd5);
  lab.clock.advance(ms(20));
  const paused = heard.length;
  lab.clock.advance(ms(50));
  t.equal(heard.length, paused, 'paused');
  dsp(0xd6);
  dsp(0xd9);
  lab.clock.advance(ms(100));
  t.ok(irq.level);
  t.ok(heard.some(sample => sample > 3400 && sample < 3960));
  const ended = heard.length;
  lab.clock.advance(ms(50));
  t.equal(heard.length, ended, 'the block was the last');
  void regs.ACKNOWLEDGE_16.value;

  // Channel 1: 8 bits by the oldest commands, and a transfer too short to hear, by which drivers find the interrupt.
  lab.ram.bytes.fill(0xc0, 0x3_0000, 0x3_1000);
  for (const [port, value] of [
    [0x0a, 5],
    [0x0c, 0],
    [0x0b, 0x49],
    [0x02, 0],
    [0x02, 0],
    [0x03, 0xff],
    [0x03, 0x0f],
    [0x83, 3],
    [0x0a, 1],
  ] as const)
    out(port, value);
  dsp(0x40, 256 - 1_000_000 / 20_000);
  dsp(0x14, 0, 0);
  lab.clock.advance(ms(20));
  t.ok(irq.level);
  t.equal(mixer(0x82), 1);
  void regs.DSP_READ_STATUS.value;
  t.notOk(irq.level);
  dsp(0x14, 0xff, 1);
  lab.clock.advance(ms(60));
  t.ok(irq.level);
  t.ok(heard.slice(ended).includes(0x4000), 'an unsigned byte of C0h');
  dsp(0xf2);
  t.equal(mixer(0x82), 1);
  dsp(0x80, 10, 0);
  void regs.DSP_READ_STATUS.value;
  lab.clock.advance(ms(5));
  t.ok(irq.level, 'silence has its interrupt too');
  mixer(0x22, 0x40);
  t.equal(mixer(0x30), 0x48, "the SB Pro's registers are views of the others");
});
