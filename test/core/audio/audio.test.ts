import t from 'tap';
import { AudioBackend } from '../../../core/audio/backend.ts';
import { type AudioFormat, fromStereo, Resampler, toStereo } from '../../../core/audio/format.ts';

const CD: AudioFormat = { format: 's16', channels: 2, frequency: 44_100 };

t.test('every format there and back', async t => {
  const stereo = Int16Array.of(0, -0x8000, 0x7f00, 0x1200);
  for (const format of ['u8', 's8', 'u16', 's16', 'u32', 's32'] as const) {
    const as = { format, channels: 2, frequency: 8000 };
    t.same(toStereo(fromStereo(stereo, as), as), stereo, format);
  }
  const mono = { format: 's16', channels: 1, frequency: 8000 } as const;
  t.same(toStereo(fromStereo(stereo, mono), mono), Int16Array.of(-0x4000, -0x4000, 0x4880, 0x4880), 'the mean');
});

t.test('another rate, in pieces as in one', async t => {
  const ramp = Int16Array.from({ length: 2000 }, (_, index) => (index >> 1) * 10);
  const whole = new Resampler(22_050, 44_100).convert(ramp);
  const pieces = new Resampler(22_050, 44_100);
  const joined = [0, 1, 2, 3].flatMap(part => [...pieces.convert(ramp.slice(part * 500, (part + 1) * 500))]);
  t.same(joined, [...whole]);
  t.equal(whole.length, 4000);
  t.ok(
    whole.every((value, index) => index < 4 || value >= (whole[index - 2] ?? 0)),
    'still a ramp',
  );
});

t.test('voices are heard together, and listeners told of the first and the last', async t => {
  const backend = new AudioBackend('a', 'none');
  const told: (boolean | number[])[] = [];
  const stop = backend.listen({
    format: CD,
    playing: on => void told.push(on),
    samples: bytes => void told.push([...toStereo(bytes, CD)]),
  });
  const [one, two] = [{ format: CD }, { format: CD }];
  const frame = (left: number, right: number): Uint8Array => fromStereo(Int16Array.of(left, right), CD);
  backend.start(one);
  backend.play(one, frame(1, 2));
  backend.start(two);
  backend.play(one, frame(10, 20));
  backend.play(two, frame(0x7fff, 100));
  backend.play(two, frame(5, 6));
  backend.stop(two);
  backend.stop(one);
  t.same(told, [true, [1, 2], [0x7fff, 120], [5, 6], false]);
  stop();
  backend.start(one);
  t.equal(told.length, 5, 'nobody listens');
});
