import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { ms } from '../../../core/clock/units.ts';
import { bench } from '../../../core/testing/bench.ts';
import { QtestClient } from '../../../core/testing/traffic/qtest-port.ts';
import { replay } from '../../../core/testing/traffic/replay.ts';
import { formatTraffic, parseMmiotrace, parseTraffic, type Traffic } from '../../../core/testing/traffic/traffic.ts';
import { edu, eduRegisters } from '../../../devices/edu.ts';
import { tickCard, tickRegisters } from '../../../docs/examples/tick-card.ts';
import { findQemu, type Player, southbridge } from '../../oracle/qtest-player.ts';

t.setTimeout(240_000);

/** A driver's session with the edu card: a factorial, with its interrupt. */
function session(): Traffic {
  using lab = bench();
  const card = lab.pci(edu);
  const recorder = card.record(0);
  const regs = card.bar(0, eduRegisters);
  regs.ID.value;
  regs.LIVENESS.value = 0x1234;
  regs.LIVENESS.value;
  regs.STATUS.IRQ_ON_FACTORIAL = true;
  regs.FACTORIAL.value = 6;
  regs.STATUS.COMPUTING;
  lab.clock.advance(ms(1));
  regs.FACTORIAL.value;
  regs.IRQ_STATUS.value;
  regs.IRQ_ACK.value = 1;
  regs.IRQ_STATUS.value;
  return recorder.stop();
}

t.test('traffic as text', async t => {
  const traffic = session();
  const text = formatTraffic(traffic);
  t.match(text, /^# southbridge traffic of edu\n0 r 4 0x0 0x010000ed\n0 w 4 0x4 0x00001234\n0 r 4 0x4 0xffffedcb\n/);
  t.match(text, /\n1000000 r 4 0x8 0x000002d0\n/);
  t.same(parseTraffic(text), { ...traffic });
  t.throws(() => parseTraffic('nonsense'), { code: 'ERR_TRAFFIC' });
  t.throws(() => parseTraffic(text.replace('w 4', 'w 3'), 'x.txt'), { message: /^x\.txt:3: '0 w 3 0x4/ });
});

t.test('a recording replays without a difference, and against another device with named ones', async t => {
  using lab = bench();
  const traffic = session();
  t.same(await replay(traffic, lab.pci(edu).replayPort(0), { map: eduRegisters }), []);
  const other = lab.pci(tickCard);
  const differences = await replay(traffic, other.replayPort(0), {
    map: eduRegisters,
    ignore: ['FACTORIAL', 'STATUS.COMPUTING'],
  });
  t.same(
    differences.map(({ index, text }) => [index, text]),
    [
      [0, 'edu.ID: 0x10000ed was recorded, 0x7469636b is read'],
      [2, 'edu.LIVENESS: 0xffffedcb was recorded, 0x1234 is read'],
      [5, 'edu.STATUS: 0x81 (COMPUTING IRQ_ON_FACTORIAL) was recorded, 0x0 is read'],
      [7, 'edu.IRQ_STATUS: 0x1 (FACTORIAL) was recorded, 0x0 is read'],
    ],
  );
  const without = await replay(traffic, lab.pci(edu).replayPort(0), { timing: false });
  t.match(without.at(0)?.text, /^4 bytes at 0x8: 0x2d0 was recorded, 0x6 is read/, 'no time has passed');
});

t.test('a trace of real hardware', async t => {
  using lab = bench();
  const trace = `VERSION 20070824
PCIDEV 0020 1b3670ff b febc0000 0 0 0 0 0 0 1000 0 0 0 0 0 0 tick
MAP 17.000001 1 0xfebc0000 0xffffc90000a00000 0x1000 0x0 0
MAP 17.000002 2 0xfea00000 0xffffc90000b00000 0x1000 0x0 0
R 4 17.000010 1 0xfebc0000 0x7469636b 0x0 0
W 4 17.000011 1 0xfebc0004 0x1f4 0x0 0
R 4 17.000012 2 0xfea00000 0xdead 0x0 0
W 4 17.000013 1 0xfebc0008 0x1 0x0 0
R 4 17.002513 1 0xfebc0010 0x5 0x0 0
MARK 17.1 done
UNMAP 17.2 1 0x0 0
`;
  const traffic = parseMmiotrace(trace);
  t.equal(traffic.accesses.length, 4);
  t.same(await replay(traffic, lab.pci(tickCard).replayPort(0), { map: tickRegisters }), []);
  const changed = parseMmiotrace(trace.replace('0x5 ', '0x6 '), 0xfebc_0000);
  const [difference] = await replay(changed, lab.pci(tickCard).replayPort(0), { map: tickRegisters });
  t.equal(difference?.text, 'tick.COUNT: 0x6 was recorded, 0x5 is read');
  t.equal(parseMmiotrace(trace, 0xfea0_0000).accesses.length, 1);
  t.throws(() => parseMmiotrace(trace, 0x1000), { code: 'ERR_TRAFFIC', hint: 'it maps 0xfebc0000, 0xfea00000' });
  t.throws(() => parseMmiotrace('VERSION 20070824'), { code: 'ERR_TRAFFIC', hint: 'it maps nothing' });
});

const BAR = 0xe000_0000;

/** Starts a machine with the edu card, places its BAR, and replays. */
async function replayOn(player: Player, traffic: Traffic): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-traffic-'));
  const server = createServer().listen(join(folder, 'qtest'));
  const [program = '', ...args] = player.command;
  const options = ['-machine', 'pc', '-nodefaults', '-display', 'none', '-device', 'edu,addr=05.0'];
  const child = spawn(
    program,
    [...args, ...options, '-qtest', `unix:${join(folder, 'qtest')}`, '-qtest-log', '/dev/null'],
    { stdio: 'ignore' },
  );
  try {
    const [socket] = (await once(server, 'connection')) as [Socket];
    const client = QtestClient.over(socket);
    const config = client.port('io', 0xcf8);
    for (const [register, value] of [
      [0x10, BAR],
      [0x04, 7],
    ] as const) {
      await config.write(0, 4, 0x8000_2800 | register);
      await config.write(4, 4, value);
    }
    const port = client.port('memory', BAR, { stepsClock: player.stepsClock });
    const ignore = player.stepsClock ? [] : ['FACTORIAL', 'IRQ_STATUS', 'STATUS.COMPUTING'];
    const differences = await replay(traffic, port, { map: eduRegisters, ignore });
    client.close();
    return differences.map(({ text }) => text);
  } finally {
    const exited = once(child, 'exit');
    child.kill();
    await exited;
    server.close();
    rmSync(folder, { recursive: true });
  }
}

t.test('against a qtest server of ours', async t => t.same(await replayOn(southbridge, session()), []));

const qemu = findQemu();
t.test("against QEMU's qtest server", { skip: qemu === undefined && 'there is no QEMU here' }, async t => {
  if (qemu !== undefined) t.same(await replayOn(qemu, session()), []);
});
