import { closeSync, openSync, writeSync } from 'node:fs';
import type { Program } from '../program.ts';
import type { Value } from '../qapi/declare.ts';
import { QmpError } from '../qapi/error.ts';
import type { Memdev } from '../qapi/schema/machine.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

const PIECE = 2 ** 20;

/** Writes `size` bytes of physical memory from `address` to a file. */
export function savePhysical(program: Program, address: number, size: number, path: string): void {
  let fd: number;
  try {
    fd = openSync(path, 'w', 0o644);
  } catch (cause) {
    throw new QmpError(`Could not open '${path}': ${cause instanceof Error ? cause.message : String(cause)}`);
  }
  try {
    const buffer = Buffer.alloc(Math.min(size, PIECE));
    for (let done = 0; done < size; done += buffer.length) {
      const length = Math.min(buffer.length, size - done);
      program.machine.memory.readBytes(address + done, buffer, 0, length);
      writeSync(fd, buffer, 0, length);
    }
  } finally {
    closeSync(fd);
  }
}

export function memoryCommands(program: Program): Handlers<QmpSession> {
  return {
    pmemsave: ({ val, size, filename }) => savePhysical(program, Number(val), Number(size), filename),
    'query-memory-size-summary': () => ({ 'base-memory': program.machine.config.ramSize, 'plugged-memory': 0 }),
    'query-memory-devices': () => [],
    'query-memdev': async () => {
      const objects = await program.objects();
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
            dump: spec.dump ?? true,
            prealloc: spec.prealloc ?? false,
            share: spec.share ?? spec['qom-type'] === 'memory-backend-memfd',
            reserve: spec.reserve ?? true,
            'host-nodes': spec['host-nodes'] ?? [],
            policy: spec.policy ?? 'default',
          },
        ];
      });
    },
    'query-balloon': () => {
      throw new QmpError('No balloon device has been activated', 'DeviceNotActive');
    },
    balloon: ({ value }) => {
      if (Number(value) <= 0) throw new QmpError("Parameter 'target' expects a size");
      throw new QmpError('No balloon device has been activated', 'DeviceNotActive');
    },
  };
}
