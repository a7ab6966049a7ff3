import { SouthbridgeError } from '../../errors.ts';

/** One access to registers, as a recorder saw it. */
export interface Access {
  readonly kind: 'read' | 'write';
  /** Bytes from the start of the region. */
  readonly offset: number;
  readonly size: number;
  /** What was read or written, unsigned. */
  readonly value: number;
  /** Nanoseconds since the recording began. */
  readonly timeNs: number;
}

/** Recorded accesses, in order. */
export interface Traffic {
  /** What was recorded: a device type, or the file of a trace. */
  readonly source: string;
  readonly accesses: readonly Access[];
}

const HEADER = '# southbridge traffic of';

/** Traffic as text, an access a line: `120 w 4 0x8 0x00000001` is time, kind, size, offset and value. */
export function formatTraffic({ source, accesses }: Traffic): string {
  const lines = accesses.map(
    ({ kind, offset, size, value, timeNs }) =>
      `${timeNs} ${kind === 'read' ? 'r' : 'w'} ${size} 0x${offset.toString(16)} 0x${value.toString(16).padStart(2 * size, '0')}`,
  );
  return `${[`${HEADER} ${source}`, ...lines].join('\n')}\n`;
}

/** Reads what {@link formatTraffic} gave. @throws SouthbridgeError ERR_TRAFFIC with the line */
export function parseTraffic(text: string, file = 'traffic'): Traffic {
  const [head = '', ...lines] = text.split('\n');
  if (!head.startsWith(HEADER)) throw new SouthbridgeError('ERR_TRAFFIC', `${file} is no recorded traffic`);
  const accesses = lines.flatMap((line, index) => {
    if (line === '' || line.startsWith('#')) return [];
    const match = /^(\d+) ([rw]) ([124]) (0x[0-9a-f]+) (0x[0-9a-f]+)$/.exec(line);
    if (match === null)
      throw new SouthbridgeError(
        'ERR_TRAFFIC',
        `${file}:${index + 2}: '${line}' is no access`,
        'write: TIME r|w SIZE OFFSET VALUE',
      );
    const [, timeNs, kind, size, offset, value] = match;
    return [accessOf(kind === 'r' ? 'read' : 'write', Number(offset), Number(size), Number(value), Number(timeNs))];
  });
  return { source: head.slice(HEADER.length + 1), accesses };
}

/** The lines of mmiotrace that matter here: a mapping, with its number and physical address; an access of so many bytes. */
const MAP = /^MAP [\d.]+ (\d+) (0x[0-9a-f]+) 0x[0-9a-f]+ 0x[0-9a-f]+/;
const ACCESS = /^([RW]) ([124]) ([\d.]+) (\d+) (0x[0-9a-f]+) (0x[0-9a-f]+)/;

/**
 * Reads a trace of Linux's mmiotrace (Documentation/trace/mmiotrace.rst, "Trace log format") and picks the accesses to one
 * mapping.
 * @param physical the address of the BAR on that machine; by default the first mapping of the trace
 * @throws SouthbridgeError ERR_TRAFFIC where it is no such trace, or nothing touches the mapping
 */
export function parseMmiotrace(text: string, physical?: number, file = 'mmiotrace'): Traffic {
  const mappings = new Map<string, number>();
  const accesses: Access[] = [];
  let wanted = physical;
  let beganNs: number | undefined;
  for (const line of text.split('\n')) {
    const [, id = '', address] = MAP.exec(line) ?? [];
    if (address !== undefined) {
      mappings.set(id, Number(address));
      wanted ??= Number(address);
    }
    const [, kind, size, seconds, mapping = '', at, value] = ACCESS.exec(line) ?? [];
    if (kind === undefined || wanted === undefined || mappings.get(mapping) !== wanted) continue;
    const timeNs = Math.round(Number(seconds) * 1e9);
    beganNs ??= timeNs;
    const offset = Number(at) - wanted;
    accesses.push(accessOf(kind === 'R' ? 'read' : 'write', offset, Number(size), Number(value), timeNs - beganNs));
  }
  if (accesses.length === 0) {
    const there = [...mappings.values()].map(each => `0x${each.toString(16)}`).join(', ');
    throw new SouthbridgeError(
      'ERR_TRAFFIC',
      `${file} has no accesses to that mapping`,
      `it maps ${there || 'nothing'}`,
    );
  }
  return { source: file, accesses };
}

function accessOf(kind: Access['kind'], offset: number, size: number, value: number, timeNs: number): Access {
  return { kind, offset, size, value: value >>> 0, timeNs };
}
