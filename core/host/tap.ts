import { constants } from 'node:fs';
import { SouthbridgeError } from '../errors.ts';
import { hostCalls } from './calls.ts';
import { isSystemError } from './native.ts';

const IFF_VNET_HDR = 0x4000;
/** linux/if_tun.h: what the host may leave to whoever reads the packets. */
const TUN_F = { csum: 1, tso4: 2, tso6: 4, tsoEcn: 8, ufo: 16, uso4: 32, uso6: 64 } as const;

export interface Tap {
  readonly fd: number;
  readonly name: string;
}

/**
 * Opens a tap interface, making it where it does not exist.
 * @param name '' lets the kernel choose; a `%d` in it counts
 * @throws SouthbridgeError ERR_TAP
 */
export function openTap(name: string, options: { vnetHeader: boolean; multiQueue: boolean }): Tap {
  try {
    const [fd, actual] = hostCalls().openTap(name, options.vnetHeader, options.multiQueue);
    return { fd, name: actual };
  } catch (cause) {
    if (!isSystemError(cause)) throw cause;
    throw new SouthbridgeError(
      'ERR_TAP',
      `could not configure /dev/net/tun${name === '' ? '' : ` (${name})`}: ${cause.message}`,
      cause.code === 'EPERM' || cause.code === 'EACCES'
        ? 'making an interface needs CAP_NET_ADMIN: make it beforehand (ip tuntap add mode tap user ...) or pass fd='
        : undefined,
      { cause },
    );
  }
}

/** Whether packets of this tap have a virtio-net header before them: for descriptors from elsewhere. */
export const hasVnetHeader = (fd: number): boolean => (hostCalls().tapFlags(fd) & IFF_VNET_HDR) !== 0;

/** Sets the header's size in bytes (10 or 12) and what the guest takes unfinished. False where the kernel does not. */
export function setOffload(
  fd: number,
  headerSize: number,
  features: Partial<Record<keyof typeof TUN_F, boolean>>,
): boolean {
  let flags = 0;
  for (const [name, on] of Object.entries(features)) if (on) flags |= TUN_F[name as keyof typeof TUN_F];
  try {
    hostCalls().tapOffload(fd, flags, headerSize);
    return true;
  } catch (error) {
    if (isSystemError(error)) return false;
    throw error;
  }
}

/** Whether the kernel gives frames to this queue of a tap of several. @throws the host's error */
export const attachQueue = (fd: number, on: boolean): void => hostCalls().tapQueue(fd, on);

/**
 * Bytes that may wait in the interface for the host to take them.
 * @throws SouthbridgeError ERR_TAP with QEMU's text where the kernel refuses what a user has `asked` for
 */
export function setSendBuffer(fd: number, bytes: number, asked: boolean): void {
  try {
    hostCalls().tapSendBuffer(fd, bytes);
  } catch (cause) {
    if (!isSystemError(cause)) throw cause;
    if (!asked) return;
    throw new SouthbridgeError('ERR_TAP', `TUNSETSNDBUF ioctl failed: ${cause.message}`, undefined, { cause });
  }
}

/** Reads and writes of a descriptor that someone else has opened no longer wait. */
export function stopWaiting(fd: number): void {
  try {
    hostCalls().statusFlags(fd, hostCalls().statusFlags(fd) | constants.O_NONBLOCK);
  } catch (cause) {
    if (!isSystemError(cause)) throw cause;
    throw new SouthbridgeError('ERR_TAP', `Can't use file descriptor ${fd}: ${cause.message}`, undefined, { cause });
  }
}
