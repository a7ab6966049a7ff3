/** IPMI: the BMC's commands through each of its interfaces, as drivers use them. */
import t from 'tap';
import { Chardev } from '../../core/char/chardev.ts';
import { ms, seconds } from '../../core/clock/units.ts';
import type { Device } from '../../core/device/device.ts';
import type { DeviceType } from '../../core/device/device-type.ts';
import { Bench } from '../../core/testing/bench.ts';
import { ich9Smbus } from '../../devices/ich9/smbus.ts';
import { ipmiBmcExtern } from '../../devices/ipmi/bmc-extern.ts';
import { btRegisters } from '../../devices/ipmi/bt.ts';
import { isaIpmiBt, isaIpmiKcs } from '../../devices/ipmi/isa-ipmi.ts';
import { KCS_CODE, KCS_STATE, kcsRegisters } from '../../devices/ipmi/kcs.ts';
import { checksum } from '../../devices/ipmi/message.ts';
import { pciIpmiBt, pciIpmiKcs } from '../../devices/ipmi/pci-ipmi.ts';
import { ipmiBmcSim } from '../../devices/ipmi/sim/bmc-sim.ts';
import { smbusIpmi } from '../../devices/ipmi/smbus-ipmi.ts';
import { RunningProgram } from '../core/control/program.ts';

type Registers<M extends typeof kcsRegisters | typeof btRegisters> = ReturnType<typeof Bench.prototype.ports<M>>;
/** Sends a request, and returns what comes behind network function and command: the completion code and data. */
type Send = (netfn: number, command: number, ...data: number[]) => number[];

const [CHASSIS, SENSOR, APP, STORAGE] = [0x00, 0x04, 0x06, 0x0a];
const GET_DEVICE_ID = [0, 0x20, 0, 0, 0, 2, 7, 0, 0, 0, 0, 0];

function makeBmc(lab: Bench, type: DeviceType = ipmiBmcSim, props: Readonly<Record<string, unknown>> = {}): Device {
  return lab.machine.system.plug(type, {}, props);
}

function must(condition: boolean): void {
  if (!condition) throw new Error('the interface is out of step with its driver');
}

/** A message by the flow of section 9.15. */
function kcs(regs: Registers<typeof kcsRegisters>): Send {
  const byte = (value: number): void => {
    must(!regs.STATUS.IBF && regs.STATUS.STATE === KCS_STATE.WRITE);
    void regs.DATA_OUT.value;
    regs.DATA_IN.value = value;
  };
  return (netfn, command, ...data) => {
    const request = [netfn << 2, command, ...data];
    regs.COMMAND.value = KCS_CODE.WRITE_START;
    for (const value of request.slice(0, -1)) byte(value);
    void regs.DATA_OUT.value;
    regs.COMMAND.value = KCS_CODE.WRITE_END;
    byte(request.at(-1) ?? 0);
    const response: number[] = [];
    while (regs.STATUS.STATE === KCS_STATE.READ) {
      must(regs.STATUS.OBF);
      response.push(regs.DATA_OUT.value);
      regs.DATA_IN.value = KCS_CODE.READ;
    }
    must(regs.STATUS.STATE === KCS_STATE.IDLE);
    void regs.DATA_OUT.value;
    must(response[0] === (netfn + 1) << 2 && response[1] === command);
    return response.slice(2);
  };
}

/** A message by the flow of section 11.6. */
function bt(regs: Registers<typeof btRegisters>): Send {
  let sequence = 0;
  return (netfn, command, ...data) => {
    t.equal(regs.BT_CTRL.B_BUSY, false);
    regs.BT_CTRL.CLR_WR_PTR = true;
    const request = [netfn << 2, ++sequence, command, ...data];
    for (const value of [request.length, ...request]) regs.HOST2BMC.value = value;
    regs.BT_CTRL.H2B_ATN = true;
    t.equal(regs.BT_CTRL.B2H_ATN, true);
    regs.BT_CTRL.H_BUSY = true;
    t.equal(regs.BT_CTRL.H_BUSY, true);
    regs.BT_CTRL.B2H_ATN = true;
    t.equal(regs.BT_CTRL.B2H_ATN, false, 'writing 1 clears');
    regs.BT_CTRL.CLR_RD_PTR = true;
    const response = Array.from({ length: regs.BMC2HOST.value }, () => regs.BMC2HOST.value);
    t.equal(regs.BMC2HOST.value, 0xff, 'nothing behind it');
    regs.BT_CTRL.H_BUSY = true;
    t.equal(regs.BT_CTRL.H_BUSY, false);
    t.same(response.slice(0, 3), [(netfn + 1) << 2, sequence, command]);
    return response.slice(3);
  };
}

function kcsLab(props: Readonly<Record<string, unknown>> = {}): { lab: Bench; send: Send; bmc: Device; card: Device } {
  const lab = new Bench();
  t.teardown(() => lab.dispose());
  const bmc = makeBmc(lab, ipmiBmcSim, props);
  const card = lab.isa(isaIpmiKcs, { bmc });
  return { lab, bmc, card, send: kcs(lab.ports(0xca2, kcsRegisters)) };
}

t.test('the interfaces carry messages', async t => {
  const { send, lab, bmc } = kcsLab();
  t.same(send(APP, 0x01), GET_DEVICE_ID);
  t.throws(() => lab.isa(isaIpmiBt, { bmc }), { message: 'BMC object is already in use' });
  t.throws(() => lab.isa(isaIpmiBt, {}), { message: 'IPMI device requires a bmc attribute to be set' });
  t.throws(() => lab.isa(isaIpmiBt, { bmc: 'none' }), { message: "Device 'none' not found" });

  lab.isa(isaIpmiBt, { bmc: makeBmc(lab) });
  const blocks = bt(lab.ports(0xe4, btRegisters));
  t.same(blocks(APP, 0x01), GET_DEVICE_ID);
  t.same(blocks(APP, 0x36), [0, 1, 0xff, 0xff, 10, 0], 'the interface itself answers');

  const styles = lab.pci(pciIpmiKcs, { bmc: makeBmc(lab) });
  t.equal(styles.readConfig(8, 4), 0x0c07_0101);
  t.same(kcs(styles.bar(0, kcsRegisters))(APP, 0x01), GET_DEVICE_ID);
  t.equal(styles.port(0).read(5, 1), 0xff);
  const transfers = lab.pci(pciIpmiBt, { bmc: makeBmc(lab) });
  t.equal(transfers.readConfig(8, 4), 0x0c07_0201);
  t.same(bt(transfers.bar(0, btRegisters))(APP, 0x01), GET_DEVICE_ID);
});

t.test('KCS: aborts, wrong codes and interrupts', async t => {
  const { lab, send } = kcsLab();
  const regs = lab.ports(0xca2, kcsRegisters);
  const irq = lab.isaIrqs[5];
  regs.DATA_IN.value = 5;
  t.equal(regs.STATUS.STATE, KCS_STATE.IDLE, 'data without a command is nothing');
  regs.COMMAND.value = 0x99;
  t.equal(regs.STATUS.STATE, KCS_STATE.ERROR);
  regs.COMMAND.value = KCS_CODE.GET_STATUS_ABORT;
  regs.DATA_IN.value = 0;
  t.equal(regs.DATA_OUT.value, 0x02, 'illegal control code');
  regs.DATA_IN.value = KCS_CODE.READ;
  t.equal(regs.STATUS.STATE, KCS_STATE.IDLE);

  regs.COMMAND.value = KCS_CODE.WRITE_START;
  regs.DATA_IN.value = APP << 2;
  regs.COMMAND.value = KCS_CODE.GET_STATUS_ABORT;
  t.equal(regs.STATUS.STATE, KCS_STATE.ERROR);
  regs.DATA_IN.value = 0;
  t.equal(regs.DATA_OUT.value, 0x01, 'aborted by command');
  regs.DATA_IN.value = KCS_CODE.READ;
  void regs.DATA_OUT.value;

  t.equal(irq?.level, false);
  t.same(send(APP, 0x2e, 0x0f), [0]);
  t.same(send(APP, 0x2f), [0, 0x0f]);
  regs.COMMAND.value = KCS_CODE.WRITE_START;
  t.equal(irq?.level, true, 'output is there');
  void regs.DATA_OUT.value;
  t.equal(irq?.level, false);
  regs.COMMAND.value = KCS_CODE.GET_STATUS_ABORT;
  regs.DATA_IN.value = 0;
  void regs.DATA_OUT.value;
  regs.DATA_IN.value = KCS_CODE.READ;
  void regs.DATA_OUT.value;
  t.same(send(APP, 0x01), GET_DEVICE_ID);
  t.same(send(0x3a, 1), [0xc1], 'no such network function');
  t.same(send(APP, 0x99), [0xc1]);
  t.same(send(APP, 0x2e), [0xc7], 'too short');
  t.same(send(APP, 0x01, ...new Array<number>(400).fill(0)), [0xc6], 'too long');
});

t.test('device, chassis and messages', async t => {
  const { send } = kcsLab({ guid: '01234567-89ab-cdef-0123-456789abcdef', mfg_id: 0x123456, product_id: 0x789a });
  t.same(send(APP, 0x01).slice(-5), [0x56, 0x34, 0x12, 0x9a, 0x78]);
  t.equal(send(APP, 0x08).length, 17);
  t.same(kcsLab().send(APP, 0x08), [0xc1], 'no GUID was given');
  t.same(send(APP, 0x06, 1, 2), [0]);
  t.same(send(APP, 0x07), [0, 1, 2]);
  t.same(send(CHASSIS, 0x00), [0, 0, 0x20, 0x20, 0x20, 0x20]);
  t.same(send(CHASSIS, 0x01), [0, 0x61, 0, 0, 0]);
  t.same(send(CHASSIS, 0x09), [0, 0, 0]);
  t.same(send(CHASSIS, 0x02, 1), [0xd5], 'power is on already');
  t.same(send(CHASSIS, 0x02, 9), [0xcc]);

  // Get Device ID to the controller at 40h, by Send Message.
  const message = [0x40, APP << 2, 0, 0x20, (3 << 2) | 2, 0x01];
  message[2] = checksum(Uint8Array.from(message.slice(0, 2)));
  const whole = [...message, checksum(Uint8Array.from(message))];
  t.same(send(APP, 0x33), [0x80], 'nothing there');
  t.same(send(APP, 0x34, 0, ...whole), [0]);
  t.same(send(APP, 0x31), [0, 1]);
  const [completion, channel, ...answer] = send(APP, 0x33);
  t.same([completion, channel], [0, 0]);
  t.equal(checksum(Uint8Array.from(answer)), 0);
  t.same(answer.slice(0, 1), [((APP + 1) << 2) | 2]);
  t.same(answer.slice(2, 6), [0x40, 3 << 2, 0x01, 0]);
  t.same(send(APP, 0x31), [0, 0]);
  t.same(send(APP, 0x34, 0, 0x42, ...whole.slice(1)), [0x83], 'nobody else is on that bus');
  t.same(send(APP, 0x34, 0, ...whole.slice(0, -1), 0), [0], 'a wrong checksum is answered by nobody');
  t.same(send(APP, 0x33), [0x80]);
});

t.test('sensors, their records and the event log', async t => {
  const { send, lab } = kcsLab();
  t.same(send(STORAGE, 0x20).slice(0, 5), [0, 0x51, 1, 0, (16384 - 40) & 0xff]);
  const reservation = send(STORAGE, 0x22).slice(1);
  const head = send(STORAGE, 0x23, 0, 0, 0, 0, 0, 5);
  t.same(head, [0, 0xff, 0xff, 0, 0, 0x51, 2, 35], 'a compact record, and no other');
  t.same(send(STORAGE, 0x23, ...reservation, 0, 0, 32, 0xff).slice(3), [...Buffer.from('Watchdog')]);
  t.same(send(STORAGE, 0x23, 9, 9, 0, 0, 1, 1), [0xc5], 'another reservation');
  t.same(send(STORAGE, 0x23, 0, 0, 7, 0, 0, 5), [0xcb]);
  t.same(send(STORAGE, 0x24, 0, 0, 0x51, 0xc0, 2, 1, 2), [0, 1, 0], 'a record of its own');
  t.same(send(STORAGE, 0x24, 0, 0, 0x51, 0xc0, 3, 1, 2), [0xcc]);

  t.same(send(SENSOR, 0x2d, 0), [0, 0, 0xc0, 0, 0], 'events and scanning are on');
  t.same(send(SENSOR, 0x2d, 5), [0xcb]);
  t.same(send(SENSOR, 0x2f, 0), [0, 0x23, 0x6f]);
  t.same(send(SENSOR, 0x30, 0, 1, 0x55), [0]);
  t.equal(send(SENSOR, 0x2d, 0)[1], 0x55);

  t.same(send(STORAGE, 0x40).slice(0, 4), [0, 0x51, 0, 0]);
  t.same(send(STORAGE, 0x43, 0, 0, 0, 0, 0, 0xff), [0xcb], 'an empty log');
  t.same(send(STORAGE, 0x49, 0x10, 0, 0, 0), [0]);
  lab.clock.advance(ms(1));
  t.same(send(STORAGE, 0x48).slice(2), [0, 0, 0], 'the clock was set');
  t.same(send(SENSOR, 0x02, 0x41, 4, 1, 2, 0x6f, 7, 8, 9), [0]);
  const record = send(STORAGE, 0x43, 0, 0, 0, 0, 0, 0xff);
  t.same(record.slice(0, 6), [0, 0xff, 0xff, 0, 0, 2]);
  t.same(record.slice(10), [0x41, 0, 4, 1, 2, 0x6f, 7, 8, 9]);
  t.same(send(STORAGE, 0x44, ...new Array<number>(16).fill(0xe0)), [0, 1, 0]);
  t.same(
    send(STORAGE, 0x43, 0, 0, 0xff, 0xff, 0, 0xff).slice(6),
    new Array(13).fill(0xe0),
    'the last; of its own time',
  );
  for (let number = 2; number < 128; number++) send(STORAGE, 0x44, ...new Array<number>(16).fill(1));
  t.same(send(STORAGE, 0x44, ...new Array<number>(16).fill(1)), [0xc4]);
  t.equal(send(STORAGE, 0x40).at(-1), 0x82, 'overflown');
  const clear = [...Buffer.from('CLR'), 0xaa];
  t.same(send(STORAGE, 0x47, 0, 0, ...clear), [0xc5]);
  t.same(send(STORAGE, 0x47, ...send(STORAGE, 0x42).slice(1), ...clear), [0, 1]);
  t.same(send(STORAGE, 0x40).slice(0, 4), [0, 0x51, 0, 0]);
});

t.test('inventory', async t => {
  const { send } = kcsLab({ fruareasize: 64 });
  t.same(send(STORAGE, 0x10, 0), [0, 64, 0, 0]);
  t.same(send(STORAGE, 0x10, 1), [0xcc]);
  t.same(send(STORAGE, 0x12, 0, 60, 0, 1, 2, 3, 4, 5), [0, 4], 'as much as there is room for');
  t.same(send(STORAGE, 0x11, 0, 59, 0, 200), [0, 5, 0, 1, 2, 3, 4]);
  t.same(send(STORAGE, 0x11, 0, 64, 0, 1), [0xcc]);
});

t.test('the watchdog warns, acts and logs', async t => {
  const { send, lab } = kcsLab();
  t.same(send(APP, 0x22), [0x80], 'not set yet');
  t.same(send(APP, 0x24, 0, 0, 0, 0, 0, 0), [0xcc], 'no use');
  t.same(send(APP, 0x24, 4, 3, 0, 0, 0, 0), [0xcc], 'a power cycle is not possible');
  t.same(send(APP, 0x24, 4, 0x10, 0, 0, 0, 0), [0xcc], 'nor is an SMI');
  send(APP, 0x2e, 0x0d);
  t.same(send(APP, 0x24, 4, 0x30, 2, 0x3e, 50, 0), [0], 'SMS/OS, a message 2 s before, 5 s, no action');
  t.same(send(APP, 0x22), [0]);
  lab.clock.advance(seconds(1));
  t.same(send(APP, 0x25), [0, 0x44, 0x30, 2, 0, 50, 0, 40, 0]);
  lab.clock.advance(seconds(2));
  const regs = lab.ports(0xca2, kcsRegisters);
  t.equal(regs.STATUS.SMS_ATN, true, 'the warning');
  t.same(send(APP, 0x31), [0, 0x0a], 'watchdog, and an event');
  const event = send(APP, 0x35);
  t.same(event.slice(-7), [4, 0x23, 0, 0x6f, 0xc8, 0x3f, 0xff]);
  t.same(send(APP, 0x35), [0x80], 'only once');
  t.same(send(APP, 0x30, 8), [0]);
  t.equal(regs.STATUS.SMS_ATN, false);
  lab.clock.advance(seconds(2));
  t.same(send(APP, 0x25).slice(0, 9), [0, 0x04, 0x30, 2, 0x10, 50, 0, 0, 0], 'expired, and stopped');
  t.equal(send(STORAGE, 0x40)[2], 2, 'both are in the log');
});

t.test('what a BMC knows outlives a reset and goes with a snapshot', async t => {
  const first = kcsLab();
  first.send(STORAGE, 0x44, ...new Array<number>(16).fill(0xe1));
  first.send(APP, 0x24, 4, 0, 0, 0, 50, 0);
  first.send(APP, 0x22);
  first.lab.clock.advance(seconds(1));
  first.bmc.reset();
  first.card.reset();
  t.equal(first.send(STORAGE, 0x40)[2], 1);
  const second = kcsLab();
  second.lab.machine.clocks.virtual.restore(first.lab.clock.now());
  second.bmc.restore(first.bmc.save());
  second.card.restore(first.card.save());
  t.equal(second.send(STORAGE, 0x40)[2], 1);
  t.same(second.send(APP, 0x25).slice(-2), [40, 0]);
  t.same(second.bmc.save(), first.bmc.save());
});

t.test('SMBus: short and long messages', async t => {
  const lab = new Bench();
  t.teardown(() => lab.dispose());
  const controller = lab.pci(ich9Smbus);
  const { smbus } = controller.device;
  const device = smbus.plug(smbusIpmi, { address: 0x10 }, { bmc: makeBmc(lab) });
  t.match(device.ipmi, { kind: 'ssif', base: 0x10 });
  const write = (command: number, bytes: readonly number[]): void => {
    device.start(false);
    for (const byte of [command, bytes.length, ...bytes]) device.receive(byte);
    device.stop();
  };
  const read = (command: number): number[] => {
    device.start(false);
    device.receive(command);
    if (!device.start(true)) return [];
    const count = device.transmit();
    const bytes = Array.from({ length: count }, () => device.transmit());
    device.stop();
    return bytes;
  };
  t.same(read(3), [], 'nothing was asked');
  write(2, [APP << 2, 0x01]);
  t.same(read(3), [(APP + 1) << 2, 0x01, ...GET_DEVICE_ID]);
  t.same(read(9), [], 'it was all in one part');
  write(2, [APP << 2, 0x57, 0]);
  t.same(read(3).slice(2), [0, 0, 0x80, 255, 255]);

  const bytes = Array.from({ length: 70 }, (_, index) => index);
  const request = [STORAGE << 2, 0x12, 0, 0, 0, ...bytes];
  write(6, request.slice(0, 32));
  write(7, request.slice(32, 64));
  write(8, request.slice(64));
  t.same(read(3).slice(2), [0, 70]);
  write(2, [STORAGE << 2, 0x11, 0, 0, 0, 70]);
  const [start, middle, end] = [read(3), read(9), read(9)];
  t.same(start.slice(0, 2), [0, 1]);
  t.same([middle[0], end[0]], [0, 0xff]);
  t.same([...start.slice(2), ...middle.slice(1), ...end.slice(1)].slice(4), bytes);
  t.same(read(9), []);
});

/** The other end of a chardev, in this process. */
class Wire extends Chardev {
  readonly sent: number[] = [];
  readonly filename = 'wire';

  constructor() {
    super('wire');
    this.opened();
  }

  say(...bytes: number[]): void {
    this.push(Buffer.from(bytes));
  }

  hang(): void {
    this.closed();
  }

  dispose(): void {}

  protected override transmit(bytes: Uint8Array): number {
    this.sent.push(...bytes);
    return bytes.length;
  }
}

t.test('a BMC in another process', async t => {
  const lab = new Bench();
  t.teardown(() => lab.dispose());
  const wire = new Wire();
  const bmc = makeBmc(lab, ipmiBmcExtern, { chardev: wire });
  lab.isa(isaIpmiBt, { bmc });
  const regs = lab.ports(0xe4, btRegisters);
  t.same(wire.sent.splice(0), [0xff, 1, 0xa1, 0x08, 0x3f, 0xa1]);
  const ask = (...data: number[]): void => {
    regs.BT_CTRL.CLR_WR_PTR = true;
    for (const value of [3 + data.length, APP << 2, 9, 0x55, ...data]) regs.HOST2BMC.value = value;
    regs.BT_CTRL.H2B_ATN = true;
  };
  const answer = (): number[] => {
    regs.BT_CTRL.B2H_ATN = true;
    return Array.from({ length: regs.BMC2HOST.value }, () => regs.BMC2HOST.value);
  };
  ask(0xa0, 0xaa);
  t.same(wire.sent.splice(0), [
    0,
    APP << 2,
    0x55,
    0xaa,
    0xb0,
    0xaa,
    0xba,
    checksum(Uint8Array.of(0, APP << 2, 0x55, 0xa0, 0xaa)),
    0xa0,
  ]);
  t.equal(regs.BT_CTRL.B_BUSY, true);
  const reply = [0, (APP + 1) << 2, 0x55, 0, 0xa1];
  wire.say(...reply.slice(0, 4), 0xaa, 0xb1, checksum(Uint8Array.from(reply)) ^ 1, 0xa0);
  t.equal(regs.BT_CTRL.B2H_ATN, false, 'a wrong checksum is no answer');
  wire.say(...reply.slice(0, 4), 0xaa, 0xb1, checksum(Uint8Array.from(reply)), 0xa0);
  t.same(answer(), [(APP + 1) << 2, 9, 0x55, 0, 0xa1]);

  regs.INTMASK.B2H_IRQ_EN = true;
  wire.say(0x05, 0xa1, 0x02, 0xa1);
  t.equal(lab.isaIrqs[5]?.level, true, 'attention, with an interrupt');
  regs.INTMASK.value = 3;
  t.equal(lab.isaIrqs[5]?.level, false);
  wire.say(0x00, 0xa1);
  t.equal(regs.BT_CTRL.SMS_ATN, false);

  ask();
  lab.clock.advance(seconds(4));
  t.same(answer(), [(APP + 1) << 2, 9, 0x55, 0xc3], 'no answer within four seconds');
  ask();
  wire.hang();
  t.same(answer(), [(APP + 1) << 2, 9, 0x55, 0xd2]);
  ask();
  t.same(answer(), [(APP + 1) << 2, 9, 0x55, 0xd2], 'and so on, until it is back');
  for (let round = 0; round < 300; round++) wire.say((round * 7919) & 0xff, (round * 104729) & 0xff);
  t.pass('survives noise');
});

t.test('a machine is reset by its BMC', async t => {
  const program = await RunningProgram.start(
    ...['-machine', 'pc', '-nodefaults', '-device', 'ipmi-bmc-sim,id=bmc0', '-device', 'isa-ipmi-kcs,bmc=bmc0'],
  );
  t.teardown(() => program.stop());
  await program.execute('qmp_capabilities');
  for (const [port, value] of [
    [0xca3, 0x61],
    [0xca2, 0],
    [0xca2, 2],
    [0xca3, 0x62],
    [0xca2, 3],
  ])
    await program.command(`outb ${port} ${value}`);
  await program.execute('query-status');
  while (!program.events.some(({ event }) => event === 'RESET')) await program.execute('query-status');
  t.match(
    program.events.find(({ event }) => event === 'RESET'),
    { data: { guest: true, reason: 'guest-reset' } },
  );
});
