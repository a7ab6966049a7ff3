import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { fdSets } from '../../host/fd-sets.ts';
import { readLinear } from '../debug/translate.ts';
import type { Program } from '../program.ts';
import { QmpError } from '../qapi/error.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';
import { writeMemoryFile } from './memory.ts';

/** File descriptors that clients pass, and what needs a CPU's view of memory. */
export function hostCommands(program: Program): Handlers<QmpSession> {
  const named = new Map<string, number>();
  const sets = fdSets;
  const received = ({ monitor }: QmpSession): number => {
    const fd = monitor.chr.takeFds()[0];
    if (fd === undefined) throw new QmpError('No file descriptor supplied via SCM_RIGHTS');
    return fd;
  };
  const take = (name: string): number | undefined => {
    const fd = named.get(name);
    named.delete(name);
    return fd;
  };
  program.takeNamedFd = take;
  return {
    getfd: ({ fdname }, session) => {
      const fd = received(session);
      if (/^[0-9]/.test(fdname)) {
        closeSync(fd);
        throw new QmpError("Parameter 'fdname' expects a name not starting with a digit");
      }
      const old = named.get(fdname);
      if (old !== undefined) closeSync(old);
      named.set(fdname, fd);
    },
    closefd: ({ fdname }) => {
      const fd = named.get(fdname);
      if (fd === undefined) throw new QmpError(`File descriptor named '${fdname}' not found`);
      named.delete(fdname);
      closeSync(fd);
    },
    'add-fd': ({ 'fdset-id': id, opaque }, session) => {
      const fd = received(session);
      let set = id === undefined ? 0 : Number(id);
      if (set < 0) throw new QmpError("Parameter 'fdset-id' expects a non-negative value");
      while (id === undefined && sets.has(set)) set++;
      sets.set(set, [...(sets.get(set) ?? []), { fd, opaque }]);
      return { 'fdset-id': set, fd };
    },
    'remove-fd': ({ 'fdset-id': id, fd }) => {
      const set = sets.get(Number(id));
      const gone = set?.filter(entry => fd === undefined || entry.fd === Number(fd)) ?? [];
      if (set === undefined || gone.length === 0) {
        throw new QmpError(`File descriptor named 'fdset-id:${id}${fd === undefined ? '' : `, fd:${fd}`}' not found`);
      }
      for (const entry of gone) closeSync(entry.fd);
      const left = set.filter(entry => !gone.includes(entry));
      if (left.length === 0) sets.delete(Number(id));
      else sets.set(Number(id), left);
    },
    'query-fdsets': () =>
      [...sets].map(([id, fds]) => ({
        'fdset-id': id,
        fds: fds.map(({ fd, opaque }) => ({ fd, ...(opaque !== undefined && { opaque }) })),
      })),
    add_client: async ({ protocol, fdname, skipauth }) => {
      const fd = take(fdname);
      if (fd === undefined) throw new QmpError(`File descriptor named '${fdname}' has not been found`);
      const display = protocol === 'vnc' ? (await program.displays()).find() : undefined;
      if (display === undefined) {
        closeSync(fd);
        if (protocol === 'vnc') return;
        throw new QmpError(`protocol '${protocol}' is invalid`);
      }
      const socket = new Socket({ fd, readable: true, writable: true });
      display.adopt(socket, { skipAuthentication: skipauth ?? false });
    },
    memsave: ({ val, size, filename, 'cpu-index': index = 0 }) => {
      const vcpu = program.machine.vcpu(Number(index));
      if (vcpu === undefined) throw new QmpError("Parameter 'cpu-index' expects a CPU number");
      const cpu = vcpu.readState();
      writeMemoryFile(filename, Number(size), (offset, buffer) => {
        const bytes = readLinear(cpu, program.machine.memory, BigInt(val) + BigInt(offset), buffer.length);
        if (bytes === undefined) {
          throw new QmpError(
            `Invalid addr 0x${BigInt.asUintN(64, BigInt(val) + BigInt(offset))
              .toString(16)
              .padStart(16, '0')}/size ${buffer.length} specified`,
          );
        }
        buffer.set(bytes);
      });
    },
  };
}
