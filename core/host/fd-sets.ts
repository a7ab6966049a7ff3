/** File descriptors that somebody handed us, by the number of their set (QEMU's `-add-fd`, QMP add-fd). */
export interface SharedFd {
  readonly fd: number;
  readonly opaque: string | undefined;
}

/** The sets of this process: descriptors belong to the process, and so do these. */
export const fdSets = new Map<number, readonly SharedFd[]>();

const FD_SET_PATH = /^\/dev\/fdset\/(\d+)$/;

/**
 * What to open for `path`: a name `/dev/fdset/N` leads to a descriptor of set N, opened again with the wanted access, and
 * any other is itself.
 */
export function hostPath(path: string): string {
  const number = FD_SET_PATH.exec(path)?.[1];
  const shared = number === undefined ? undefined : fdSets.get(Number(number))?.[0];
  return shared === undefined ? path : `/proc/self/fd/${shared.fd}`;
}
