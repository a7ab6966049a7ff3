import type { Program } from '../program.ts';
import { QmpError } from '../qapi/error.ts';
import { GdbServer } from './server.ts';

let running: { readonly server: GdbServer; readonly id: string } | undefined;

/** Starts the gdb server on a device such as `tcp::1234`, in place of one that is there; `none` only ends that. */
export async function startGdb(program: Program, device: string): Promise<void> {
  if (running !== undefined) {
    running.server.dispose();
    program.chars.remove(running.id);
    running = undefined;
  }
  if (device === 'none') return;
  const text = device.startsWith('tcp:') ? `${device},wait=off,nodelay=on,server=on` : device;
  const added = await program.chars.addCompat('gdb', text);
  if (added === undefined) throw new QmpError(`gdb: could not create gdbserver on '${device}'`);
  const server = new GdbServer(program, program.chars.claim(added.id));
  running = { server, id: added.id };
  program.resources.push({ dispose: () => server.dispose() });
}
