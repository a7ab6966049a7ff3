/**
 * The keys of a keyboard: QEMU's name (QAPI QKeyCode), its number in PC scan code set 1 with bit 7 for the prefix E0, its number
 * in Linux's input-event-codes.h, and the X11 keysyms that a US keyboard makes with it, plain and with Shift. All in hexadecimal.
 */
const KEYS = `
  shift 2a 2a ffe1
  shift_r 36 36 ffe2
  alt 38 38 ffe9,ffe7
  alt_r b8 64 ffea,ffe8,fe03,ff7e
  ctrl 1d 1d ffe3
  ctrl_r 9d 61 ffe4
  menu 9e 8b -
  esc 01 1 ff1b
  1 02 2 31,21
  2 03 3 32,40
  3 04 4 33,23
  4 05 5 34,24
  5 06 6 35,25
  6 07 7 36,5e
  7 08 8 37,26
  8 09 9 38,2a
  9 0a a 39,28
  0 0b b 30,29
  minus 0c c 2d,5f
  equal 0d d 3d,2b
  backspace 0e e ff08
  tab 0f f ff09,fe20
  q 10 10 71,51
  w 11 11 77,57
  e 12 12 65,45
  r 13 13 72,52
  t 14 14 74,54
  y 15 15 79,59
  u 16 16 75,55
  i 17 17 69,49
  o 18 18 6f,4f
  p 19 19 70,50
  bracket_left 1a 1a 5b,7b
  bracket_right 1b 1b 5d,7d
  ret 1c 1c ff0d
  a 1e 1e 61,41
  s 1f 1f 73,53
  d 20 20 64,44
  f 21 21 66,46
  g 22 22 67,47
  h 23 23 68,48
  j 24 24 6a,4a
  k 25 25 6b,4b
  l 26 26 6c,4c
  semicolon 27 27 3b,3a
  apostrophe 28 28 27,22
  grave_accent 29 29 60,7e
  backslash 2b 2b 5c,7c
  z 2c 2c 7a,5a
  x 2d 2d 78,58
  c 2e 2e 63,43
  v 2f 2f 76,56
  b 30 30 62,42
  n 31 31 6e,4e
  m 32 32 6d,4d
  comma 33 33 2c,3c
  dot 34 34 2e,3e
  slash 35 35 2f,3f
  asterisk 37 37 -
  spc 39 39 20
  caps_lock 3a 3a ffe5
  f1 3b 3b ffbe
  f2 3c 3c ffbf
  f3 3d 3d ffc0
  f4 3e 3e ffc1
  f5 3f 3f ffc2
  f6 40 40 ffc3
  f7 41 41 ffc4
  f8 42 42 ffc5
  f9 43 43 ffc6
  f10 44 44 ffc7
  num_lock 45 45 ff7f
  scroll_lock 46 46 ff14
  kp_divide b5 62 ffaf
  kp_multiply 37 37 ffaa
  kp_subtract 4a 4a ffad
  kp_add 4e 4e ffab
  kp_enter 9c 60 ff8d
  kp_decimal 53 53 ffae,ffac,ff9f
  sysrq 54 63 -
  kp_0 52 52 ffb0,ff9e
  kp_1 4f 4f ffb1,ff9c
  kp_2 50 50 ffb2,ff99
  kp_3 51 51 ffb3,ff9b
  kp_4 4b 4b ffb4,ff96
  kp_5 4c 4c ffb5,ff9d
  kp_6 4d 4d ffb6,ff98
  kp_7 47 47 ffb7,ff95
  kp_8 48 48 ffb8,ff97
  kp_9 49 49 ffb9,ff9a
  less 56 56 -
  f11 57 57 ffc8
  f12 58 58 ffc9
  print 54 63 ff61,ff15
  home c7 66 ff50
  pgup c9 68 ff55
  pgdn d1 6d ff56
  end cf 6b ff57
  left cb 69 ff51
  up c8 67 ff52
  down d0 6c ff54
  right cd 6a ff53
  insert d2 6e ff63
  delete d3 6f ffff
  stop e8 80 -
  again 85 81 ff66
  props 86 82 -
  undo 87 83 ff65
  front 8c 84 -
  copy f8 85 -
  open 64 86 -
  paste 65 87 -
  find c1 88 ff68
  cut bc 89 -
  lf 5b 65 -
  help f5 8a ff6a
  meta_l db 7d ffeb
  meta_r dc 7e ffec
  compose dd 7f ff67
  pause c6 77 ff13,ff6b
  ro 73 59 -
  hiragana 77 5b ff25
  henkan 79 5c ff23
  yen 7d 7c -
  muhenkan 7b 5e ff22
  katakanahiragana 70 5d ff27
  kp_comma 7e 79 -
  kp_equals 59 75 ffbd
  power de 74 -
  sleep df 8e -
  wake e3 8f -
  audionext 99 a3 -
  audioprev 90 a5 -
  audiostop a4 a6 -
  audioplay a2 a4 -
  audiomute a0 71 -
  volumeup b0 73 -
  volumedown ae 72 -
  mediaselect ed e2 -
  mail ec 9b -
  calculator a1 8c -
  computer eb 9d -
  ac_home b2 ac -
  ac_back ea 9e -
  ac_forward e9 9f -
  ac_refresh e7 ad -
  ac_bookmarks e6 9c -
  lang1 72 7a ff31
  lang2 71 7b ff34
`;

/** The name of what is no key. */
export const UNMAPPED = 'unmapped';

const byNumber = new Map<number, string>([[0xb7, 'print']]);
const byKeysym = new Map<number, string>();
const linux = new Map<string, number>();

for (const row of KEYS.trim().split('\n')) {
  const [name = '', number = '', code = '', keysyms = ''] = row.trim().split(' ');
  const set1 = Number.parseInt(number, 16);
  if (set1 !== 0 && !byNumber.has(set1)) byNumber.set(set1, name);
  if (code !== '0') linux.set(name, Number.parseInt(code, 16));
  if (keysyms !== '-') for (const keysym of keysyms.split(',')) byKeysym.set(Number.parseInt(keysym, 16), name);
}

/** The key of a number as QMP's `send-key` and VNC's extended key events have it; {@link UNMAPPED} where there is none. */
export const keyOfNumber = (number: number): string => byNumber.get(number) ?? UNMAPPED;

/** The key that makes an X11 keysym on a US keyboard. */
export const keyOfKeysym = (keysym: number): string | undefined => byKeysym.get(keysym);

/** Linux's number of a key (input-event-codes.h); undefined where it has none. */
export const linuxKey = (key: string): number | undefined => linux.get(key);

/** All that {@link linuxKey} knows. */
export const linuxKeys = (): Iterable<number> => linux.values();
