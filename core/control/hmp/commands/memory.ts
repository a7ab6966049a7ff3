import { addressOf, hostPhysical } from '../../../host/addresses.ts';
import type { Machine } from '../../../machine/machine.ts';
import { QmpError } from '../../qapi/error.ts';
import { type HmpCommand, hmp, viaQmp } from '../command.ts';
import { dumpMemory, formatValue, showTranslation } from '../memory-dump.ts';

const PORT_SIZES: Readonly<Record<number, number>> = { 1: 1, 2: 2, 4: 4 };
const MAX_SUM = 2 ** 24;
/** Flags of `dump-guest-memory`, and what they ask for. */
const FORMATS = [
  ['zlib', 'kdump-zlib'],
  ['lzo', 'kdump-lzo'],
  ['snappy', 'kdump-snappy'],
  ['windmp', 'win-dmp'],
] as const;

/** The byte of this process that stands for a physical address of the guest's, or why there is none. */
function hostByte(machine: Machine, given: bigint): { name: string; address: number; host: bigint } | string {
  const address = Number(BigInt.asUintN(64, given));
  const { flat } = machine.memory;
  const range = flat.ranges[flat.indexOf(address)];
  if (range === undefined) return `No memory is mapped at address 0x${address.toString(16)}\n`;
  const { ram, name } = range.region;
  if (ram === undefined) return `Memory at address 0x${address.toString(16)} is not RAM\n`;
  return { name, address, host: addressOf(ram.bytes) + BigInt(range.offset + address - range.start) };
}

/** A command that tells where a guest's byte is on the host. */
const hostAddress = (name: string, kind: string, help: string, from: (host: bigint) => bigint): HmpCommand =>
  hmp(name, 'addr:l', 'addr', help, ({ program }, args) => {
    const found = hostByte(program.machine, args.integer('addr'));
    if (typeof found === 'string') return found;
    const { name, address, host } = found;
    return `Host ${kind} address for 0x${address.toString(16)} (${name}) is 0x${from(host).toString(16)}\n`;
  });

/** Looking at memory, ports and expressions. */
export const MEMORY_COMMANDS: readonly HmpCommand[] = [
  hmp('x', 'fmt:/,addr:l', '/fmt addr', "dump memory at virtual address 'addr'", (context, args) =>
    dumpMemory(context, args.format('fmt'), args.integer('addr'), false),
  ),
  hmp('xp', 'fmt:/,addr:l', '/fmt addr', "dump memory at physical address 'addr'", (context, args) =>
    dumpMemory(context, args.format('fmt'), args.integer('addr'), true),
  ),
  hmp('gva2gpa', 'addr:l', 'addr', 'the physical address of a virtual one', (context, args) =>
    showTranslation(context, args.integer('addr')),
  ),
  hostAddress('gpa2hva', 'virtual', "where this program has a physical address's byte", host => host),
  hostAddress('gpa2hpa', 'physical', "where the host has a physical address's byte", hostPhysical),
  hmp(
    'print|p',
    'fmt:/,val:l',
    '/fmt expr',
    'the value of an expression, with $reg for registers',
    (_context, args) => {
      const { letter } = args.format('fmt');
      const text = formatValue(BigInt.asUintN(64, args.integer('val')), letter, 8);
      return `${text.replace(/^0x0+(?=.)/, '0x').trim()}\n`;
    },
  ),
  hmp('i', 'fmt:/,addr:i', '/fmt addr', 'read a port', ({ program }, args) => {
    const port = Number(args.integer('addr') & 0xffffn);
    const size = PORT_SIZES[args.format('fmt').size] ?? 4;
    const read = program.machine.ports.read(port, size) >>> 0;
    const suffix = size === 1 ? 'b' : size === 2 ? 'w' : 'l';
    return `port${suffix}[0x${port.toString(16).padStart(4, '0')}] = 0x${read.toString(16).padStart(size * 2, '0')}\n`;
  }),
  hmp('o', 'fmt:/,addr:i,val:i', '/fmt addr value', 'write a port', ({ program }, args) => {
    const size = PORT_SIZES[args.format('fmt').size] ?? 4;
    const value = Number(BigInt.asUintN(size * 8, args.integer('val')));
    program.machine.ports.write(Number(args.integer('addr') & 0xffffn), size, value);
    return undefined;
  }),
  hmp('sum', 'start:i,size:i', 'addr size', 'the BSD checksum of a stretch of memory', ({ program }, args) => {
    const bytes = new Uint8Array(Math.min(Math.max(0, Number(args.integer('size'))), MAX_SUM));
    program.machine.memory.readBytes(Number(BigInt.asUintN(32, args.integer('start'))), bytes, 0, bytes.length);
    let sum = 0;
    for (const byte of bytes) sum = (((sum >>> 1) | (sum << 15)) + byte) & 0xffff;
    return `${String(sum).padStart(5, '0')}\n`;
  }),
  hmp(
    'memsave',
    'val:l,size:i,filename:s',
    'addr size file',
    'save memory at a virtual address',
    async (context, args) => {
      await context.qmp('memsave', {
        val: args.integer('val'),
        size: args.integer('size'),
        filename: args.text('filename'),
        'cpu-index': context.cpu,
      });
      return undefined;
    },
  ),
  hmp(
    'dump-guest-memory',
    'paging:-p,detach:-d,windmp:-w,zlib:-z,lzo:-l,snappy:-s,filename:F,begin:l?,length:l?',
    '[-p] [-d] [-z|-l|-s|-w] filename [begin length]',
    'dump memory into a core file: -p with paging, -d in the background, -z compressed with zlib',
    async (context, args) => {
      const chosen = FORMATS.filter(([flag]) => args.flag(flag));
      if (chosen.length > 1) throw new QmpError("only one of '-z|-l|-s|-w' can be set");
      const [begin, length] = [args.optionalInteger('begin'), args.optionalInteger('length')];
      await context.qmp('dump-guest-memory', {
        paging: args.flag('paging'),
        detach: args.flag('detach'),
        protocol: `file:${args.text('filename')}`,
        format: chosen[0]?.[1] ?? 'elf',
        ...(begin !== undefined && { begin }),
        ...(length !== undefined && { length }),
      });
      return undefined;
    },
  ),
  hmp(
    'calc_dirty_rate',
    'dirty_ring:-r,dirty_bitmap:-b,second:l,sample_pages_per_GB:l?',
    '[-r] [-b] second [sample_pages_per_GB]',
    'measure how fast the guest writes memory',
    async (context, args) => {
      const seconds = args.integer('second');
      if (seconds === 0n) return 'Incorrect period length specified!\n';
      if (args.flag('dirty_ring') && args.flag('dirty_bitmap'))
        return 'Either dirty ring or dirty bitmap can be specified!\n';
      const samples = args.optionalInteger('sample_pages_per_GB');
      const mode = args.flag('dirty_ring')
        ? 'dirty-ring'
        : args.flag('dirty_bitmap')
          ? 'dirty-bitmap'
          : 'page-sampling';
      await context.qmp('calc-dirty-rate', {
        'calc-time': seconds,
        mode,
        ...(samples !== undefined && { 'sample-pages': samples }),
      });
      return `Starting dirty rate measurement with period ${seconds} seconds\n[Please use 'info dirty_rate' to check results]\n`;
    },
  ),
  hmp(
    'pmemsave',
    'val:l,size:i,filename:s',
    'addr size file',
    'save memory at a physical address',
    viaQmp('pmemsave', args => ({
      val: args.integer('val'),
      size: args.integer('size'),
      filename: args.text('filename'),
    })),
  ),
];
