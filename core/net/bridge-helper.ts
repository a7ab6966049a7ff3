import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync } from 'node:fs';
import { SouthbridgeError } from '../errors.ts';
import { mayStartPrograms } from '../host/sandbox.ts';
import { recvFds, socketPair } from '../host/sockets.ts';

export const DEFAULT_BRIDGE = 'br0';
/** Where distributions have QEMU's; the first is Debian's. */
const HELPERS = ['/usr/lib/qemu/qemu-bridge-helper', '/usr/libexec/qemu-bridge-helper'] as const;

/** QEMU's helper of this host, whether it is there or not. */
export const defaultHelper = (): string => HELPERS.find(path => existsSync(path)) ?? HELPERS[0];

/** The descriptor that the helper gets: the first one after the standard ones. */
const SOCKET = 3;

/**
 * Has a privileged program make a tap on `bridge`: QEMU's qemu-bridge-helper, or one that takes the same arguments. It sends
 * the tap's descriptor over a unix socket (SCM_RIGHTS).
 * @param helper a path, or with spaces in it a command line for the shell, which may have its own `--br=`
 * @returns the tap's descriptor, the caller's to close
 * @throws SouthbridgeError ERR_NETDEV_BRIDGE
 */
export async function runBridgeHelper(helper: string, bridge: string): Promise<number> {
  mayStartPrograms(`bridge helper ${helper}`);
  const [ours, theirs] = socketPair();
  try {
    const options = ['--use-vnet', `--fd=${SOCKET}`];
    const isCommand = /[ \t]/.test(helper);
    const named = isCommand && helper.includes('--br=') ? [] : [`--br=${bridge}`];
    const [program, args] = isCommand
      ? ['/bin/sh', ['-c', [helper, ...named, ...options].join(' ')]]
      : [helper, [...options, ...named]];
    let status: unknown;
    try {
      const child = spawn(program, args, { stdio: ['inherit', 'inherit', 'inherit', theirs] });
      [status] = await once(child, 'exit');
    } catch (cause) {
      throw failed(cause instanceof Error ? cause.message : String(cause));
    }
    const { fds } = recvFds(ours, new Uint8Array(1));
    const [fd, ...others] = fds;
    for (const other of others) closeSync(other);
    if (fd !== undefined && status === 0) return fd;
    if (fd !== undefined) closeSync(fd);
    throw failed(status === 0 ? `${helper} has sent no descriptor` : `${helper} ended with status ${String(status)}`);
  } finally {
    closeSync(ours);
    closeSync(theirs);
  }
}

function failed(why: string): SouthbridgeError {
  return new SouthbridgeError(
    'ERR_NETDEV_BRIDGE',
    `bridge helper failed: ${why}`,
    'it needs to be setuid root, and /etc/qemu/bridge.conf to allow the bridge',
  );
}
