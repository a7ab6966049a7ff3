import { spawnSync } from 'node:child_process';
import t from 'tap';
import {
  bit,
  cHeader,
  choice,
  driverView,
  markdownReference,
  RegisterBank,
  RegisterCoverage,
  r8,
  registerMap,
  rustConstants,
} from '../../../core/register/register.ts';
import { symbolic } from '../../../core/register/symbolic.ts';
import { eduRegisters } from '../../../devices/edu.ts';
import { card, uart } from './maps.ts';

t.test('traces tell fields by name', async t => {
  const lines: string[] = [];
  for (const map of [card, uart] as const) {
    const bank = new RegisterBank(map);
    bank.observe({
      access: (entry, element, word, value, before, after, write) =>
        lines.push(symbolic(map.name, entry, element, word, value, before, after, write)),
    });
    if (map === uart) {
      bank.read(5, 1);
      bank.write(3, 1, 0x83);
      bank.read(3, 1);
    } else {
      bank.write(0, 4, 0x4005_0003);
      bank.write(0, 4, 0x4005_0001);
      bank.write(0x24, 4, 0xbeef);
      bank.write(0x1c, 4, 0x10);
      bank.write(0x14, 4, 0x8000_0100);
      bank.read(0x14, 4);
    }
  }
  t.same(lines, [
    'card.CTRL.EN 0 -> 1, card.CTRL.GO <- 1, card.CTRL.SPEED fast -> slow, card.CTRL.LEVEL 0 -> 5',
    'card.CTRL <- 0x40050001',
    'card.TABLE[1] <- 0xbeef',
    'card.BASE.high <- 0x10',
    'card.WIDE.HIGH 0 -> 1, card.WIDE.DONE 1 -> 0',
    'card.WIDE.high -> 0x100 (HIGH=1)',
    'uart.LSR -> 0x60 (THRE TEMT)',
    'uart.LCR.WLS five -> eight, uart.LCR.DLAB 0 -> 1',
    'uart.LCR -> 0x83 (WLS=eight DLAB)',
  ]);
});

t.test('coverage tells what a driver never touched', async t => {
  const map = registerMap('dev', {
    ID: r8(0, {}, { access: 'ro' }),
    CTRL: r8(1, {
      EN: bit(0),
      RST: bit(1, 'pulse'),
      MODE: choice(2, 2, { a: 0, b: 1, c: 2, d: 3 }),
      OUT: bit(7, 'wo'),
    }),
    STAT: r8(2, { ERR: bit(0, 'w1c'), RUN: bit(1, 'ro') }),
    DATA: r8(3),
  });
  const bank = new RegisterBank(map);
  const coverage = new RegisterCoverage(bank);
  const driver = driverView(map, bank);
  t.equal(coverage.covered, 0);
  bank.regs.CTRL.EN = true;
  driver.CTRL.MODE = 'c';
  driver.CTRL.MODE = 'a';
  driver.CTRL.EN = true;
  driver.CTRL.EN = false;
  driver.DATA.value = 1;
  coverage.stop();
  t.equal(driver.ID.value, 0, 'no longer counted');
  t.equal(
    coverage.toString(),
    [
      'dev: 1 of 8 fields covered',
      '  ID: never read',
      '  CTRL.RST: never set',
      "  CTRL.MODE: never 'b', 'd'",
      '  CTRL.OUT: never set',
      '  STAT.ERR: never read, written',
      '  STAT.RUN: never read',
      '  DATA: never read',
    ].join('\n'),
  );
  t.equal(coverage.total, 8);
});

t.test('a reference table', async t => {
  const text = markdownReference(uart);
  t.match(text, '| `0x0` | `DLL` | 8 | `rw` | `0xc` | divisor latch, low byte; while `LCR.DLAB` |');
  t.match(text, '| `0x7` | `SCR` | 8 | `rw` | `0x0` | scratch; survives resets |');
  t.match(
    text,
    '### LCR\n\n| Bits | Field | Access | Description |\n| --- | --- | --- | --- |\n| 1:0 | `WLS` | `rw` | 0 `five`, 1 `six`, 2 `seven`, 3 `eight` |',
  );
  t.match(text, '| 5 | `AFE` | `rw` | not implemented |');
  t.match(markdownReference(card), '| `0x44` + 8·i, i < 4 | `PAIR_HI` |');
});

/** Runs a compiler over `source`; undefined where there is none. */
function compile(command: string, options: readonly string[], source: string): string | undefined {
  const { error, status, stderr } = spawnSync(command, options, { input: source, encoding: 'utf8', timeout: 60_000 });
  if (error !== undefined && 'code' in error && error.code === 'ENOENT') return undefined;
  return status === 0 ? '' : stderr;
}

/** Names that meet: IRQ.STATUS and IRQ_STATUS, a field called SHIFT's. */
const clashing = registerMap('9-clash', {
  IRQ: r8(0, { STATUS: choice(0, 2, { shift: 1, toRam: 2 }), type: bit(7) }),
  IRQ_STATUS: r8(1, { A: bit(0, 'ro', 'ends */ a comment') }),
  LOOP: r8(2, { B: bit(1) }, { count: 2 }),
});

t.test('a C header that a compiler takes, with the values of the map', async t => {
  const headers = [eduRegisters, uart, card, clashing].map(cHeader).join('\n');
  const checks = [
    'EDU_STATUS == 0x20',
    'EDU_STATUS_IRQ_ON_FACTORIAL == 1u << 7',
    'EDU_DMA_CMD_DIR_TO_RAM == 2',
    'UART_FCR_TRIGGER_14 == 0xc0',
    'CARD_PAIR_HI(3) == 0x5c',
    'CARD_WIDE_DONE == 1ull << 63',
    'CARD_CTRL_LEVEL_SHIFT == 16',
    '_9_CLASH_IRQ_STATUS == 1',
    '_9_CLASH_IRQ__STATUS == 3',
    '_9_CLASH_IRQ__STATUS_TO_RAM == 2',
  ].map(check => `_Static_assert(${check}, "${check}");`);
  const complaints = compile(
    'cc',
    ['-std=c11', '-Wall', '-Wextra', '-Werror', '-fsyntax-only', '-x', 'c', '-'],
    `${headers}\n${checks.join('\n')}\n`,
  );
  if (complaints === undefined) t.comment('no C compiler: the header is not checked');
  else t.equal(complaints, '');
});

t.test('Rust constants', async t => {
  const rust = rustConstants(clashing);
  t.match(rust, 'pub const IRQ_STATUS: usize = 0x1;');
  t.match(
    rust,
    'pub mod irq {\n    /// rw\n    pub const STATUS: u8 = 0x3;\n    pub const STATUS_SHIFT: u32 = 0;\n    pub const STATUS_SHIFT_: u8 = 0x1;',
  );
  t.match(rust, 'pub const fn r#loop(index: usize) -> usize {\n    0x2 + index * 0x1\n}');
  t.match(rustConstants(card), 'pub const DONE: u64 = 0x8000000000000000;');
  // Into a folder: with -o, rustc puts a file in the place of whatever is there, and be it /dev/null.
  const complaints = compile(
    'rustc',
    ['--crate-type', 'lib', '--emit', 'metadata', '--out-dir', t.testdir(), '-'],
    rustConstants(card),
  );
  if (complaints !== undefined) t.equal(complaints, '');
});
