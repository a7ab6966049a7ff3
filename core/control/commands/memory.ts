import { closeSync, openSync } from 'node:fs';
import { hostError, reason } from '../../block/io-error.ts';
import { writeFully } from '../../host/files.ts';
import type { Machine } from '../../machine/machine.ts';
import { type Balloon, findBalloon } from '../../virtio/balloon.ts';
import { hex } from '../hex.ts';
import { parseBool } from '../options/numbers.ts';
import type { Program } from '../program.ts';
import type { Value } from '../qapi/declare.ts';
import { QmpError } from '../qapi/error.ts';
import type { Memdev } from '../qapi/schema/machine.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

const PIECE = 2 ** 20;

/** Writes `size` bytes to a file, as `fill` provides them piece by piece. */
export function writeMemoryFile(path: string, size: number, fill: (offset: number, buffer: Buffer) => void): void {
  let fd: number;
  try {
    fd = openSync(path, 'w', 0o644);
  } catch (cause) {
    throw new QmpError(`Could not open '${path}': ${reason(hostError(cause))}`);
  }
  try {
    for (let done = 0; done < size; done += PIECE) {
      const buffer = Buffer.alloc(Math.min(PIECE, size - done));
      fill(done, buffer);
      writeFully(fd, buffer);
    }
  } finally {
    closeSync(fd);
  }
}

export function memoryCommands(program: Program): Handlers<QmpSession> {
  return {
    pmemsave: ({ val, size, filename }) =>
      writeMemoryFile(filename, Number(size), (offset, buffer) => {
        program.machine.memory.readBytes(Number(val) + offset, buffer, 0, buffer.length);
      }),
    'query-memory-size-summary': () => ({
      'base-memory': program.machine.config.ramSize,
      'plugged-memory': program.machine.memoryBus?.plugged ?? 0,
    }),
    'query-memory-devices': () => (program.machine.memoryBus?.all ?? []).map(({ report }) => report),
    'query-memdev': async () => {
      const objects = await program.objects();
      const dumped = parseBool(String(program.machine.config.options['dump-guest-core'] ?? true));
      return objects.all.flatMap((object): Value<typeof Memdev>[] => {
        const { spec } = object;
        if (
          spec['qom-type'] !== 'memory-backend-ram' &&
          spec['qom-type'] !== 'memory-backend-file' &&
          spec['qom-type'] !== 'memory-backend-memfd'
        )
          return [];
        return [
          {
            id: object.id,
            size: spec.size,
            merge: spec.merge ?? true,
            dump: spec.dump ?? dumped ?? true,
            prealloc: spec.prealloc ?? false,
            share: spec.share ?? spec['qom-type'] === 'memory-backend-memfd',
            reserve: spec.reserve ?? true,
            'host-nodes': spec['host-nodes'] ?? [],
            policy: spec.policy ?? 'default',
          },
        ];
      });
    },
    'query-balloon': () => ({ actual: balloonOf(program.machine).balloonBytes }),
    'x-query-ramblock': () => ({ 'human-readable-text': ramBlocks(program.machine) }),
    balloon: ({ value }) => {
      const balloon = balloonOf(program.machine);
      if (Number(value) <= 0) throw new QmpError("Parameter 'target' expects a size");
      balloon.balloonTo(Number(value));
    },
  };
}

/** Every block of memory, one after the other as a migration numbers them. */
function ramBlocks(machine: Machine): string {
  let offset = 0;
  const row = (name: string, page: string, ...rest: readonly string[]): string =>
    `${[name.padStart(24), page, ...rest].join(' ')}\n`;
  const rows = machine.ram.map(({ name, size }) => {
    const bytes = `0x${hex(size, 16)}`;
    const text = row(name, '   4 KiB ', `0x${hex(offset, 16)}`, bytes, bytes);
    offset += size;
    return text;
  });
  const title = row('Block Name', '   PSize ', ...['Offset', 'Used', 'Total'].map(word => word.padStart(18)));
  return `${title}${rows.join('')}`;
}

function balloonOf(machine: Machine): Balloon {
  const balloon = findBalloon(machine.devices());
  if (balloon !== undefined) return balloon;
  throw new QmpError('No balloon device has been activated', 'DeviceNotActive');
}
