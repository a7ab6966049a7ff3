/** Report descriptors (HID 1.11, section 6.2.2): how drivers read the reports of keyboard, mouse and tablet. */

/** Short items: tag and type with the size of the data in the low bits. */
const ITEM = {
  INPUT: 0x80,
  OUTPUT: 0x90,
  FEATURE: 0xb0,
  COLLECTION: 0xa0,
  END_COLLECTION: 0xc0,
  USAGE_PAGE: 0x04,
  LOGICAL_MINIMUM: 0x14,
  LOGICAL_MAXIMUM: 0x24,
  PHYSICAL_MINIMUM: 0x34,
  PHYSICAL_MAXIMUM: 0x44,
  REPORT_SIZE: 0x74,
  REPORT_ID: 0x84,
  REPORT_COUNT: 0x94,
  USAGE: 0x08,
  USAGE_MINIMUM: 0x18,
  USAGE_MAXIMUM: 0x28,
} as const;
type Item = keyof typeof ITEM;

/** One item with a value of one byte, or of two where it does not fit. */
function item(name: Item, value?: number): number[] {
  const tag = ITEM[name];
  if (value === undefined) return [tag];
  return value > 0xff ? [tag | 2, value & 0xff, value >> 8] : [tag | 1, value & 0xff];
}

const PAGE = { DESKTOP: 1, KEYS: 7, LEDS: 8, BUTTONS: 9, DIGITIZER: 0x0d, WACOM: 0xff00 } as const;
const USAGE = { POINTER: 1, MOUSE: 2, KEYBOARD: 6, X: 0x30, Y: 0x31, WHEEL: 0x38 } as const;
const COLLECTION = { PHYSICAL: 0, APPLICATION: 1 } as const;
/** Main items: data or constant, array or variable, absolute or relative. */
const MAIN = { ARRAY: 0, CONSTANT: 1, ABSOLUTE: 2, RELATIVE: 6 } as const;
const AXIS_MAXIMUM = 0x7fff;

/** `count` buttons, filled up to a byte. */
function buttons(count: number): number[] {
  return [
    ...item('USAGE_PAGE', PAGE.BUTTONS),
    ...item('USAGE_MINIMUM', 1),
    ...item('USAGE_MAXIMUM', count),
    ...item('LOGICAL_MINIMUM', 0),
    ...item('LOGICAL_MAXIMUM', 1),
    ...item('REPORT_COUNT', count),
    ...item('REPORT_SIZE', 1),
    ...item('INPUT', MAIN.ABSOLUTE),
    ...item('REPORT_COUNT', 1),
    ...item('REPORT_SIZE', 8 - count),
    ...item('INPUT', MAIN.CONSTANT),
  ];
}

function pointer(contents: readonly number[]): Uint8Array {
  return Uint8Array.of(
    ...item('USAGE_PAGE', PAGE.DESKTOP),
    ...item('USAGE', USAGE.MOUSE),
    ...item('COLLECTION', COLLECTION.APPLICATION),
    ...item('USAGE', USAGE.POINTER),
    ...item('COLLECTION', COLLECTION.PHYSICAL),
    ...contents,
    ...item('END_COLLECTION'),
    ...item('END_COLLECTION'),
  );
}

/** X, Y and wheel of a byte each, all relative. */
const relativeAxes = [
  ...item('USAGE_PAGE', PAGE.DESKTOP),
  ...item('USAGE', USAGE.X),
  ...item('USAGE', USAGE.Y),
  ...item('USAGE', USAGE.WHEEL),
  ...item('LOGICAL_MINIMUM', 0x81),
  ...item('LOGICAL_MAXIMUM', 0x7f),
  ...item('REPORT_SIZE', 8),
  ...item('REPORT_COUNT', 3),
  ...item('INPUT', MAIN.RELATIVE),
];

/** Five buttons, and what moves. */
export const mouseReport = pointer([...buttons(5), ...relativeAxes]);

/** Three buttons; X and Y absolute, two bytes each; a relative wheel. */
export const tabletReport = pointer([
  ...buttons(3),
  ...item('USAGE_PAGE', PAGE.DESKTOP),
  ...item('USAGE', USAGE.X),
  ...item('USAGE', USAGE.Y),
  ...item('LOGICAL_MINIMUM', 0),
  ...item('LOGICAL_MAXIMUM', AXIS_MAXIMUM),
  ...item('PHYSICAL_MINIMUM', 0),
  ...item('PHYSICAL_MAXIMUM', AXIS_MAXIMUM),
  ...item('REPORT_SIZE', 16),
  ...item('REPORT_COUNT', 2),
  ...item('INPUT', MAIN.ABSOLUTE),
  ...item('USAGE_PAGE', PAGE.DESKTOP),
  ...item('USAGE', USAGE.WHEEL),
  ...item('LOGICAL_MINIMUM', 0x81),
  ...item('LOGICAL_MAXIMUM', 0x7f),
  ...item('PHYSICAL_MINIMUM', 0),
  ...item('PHYSICAL_MAXIMUM', 0),
  ...item('REPORT_SIZE', 8),
  ...item('REPORT_COUNT', 1),
  ...item('INPUT', MAIN.RELATIVE),
]);

/** The boot keyboard (HID 1.11, appendix B.1): modifiers, a reserved byte, six keys; five lights. */
export const keyboardReport = Uint8Array.of(
  ...item('USAGE_PAGE', PAGE.DESKTOP),
  ...item('USAGE', USAGE.KEYBOARD),
  ...item('COLLECTION', COLLECTION.APPLICATION),
  ...item('REPORT_SIZE', 1),
  ...item('REPORT_COUNT', 8),
  ...item('USAGE_PAGE', PAGE.KEYS),
  ...item('USAGE_MINIMUM', 0xe0),
  ...item('USAGE_MAXIMUM', 0xe7),
  ...item('LOGICAL_MINIMUM', 0),
  ...item('LOGICAL_MAXIMUM', 1),
  ...item('INPUT', MAIN.ABSOLUTE),
  ...item('REPORT_COUNT', 1),
  ...item('REPORT_SIZE', 8),
  ...item('INPUT', MAIN.CONSTANT),
  ...item('REPORT_COUNT', 5),
  ...item('REPORT_SIZE', 1),
  ...item('USAGE_PAGE', PAGE.LEDS),
  ...item('USAGE_MINIMUM', 1),
  ...item('USAGE_MAXIMUM', 5),
  ...item('OUTPUT', MAIN.ABSOLUTE),
  ...item('REPORT_COUNT', 1),
  ...item('REPORT_SIZE', 3),
  ...item('OUTPUT', MAIN.CONSTANT),
  ...item('REPORT_COUNT', 6),
  ...item('REPORT_SIZE', 8),
  ...item('LOGICAL_MINIMUM', 0),
  ...item('LOGICAL_MAXIMUM', 0xff),
  ...item('USAGE_PAGE', PAGE.KEYS),
  ...item('USAGE_MINIMUM', 0),
  ...item('USAGE_MAXIMUM', 0xff),
  ...item('INPUT', MAIN.ARRAY),
  ...item('END_COLLECTION'),
);

/** What fits a byte has to be told of in two where it is not to be read as negative. */
const BYTE_MAXIMUM = [ITEM.LOGICAL_MAXIMUM | 2, 0xff, 0];

/** Wacom's PenPartner: as a mouse, and in reports of its own. */
export const wacomReport = Uint8Array.of(
  ...item('USAGE_PAGE', PAGE.DESKTOP),
  ...item('USAGE', USAGE.MOUSE),
  ...item('COLLECTION', COLLECTION.APPLICATION),
  ...item('REPORT_ID', 1),
  ...item('USAGE', USAGE.POINTER),
  ...item('COLLECTION', COLLECTION.PHYSICAL),
  ...buttons(3),
  ...relativeAxes,
  ...item('REPORT_COUNT', 3),
  ...item('INPUT', MAIN.CONSTANT),
  ...item('END_COLLECTION'),
  ...item('END_COLLECTION'),
  ...item('USAGE_PAGE', PAGE.DIGITIZER),
  ...item('USAGE', 1),
  ...item('COLLECTION', COLLECTION.APPLICATION),
  ...item('REPORT_ID', 2),
  ...item('COLLECTION', COLLECTION.PHYSICAL),
  ...item('USAGE_PAGE', PAGE.WACOM),
  ...item('USAGE', 1),
  ...item('LOGICAL_MINIMUM', 0),
  ...BYTE_MAXIMUM,
  ...item('REPORT_SIZE', 8),
  ...item('REPORT_COUNT', 7),
  ...item('INPUT', MAIN.ABSOLUTE),
  ...item('END_COLLECTION'),
  ...item('USAGE', 1),
  ...item('REPORT_ID', 0x63),
  ...item('REPORT_COUNT', 7),
  ...item('INPUT', MAIN.ABSOLUTE),
  ...item('USAGE', 1),
  ...item('REPORT_ID', 2),
  ...item('REPORT_COUNT', 1),
  ...item('FEATURE', MAIN.ABSOLUTE),
  ...item('USAGE', 1),
  ...item('REPORT_ID', 3),
  ...item('REPORT_COUNT', 1),
  ...item('FEATURE', MAIN.ABSOLUTE),
  ...item('END_COLLECTION'),
);

/** Answers a request with a report or a description of them, up to `length` bytes. Returns how many there are. */
export function giveReport(report: Uint8Array, data: Uint8Array, length: number): number {
  const count = Math.min(length, report.length);
  for (let index = 0; index < count; index++) data[index] = report[index] ?? 0;
  return count;
}
