import t from 'tap';
import { wasm } from '../../core/accel/wasm/accelerator.ts';
import { Machine } from '../../core/machine/machine.ts';
import { DEFAULT_CONFIG, type MachineConfig } from '../../core/machine/machine-config.ts';
import { pc } from '../../machines/pc.ts';
import { code, dword } from '../machine-code.ts';
import { until } from '../until.ts';

const PORT = 0x5658;
const MAGIC = 0x564d_5868;
const UNTOUCHED = 0x1111_1111;
const RESULTS = 0x1000;
const GO_ON = 0x0ff4;
const DONE = 0x0ff8;
const BIOS_SIZE = 0x1_0000;
const RAM_SIZE = 32 * 2 ** 20;
const UUID = '00112233-4455-6677-8899-aabbccddeeff';

interface Call {
  readonly command: number;
  readonly ebx?: number;
  readonly magic?: number;
  /** `out` instead of `in`. */
  readonly out?: boolean;
  /** Waits for the test first. */
  readonly wait?: boolean;
}

const word = (value: number): number[] => [value & 0xff, value >>> 8];

/** Does `call`, and writes EAX, EBX, ECX, EDX, ESI and EDI to `at`. */
function calling({ command, ebx = UNTOUCHED, magic = MAGIC, out = false, wait = false }: Call, at: number): number[] {
  return [
    ...(wait ? code`80 3e ${word(GO_ON)} 00 74 f9   ; cmp byte [GO_ON], 0; je $` : []),
    ...code`
      66 b8 ${dword(magic)} 66 bb ${dword(ebx)} 66 b9 ${dword(command)} 66 ba ${dword(PORT)}
      66 be ${dword(UNTOUCHED)} 66 bf ${dword(UNTOUCHED)}
      66 ${out ? 0xef : 0xed}          ; out dx, eax or in eax, dx
      66 a3 ${word(at)} 66 89 1e ${word(at + 4)} 66 89 0e ${word(at + 8)}
      66 89 16 ${word(at + 12)} 66 89 36 ${word(at + 16)} 66 89 3e ${word(at + 20)}
    `,
  ];
}

interface Outcome {
  readonly machine: Machine;
  /** EAX, EBX, ECX, EDX, ESI and EDI after each call. */
  readonly done: Promise<number[][]>;
  goOn(): void;
}

/** A PC whose firmware does `calls`, one after another. */
function calls(list: readonly Call[], config: Partial<MachineConfig> = {}): Outcome {
  const bios = new Uint8Array(BIOS_SIZE);
  bios.set([
    ...list.flatMap((call, index) => calling(call, RESULTS + 24 * index)),
    ...code`c6 06 ${word(DONE)} 01 fa f4 eb fd   ; mov byte [DONE], 1; cli; hlt`,
  ]);
  bios.set(code`ea 00 00 00 f0`, 0xfff0);
  const machine = new Machine({
    type: pc,
    config: { ...DEFAULT_CONFIG, ramSize: RAM_SIZE, uuid: UUID, ...config },
    accelerator: wasm,
    romImage: () => bios,
  }).build();
  t.teardown(() => machine.dispose());
  machine.resetDevices();
  machine.start();
  const at = (address: number): number => machine.memory.read(address, 4);
  return {
    machine,
    done: until(() => at(DONE) !== 0).then(() =>
      list.map((_, call) => [0, 1, 2, 3, 4, 5].map(register => at(RESULTS + 24 * call + 4 * register) >>> 0)),
    ),
    goOn: () => machine.memory.write(GO_ON, 4, 1),
  };
}

t.test('a guest asks by its registers, and has the answers in them', async t => {
  const [version, uuid, ram, hertz, cpu, unknown, other, written] = await calls([
    { command: 10 },
    { command: 19 },
    { command: 20 },
    { command: 45 },
    { command: 68 },
    { command: 11 },
    { command: 10, magic: MAGIC + 1 },
    { command: 10, out: true },
  ]).done;
  const rest = [PORT, UNTOUCHED, UNTOUCHED];
  t.same(version, [6, MAGIC, 2, ...rest], 'version 6 of ESX Server');
  t.same(uuid, [0x3322_1100, 0x7766_5544, 0xbbaa_9988, 0xffee_ddcc, UNTOUCHED, UNTOUCHED]);
  t.same(ram, [RAM_SIZE, 0x1177, 20, ...rest]);
  t.same(hertz, [MAGIC, 0xffff_ffff, 45, ...rest], 'frequencies are not told');
  t.same(cpu, [0, UNTOUCHED, 68, ...rest], 'no x2APIC on this CPU');
  t.same(unknown, [0xffff_ffff, UNTOUCHED, 11, ...rest]);
  t.same(other, [0xffff_ffff, UNTOUCHED, 10, ...rest], 'without the magic it is nobody');
  t.same(written, [6, MAGIC, 2, ...rest], 'a write is a question too');
});

t.test('vmport=off: the port is not there', async t => {
  const { done, machine } = calls([{ command: 10 }], { options: { vmport: 'off' } });
  t.same(await done, [[0xffff_ffff, UNTOUCHED, 10, PORT, UNTOUCHED, UNTOUCHED]]);
  t.equal(machine.services.input.handlers.length, 2, 'a keyboard and a PS/2 mouse');
});

const DATA = 39;
const STATUS = 40;
const COMMAND = 41;

t.test('the pointer queues what a person does until the guest takes it', async t => {
  const { done, goOn, machine } = calls([
    { command: STATUS },
    { command: COMMAND, ebx: 0x4541_4552 },
    { command: STATUS },
    { command: DATA, ebx: 1 },
    { command: COMMAND, ebx: 0x5342_4152 },
    { command: STATUS, wait: true },
    { command: DATA, ebx: 4 },
    { command: DATA, ebx: 4 },
    { command: DATA, ebx: 4 },
    { command: STATUS },
    { command: DATA, ebx: 1 },
    { command: STATUS },
  ]);
  const { input } = machine.services;
  t.equal(input.absolute, false);
  await until(() => input.absolute);
  t.equal(
    input.send([
      { kind: 'absolute', axis: 'x', value: 0x1234 },
      { kind: 'absolute', axis: 'y', value: 0x7fff },
      { kind: 'button', button: 'left', down: true },
    ]),
    3,
  );
  input.send([
    { kind: 'button', button: 'left', down: false },
    { kind: 'button', button: 'wheel-down', down: true },
  ]);
  goOn();
  const answers = await done;
  const eax = answers.map(registers => registers[0]);
  const packet = (answer = 0): number[] | undefined => answers[answer]?.slice(0, 4);
  t.equal(eax[0], 0xffff_0000, 'off after a reset');
  t.equal(eax[2], 1, 'a word waits');
  t.equal(eax[3], 0x3442_554a, 'its version');
  t.equal(eax[5], 12, 'three packets wait');
  t.same(packet(6), [0x20, 0x2468, 0xfffe, 0]);
  t.same(packet(7), [0, 0x2468, 0xfffe, 1], 'a step of the wheel');
  t.same(packet(8), [0, 0x2468, 0xfffe, 0]);
  t.equal(eax[9], 0);
  t.equal(eax[11], 0xffff_0000, 'a driver that takes more than there is has lost its way');
  t.equal(input.absolute, false);
});
