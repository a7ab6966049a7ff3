import { type ChildProcess, fork } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { FdSocket } from '../../core/char/fd-socket.ts';
import { NullChardev } from '../../core/char/simple.ts';
import { SocketChardev } from '../../core/char/socket.ts';
import type { IrqLine } from '../../core/irq/line.ts';
import { driverView } from '../../core/register/register.ts';
import { type Bench, bench } from '../../core/testing/bench.ts';
import { StandInTpm } from '../../core/testing/stand-in-tpm.ts';
import { CAP } from '../../core/tpm/control-channel.ts';
import { TpmEmulator } from '../../core/tpm/emulator.ts';
import { tpmCrb, tpmCrbRegisters } from '../../devices/tpm/tpm-crb.ts';
import { ACCESS, INT, STS, TIS_REG, tpmTis } from '../../devices/tpm/tpm-tis.ts';
import { RunningProgram, runToEnd } from '../core/control/program.ts';
import { until } from '../until.ts';

t.setTimeout(180_000);

const EMULATOR = fileURLToPath(new URL('./tpm-emulator.js', import.meta.url));
const BASE = 0xfed4_0000;
const [ECHO, HANG, SELF_TEST, HUGE] = [0x1000, 0x1001, 0x53, 0x1002];
const EVERYTHING = Object.values(CAP).reduce((all, cap) => all | cap, 0);
const IRQ = 5;

/** What the emulator tells of what it was told. */
interface Told {
  readonly listening?: boolean;
  readonly closed?: boolean;
  readonly command?: number;
  readonly length?: number;
  readonly control?: string;
  readonly parameter?: number;
  readonly blob?: string;
  readonly type?: number;
}

interface Emulator {
  readonly path: string;
  readonly child: ChildProcess;
  readonly told: Told[];
}

async function startEmulator(t: Test, { version = '2.0', caps = EVERYTHING } = {}): Promise<Emulator> {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-tpm-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, 'control');
  const told: Told[] = [];
  const child = fork(EMULATOR, [path, version, String(caps)]);
  t.teardown(() => child.kill());
  child.on('message', message => told.push(message as Told));
  await until(() => told.some(({ listening }) => listening));
  return { path, child, told };
}

async function connect(t: Test, path: string): Promise<SocketChardev> {
  const chardev = new SocketChardev('chr', {
    ...{ address: { type: 'unix', path }, server: false, wait: false, telnet: false, nodelay: false, reconnect: 0 },
    upgrade: socket => FdSocket.adopt(socket),
  });
  t.teardown(() => chardev.dispose());
  await chardev.open();
  return chardev;
}

interface Tpm extends Emulator {
  readonly tpm: TpmEmulator;
  readonly errors: string[];
  readonly controls: () => string[];
}

async function start(t: Test, options: { version?: string; caps?: number; awaitsState?: boolean } = {}): Promise<Tpm> {
  const emulator = await startEmulator(t, options);
  const errors: string[] = [];
  const tpm = TpmEmulator.open('tpm0', await connect(t, emulator.path), {
    error: message => errors.push(message),
    awaitsState: () => options.awaitsState ?? false,
  });
  return { ...emulator, tpm, errors, controls: () => emulator.told.flatMap(({ control }) => control ?? []) };
}

function message(code: number, payload: readonly number[] = []): number[] {
  const size = 10 + payload.length;
  return [
    0x80,
    0x01,
    0,
    0,
    size >> 8,
    size & 0xff,
    ...[24, 16, 8, 0].map(shift => (code >>> shift) & 0xff),
    ...payload,
  ];
}

/** The driver's side of a FIFO. */
class FifoDriver {
  readonly lab: Bench;
  readonly #memory: Bench['machine']['memory'];
  constructor(lab: Bench) {
    this.lab = lab;
    this.#memory = lab.machine.memory;
  }
  read(register: number, size = 4, locality = 0): number {
    return this.#memory.read(BASE + locality * 0x1000 + register, size);
  }
  write(register: number, value: number, size = 4, locality = 0): void {
    this.#memory.write(BASE + locality * 0x1000 + register, size, value);
  }
  access(locality = 0): number {
    return this.read(TIS_REG.ACCESS, 1, locality);
  }
  status(): number {
    return this.read(TIS_REG.STS);
  }
  /** Gives a command byte by byte, as the burst count allows. */
  send(bytes: readonly number[], locality = 0): void {
    this.write(TIS_REG.STS, STS.COMMAND_READY, 4, locality);
    for (const byte of bytes) this.write(TIS_REG.DATA_FIFO, byte, 1, locality);
    this.write(TIS_REG.STS, STS.TPM_GO, 1, locality);
  }
  answered(): Promise<void> {
    return until(() => (this.status() & STS.DATA_AVAIL) !== 0);
  }
  receive(size = 1): number[] {
    const bytes: number[] = [];
    while ((this.status() & STS.DATA_AVAIL) !== 0) {
      const value = this.read(TIS_REG.DATA_FIFO, size);
      for (let at = 0; at < size; at++) bytes.push((value >>> (8 * at)) & 0xff);
    }
    return bytes;
  }
}

/** A machine with `tpm` behind a FIFO, running, locality 0 active. */
function fifo(t: Test, tpm: TpmEmulator): { driver: FifoDriver; irq: IrqLine } {
  const lab = bench();
  t.teardown(() => lab.dispose());
  lab.isa(tpmTis, { tpmdev: tpm, irq: IRQ });
  const driver = new FifoDriver(lab);
  driver.write(TIS_REG.ACCESS, ACCESS.REQUEST_USE, 1);
  const irq = lab.isaIrqs[IRQ];
  if (irq === undefined) throw new Error('there is no such line');
  return { driver, irq };
}

t.test('a command goes through the FIFO, and its answer comes with an interrupt', async t => {
  const { tpm, told, controls, errors } = await start(t);
  const { driver, irq } = fifo(t, tpm);
  driver.write(TIS_REG.INT_ENABLE, INT.GLOBAL_ENABLE | INT.DATA_AVAIL | INT.COMMAND_READY);
  t.equal(driver.status() >>> 8, (STS.TPM_FAMILY_2_0 >>> 8) | 2048, 'room for what the TPM takes');
  driver.write(TIS_REG.STS, STS.COMMAND_READY);
  t.equal(irq.level, true, 'ready');
  driver.write(TIS_REG.INT_STATUS, INT.COMMAND_READY);
  t.equal(irq.level, false);
  driver.send(message(ECHO, [1, 2, 3]));
  await driver.answered();
  t.equal(irq.level, true, 'there is an answer');
  t.equal(driver.read(TIS_REG.INT_STATUS), INT.DATA_AVAIL | INT.STS_VALID);
  driver.write(TIS_REG.INT_STATUS, INT.DATA_AVAIL);
  t.equal(irq.level, true, 'another one is left');
  driver.write(TIS_REG.INT_STATUS, INT.STS_VALID);
  t.equal(irq.level, false);
  t.equal((driver.status() >>> 8) & 0xffff, 13, 'burst count');
  t.same(driver.receive(), message(0, [1, 2, 3]));
  t.equal(driver.read(TIS_REG.DATA_FIFO, 1), 0xff, 'no more');
  driver.write(TIS_REG.STS, STS.RESPONSE_RETRY, 1);
  t.same(driver.receive(4).slice(0, 13), message(0, [1, 2, 3]), 'once more, four bytes at a time');
  await until(() => told.some(({ command }) => command === ECHO));
  t.same([...new Set(controls())], ['STOP', 'SET_BUFFERSIZE', 'INIT', 'SET_LOCALITY'], 'powered up, and told who asks');
  t.equal(told.filter(({ command }) => command === ECHO)[0]?.length, 13);
  t.same(errors, []);
});

t.test('a command that is longer than the TPM takes is cut, and one too short is waited for', async t => {
  const { tpm } = await start(t);
  const { driver } = fifo(t, tpm);
  driver.write(TIS_REG.STS, STS.COMMAND_READY);
  for (const byte of message(ECHO, [9]).slice(0, 8)) driver.write(TIS_REG.DATA_FIFO, byte, 1);
  t.equal(driver.status() & (STS.EXPECT | STS.STS_VALID), STS.EXPECT | STS.STS_VALID);
  driver.write(TIS_REG.STS, STS.TPM_GO);
  t.equal(driver.status() & STS.EXPECT, STS.EXPECT, 'it is not executed');
  driver.write(TIS_REG.STS, STS.COMMAND_READY);
  t.equal(driver.status() & 0xff, STS.COMMAND_READY, 'given up');
  const tooLong = message(ECHO, new Array<number>(4000).fill(7));
  for (const byte of tooLong) driver.write(TIS_REG.DATA_FIFO, byte, 1);
  t.equal(driver.status() & STS.EXPECT, 0);
  t.equal((driver.status() >>> 8) & 0xffff, 0, 'no room');
  driver.write(TIS_REG.STS, STS.COMMAND_READY);
  driver.send(message(SELF_TEST));
  await driver.answered();
  t.equal(driver.status() & STS.SELF_TEST_DONE, STS.SELF_TEST_DONE);
});

t.test('a higher locality takes the TPM from a command that is under way', async t => {
  const { tpm, told } = await start(t);
  const { driver } = fifo(t, tpm);
  driver.send(message(HANG));
  await until(() => told.some(({ command }) => command === HANG));
  driver.write(TIS_REG.ACCESS, ACCESS.SEIZE, 1, 2);
  t.equal(driver.access(0) & ACCESS.ACTIVE_LOCALITY, ACCESS.ACTIVE_LOCALITY, 'until it has ended');
  await until(() => (driver.access(2) & ACCESS.ACTIVE_LOCALITY) !== 0);
  t.equal(driver.access(0) & (ACCESS.ACTIVE_LOCALITY | ACCESS.BEEN_SEIZED), ACCESS.BEEN_SEIZED);
  await until(() => told.some(({ control }) => control === 'CANCEL'));
  driver.send(message(ECHO, [5]), 2);
  await until(() => (driver.read(TIS_REG.STS, 4, 2) & STS.DATA_AVAIL) !== 0);
  await until(() => told.some(({ command }) => command === ECHO));
  t.same(
    told.filter(({ control }) => control === 'SET_LOCALITY').map(({ parameter }) => (parameter ?? 0) >>> 24),
    [0, 2],
  );
});

t.test('a reset ends what is under way, and its answer is nobody’s', async t => {
  const { tpm, told, controls } = await start(t);
  const { driver } = fifo(t, tpm);
  driver.send(message(HANG));
  await until(() => told.some(({ command }) => command === HANG));
  driver.lab.machine.resetDevices();
  t.equal(driver.read(TIS_REG.STS), 0xffff_ffff, 'no locality is active');
  driver.write(TIS_REG.ACCESS, ACCESS.REQUEST_USE, 1);
  t.equal(driver.status() & 0xff, 0);
  driver.send(message(ECHO, [1]));
  await driver.answered();
  t.same(driver.receive(), message(0, [1]), 'the next answer is the next command’s');
  await until(() => told.some(({ command }) => command === ECHO));
  t.equal(controls().filter(name => name === 'INIT').length, 2);
});

t.test('a command and response buffer', async t => {
  const { tpm, told, child, errors } = await start(t);
  const lab = bench();
  t.teardown(() => lab.dispose());
  const { memory, system } = lab.machine;
  system.plug(tpmCrb, {}, { tpmdev: tpm });
  lab.machine.resetDevices();
  const regs = driverView(tpmCrbRegisters, {
    read: (offset, size) => memory.read(BASE + offset, size),
    write: (offset, size, value) => memory.write(BASE + offset, size, value),
  });
  const command = (bytes: readonly number[]): void => {
    for (const [offset, byte] of bytes.entries()) memory.write(BASE + 0x80 + offset, 1, byte);
    regs.CTRL_START.value = 1;
  };
  const answer = (length: number): number[] =>
    Array.from({ length }, (_, offset) => memory.read(BASE + 0x80 + offset, 1));
  t.equal(regs.CTRL_CMD_LADDR.value, BASE + 0x80);
  command(message(ECHO, [1]));
  t.equal(regs.CTRL_START.value, 0, 'nobody has the locality');
  regs.LOC_CTRL.value = 1;
  t.equal(regs.LOC_STATE.value, 0x83);
  t.equal(regs.LOC_STS.value, 1);
  regs.CTRL_REQ.value = 1;
  t.equal(regs.CTRL_STS.value, 0, 'not idle');
  command(message(ECHO, [1, 2, 3, 4]));
  t.equal(regs.CTRL_START.value, 1);
  await until(() => regs.CTRL_START.value === 0);
  t.same(answer(14), message(0, [1, 2, 3, 4]));
  command(message(HANG));
  await until(() => told.some(({ command }) => command === HANG));
  regs.CTRL_CANCEL.value = 1;
  await until(() => regs.CTRL_START.value === 0);
  t.same(answer(10), message(0x909), 'TPM_RC_CANCELED');
  // The TPM goes away.
  child.kill();
  await until(() => child.signalCode !== null);
  command(message(ECHO, [1]));
  await until(() => regs.CTRL_START.value === 0);
  t.same(answer(10), [0, 0xc4, 0, 0, 0, 10, 0, 0, 0, 9], 'TPM_FAIL');
  t.equal(regs.CTRL_STS.value & 1, 1, 'fatal');
  regs.LOC_CTRL.value = 2;
  t.equal(regs.LOC_STATE.value, 0x81);
  t.same(errors, []);
});

t.test('an answer that does not fit is none', async t => {
  const { tpm } = await start(t);
  const { driver } = fifo(t, tpm);
  driver.send(message(HUGE));
  await driver.answered();
  t.same(driver.receive(), [0, 0xc4, 0, 0, 0, 10, 0, 0, 0, 9]);
});

t.test('what the TPM remembers goes where the machine goes', async t => {
  const from = await start(t);
  const { driver } = fifo(t, from.tpm);
  driver.send(message(HANG));
  await until(() => from.told.some(({ command }) => command === HANG));
  driver.write(TIS_REG.STS, STS.COMMAND_CANCEL);
  const [device] = [...driver.lab.machine.devices()].filter(({ typeName }) => typeName === 'tpm-tis');
  const saved = device?.save() ?? {};
  from.tpm.resumed();
  await until(() => from.told.some(({ control }) => control === 'LOCK_STORAGE'));

  const to = await start(t, { awaitsState: true });
  const other = fifo(t, to.tpm);
  const [copy] = [...other.driver.lab.machine.devices()].filter(({ typeName }) => typeName === 'tpm-tis');
  copy?.restore(saved);
  t.same(other.driver.receive(), message(0x909), 'the answer of before');
  other.driver.send(message(ECHO, [3]));
  await other.driver.answered();
  t.same(other.driver.receive(), message(0, [3]));
  await until(() => to.told.some(({ command }) => command === ECHO));
  t.same(
    to.told.filter(({ blob }) => blob !== undefined),
    [1, 2, 3].map(type => ({ blob: `state ${type}`, type })),
  );
  const inits = to.told.filter(({ control }) => control === 'INIT').map(({ parameter }) => parameter);
  t.same(inits, [1], 'started once, with what it got');

  const without = await start(t, { caps: EVERYTHING & ~CAP.GET_STATEBLOB });
  const lab = bench();
  t.teardown(() => lab.dispose());
  const stuck = lab.isa(tpmTis, { tpmdev: without.tpm });
  lab.machine.resetDevices();
  t.throws(() => stuck.save(), { message: 'Migration disabled: TPM emulator does not support migration' });
});

t.test('a TPM 1.2', async t => {
  const { tpm } = await start(t, { version: '1.2' });
  t.equal(tpm.version, '1.2');
  const { driver } = fifo(t, tpm);
  t.equal(driver.read(TIS_REG.INTF_CAPABILITY) >>> 28, 2);
  t.equal(driver.read(TIS_REG.INTERFACE_ID), 0xffff_ffff);
  t.equal(driver.status() & STS.TPM_FAMILY, 0);
});

t.test('words that system and firmware leave each other outlive a reset; secrets do not', t => {
  const lab = bench();
  t.teardown(() => lab.dispose());
  const { memory } = lab.machine;
  lab.isa(tpmTis, { tpmdev: new StandInTpm('tpm0') });
  lab.machine.resetDevices();
  memory.write(0x1000, 4, 0x5ec4e7);
  memory.write(BASE + 0x5101, 4, 0x1122_3344);
  lab.machine.resetDevices();
  t.equal(memory.read(BASE + 0x5101, 4), 0x1122_3344);
  t.equal(memory.read(0x1000, 4), 0x5ec4e7);
  memory.write(BASE + 0x515a, 1, 1);
  lab.machine.resetDevices();
  t.equal(memory.read(0x1000, 4), 0, 'the system asked for memory to be cleared');
  t.end();
});

t.test('what cannot be is said', async t => {
  const { tpm, errors } = await start(t);
  const lab = bench();
  t.teardown(() => lab.dispose());
  t.throws(() => lab.isa(tpmTis), { code: 'ERR_TPM', message: "'tpmdev' property is required" });
  t.throws(() => lab.isa(tpmTis, { tpmdev: tpm, irq: 16 }), { message: 'IRQ 16 is outside valid range of 0 to 15' });
  lab.isa(tpmTis, { tpmdev: tpm });
  t.throws(() => lab.machine.system.plug(tpmCrb, {}, { tpmdev: tpm }), {
    message: "TPM backend 'tpm0' is already initialized",
  });
  const host = { error: (text: string) => void errors.push(text), awaitsState: () => false };
  t.throws(() => TpmEmulator.open('t', new NullChardev('null'), host), { message: /Failed to send CMD_SET_DATAFD/ });
  const { path } = await startEmulator(t, { caps: EVERYTHING & ~CAP.RESET_TPMESTABLISHED });
  const chardev = await connect(t, path);
  t.throws(() => TpmEmulator.open('t', chardev, host), {
    message: 'tpm-emulator: TPM does not implement minimum set of required capabilities for TPM 2 (0x348f)',
  });
  t.same(errors, []);
});

t.test('the command line makes one, and monitors tell of it', async t => {
  const { path, told } = await startEmulator(t);
  const options = `-chardev socket,id=c,path=${path} -tpmdev emulator,id=t,chardev=c -device tpm-crb,tpmdev=t`;
  const program = await RunningProgram.start('-machine', 'q35', ...options.split(' '));
  await program.execute('qmp_capabilities');
  t.same(await program.execute('query-tpm'), {
    return: [{ id: 't', model: 'tpm-crb', options: { type: 'emulator', data: { chardev: 'c' } } }],
  });
  t.same(await program.execute('query-tpm-models'), { return: ['tpm-crb', 'tpm-tis'] });
  t.same(await program.execute('query-tpm-types'), { return: ['emulator'] });
  t.same(await program.execute('human-monitor-command', { 'command-line': 'info tpm' }), {
    return: 'TPM device:\r\n tpm0: model=tpm-crb\r\n  \\ t: type=emulator,chardev=c\r\n',
  });
  t.equal(await program.command('readl 0xfed40030'), 'OK 0x0000000000025811', 'INTF_ID');
  t.equal(await program.stop(), 0);
  await until(() => told.some(({ control }) => control === 'SHUTDOWN'));
  const { code, errors } = await runToEnd('-machine', 'q35', '-tpmdev', 'emulator,id=t,chardev=none');
  t.equal(code, 1);
  t.match(errors, "tpm-emulator: tpm chardev 'none' not found");
});
