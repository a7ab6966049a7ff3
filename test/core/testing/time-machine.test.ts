import t from 'tap';
import { Guest, type GuestOptions } from '../../../core/testing/guest/guest.ts';
import { TimeMachine } from '../../../core/testing/guest/time-machine.ts';
import { TrafficRecorder } from '../../../core/testing/traffic/recorder.ts';
import type { Access } from '../../../core/testing/traffic/traffic.ts';
import { pcTestdev } from '../../../devices/pc-testdev.ts';
import { pc } from '../../../machines/pc.ts';
import { echoGuest } from './echo-guest.ts';

const options: GuestOptions = {
  machine: pc,
  kernel: echoGuest,
  memory: 16 * 2 ** 20,
  devices: [{ driver: pcTestdev, id: 'counter' }],
  deterministic: true,
};
const latchRegion = (guest: Guest) => {
  const range = guest.machine.ports.find(0xe0);
  if (range === undefined) throw new Error('no latch');
  return range.region;
};
const latch = (guest: Guest): number => guest.machine.ports.read(0xe8, 1);
t.setTimeout(240_000);

/** All that a run is: each access to the serial port and the latch with its virtual time, what was said, and the CPU at the end. */
interface Run {
  readonly accesses: readonly Access[];
  readonly said: string;
}

t.test('a run is repeated bit for bit from its inputs', async t => {
  const record = (guest: Guest): TrafficRecorder => {
    const range = guest.machine.ports.find(0x3f8);
    if (range === undefined) throw new Error('no serial port');
    return new TrafficRecorder(range.region, guest.machine.clocks.virtual);
  };
  const ended = (guest: Guest, recorder: TrafficRecorder): Run => {
    guest.pause();
    // Up to the last character: how far the guest gets before it is stopped is the host's affair.
    const last = recorder.accesses.findLastIndex(access => access.kind === 'write');
    return { accesses: recorder.accesses.slice(0, last + 1), said: guest.console.output };
  };
  using first = await Guest.make(options);
  const recorder = record(first);
  first.resume();
  await first.expect('ready> ');
  for (const word of ['hello ', 'world, ', 'the end']) {
    first.type(word);
    await first.expect(word);
    await new Promise(resolve => setTimeout(resolve, 5));
  }
  const run = ended(first, recorder);
  t.equal(first.inputs.length, 3);

  using second = await Guest.make(options);
  const again = record(second);
  second.replay(first.inputs);
  second.resume();
  await second.expect('the end');
  const repeated = ended(second, again);
  t.equal(repeated.said, run.said);
  t.equal(repeated.accesses.length, run.accesses.length);
  t.same(repeated.accesses, run.accesses, 'every access, its value and its time');
});

t.test('back to the n-th register access', async t => {
  using guest = await Guest.boot(options);
  await guest.expect('ready> ');
  const travel = new TimeMachine(guest, latchRegion(guest));
  guest.resume();
  guest.type('abcdefghijklmno');
  await guest.expect('mno');
  guest.pause();
  t.equal(travel.position, 15);
  const times = travel.history.map(access => access.timeNs);
  for (const count of [5, 12, 3]) {
    await travel.to(count);
    t.equal(travel.position, count);
    t.equal(latch(guest), count, `the latch after write ${count}`);
    t.equal(guest.machine.power.running, false);
  }
  await travel.to(7);
  await travel.back();
  t.same([travel.position, latch(guest)], [6, 6]);
  travel.checkpoint();
  await travel.to(15);
  t.same(
    travel.history.map(access => access.timeNs),
    times,
    'at the same virtual times',
  );
  guest.resume();
  guest.type('and on');
  await guest.expect('and on');
  t.ok(travel.position > 15);
});
