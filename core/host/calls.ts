import { loadNative } from './native.ts';

/**
 * The addon's host calls as they are. All throw a SystemError, but those on a tree of files, which answer with a negative
 * errno: a guest asks for what is not there all the time. The files beside this one give them their meaning.
 */
export interface HostCalls {
  fallocate(fd: number, mode: number, offset: number, length: number): void;
  seek(fd: number, offset: number, whence: number): number;
  ofdLock(fd: number, type: number, start: number, length: number): boolean;
  ofdTest(fd: number, type: number, start: number, length: number): boolean;
  eventfd(): number;
  memfdCreate(name: string, size: number): number;
  map(fd: number, offset: number, length: number, shared: boolean, writable: boolean): ArrayBuffer;
  mapOver(bytes: ArrayBufferView, fd: number, offset: number, shared: boolean): void;
  lockMemory(bytes: ArrayBufferView): void;
  adviseMemory(bytes: ArrayBufferView, advice: number): void;
  blockDevice(fd: number): [bytes: number, logicalBlockSize: number, physicalBlockSize: number];
  treeOpen(root: number, path: string, flags: number, mode: number): number;
  treeStatus(root: number, path: string, result: Float64Array): number;
  fileStatus(fd: number, result: Float64Array): number;
  treeReadLink(root: number, path: string, buffer: Uint8Array): number;
  treeMakeFolder(root: number, path: string, mode: number): number;
  treeMakeNode(root: number, path: string, mode: number, major: number, minor: number): number;
  treeSymlink(root: number, path: string, target: string): number;
  treeLink(root: number, from: string, to: string): number;
  treeRename(root: number, from: string, to: string): number;
  treeRemove(root: number, path: string, folder: boolean): number;
  treeChangeMode(root: number, path: string, mode: number): number;
  treeChangeOwner(root: number, path: string, uid: number, gid: number): number;
  treeChangeTimes(
    root: number,
    path: string,
    accessedSeconds: number,
    accessedNanoseconds: number,
    modifiedSeconds: number,
    modifiedNanoseconds: number,
  ): number;
  treeGetAttribute(root: number, path: string, name: string, buffer: Uint8Array): number;
  treeListAttributes(root: number, path: string, buffer: Uint8Array): number;
  treeSetAttribute(root: number, path: string, name: string, value: Uint8Array, flags: number): number;
  treeRemoveAttribute(root: number, path: string, name: string): number;
  treeFileSystem(root: number, result: Float64Array): number;
  readFolder(fd: number, positionLow: number, positionHigh: number, buffer: Uint8Array): number;
  fileGeneration(fd: number): number;
  /** Bytes moved, or a negative error number. */
  transferNow(kind: number, fd: number, memory: Uint8Array, spans: Float64Array, count: number, offset: number): number;
  openPty(): [master: number, slave: number, path: string];
  getTerminal(fd: number): Uint8Array;
  setTerminal(fd: number, attributes: Uint8Array): void;
  rawTerminal(fd: number, signals: boolean): void;
  setSerial(fd: number, baud: number, dataBits: number, parity: 'N' | 'E' | 'O', stopBits: number): void;
  modemLines(fd: number, set?: number): number;
  sendBreak(fd: number, on: boolean): void;
  sendFds(socket: number, bytes: Uint8Array, fds: readonly number[]): number;
  recvFds(socket: number, bytes: Uint8Array): [length: number, fds: number[]];
  socketPair(packets: boolean): [number, number];
  bindDatagrams(path: string): number;
  bindUdp(address: string, port: number): number;
  sendFrames(socket: number, bytes: Uint8Array, lengths: Int32Array, count: number, to: Uint8Array): number;
  receiveFrames(socket: number, bytes: Uint8Array, room: number, lengths: Int32Array): number;
  openTap(name: string, vnetHeader: boolean, multiQueue: boolean): [fd: number, name: string];
  tapOffload(fd: number, flags: number, headerSize: number): void;
  tapQueue(fd: number, attach: boolean): void;
  tapSendBuffer(fd: number, bytes: number): void;
  tapFlags(fd: number): number;
  threadCpuTime(): number;
  duplicate(fd: number, target?: number): number;
  statusFlags(fd: number, set?: number): number;
  closeOnExec(fd: number, on: boolean): void;
  changeRoot(path: string): void;
  addressOf(bytes: ArrayBufferView): bigint;
  lockAllMemory(onFault: boolean): void;
  enterSandbox(sets: number): void;
  canSandbox(): boolean;
  /** A text says why there is no disassembler. */
  disassemble(
    code: Uint8Array,
    address: bigint,
    bits: number,
  ): [bytes: number, mnemonic: string, operands: string] | string | undefined;
  zstdCompress(source: Uint8Array, target: Uint8Array, level: number): number;
  zstdDecompress(source: Uint8Array, target: Uint8Array): boolean;
  readonly SlirpStack: new (
    config: object,
    frameReady: (length: number) => void,
    guestError: (message: string) => void,
  ) => NativeSlirp;
  readonly FdPoll: new (fd: number, ready: (events: number) => void) => NativeFdPoll;
  readonly IoRing: new (slots: number, done: Int32Array) => NativeIoRing;
  readonly IoThreads: new (slots: number, done: Int32Array) => NativeIoRing;
  readonly StandInThread: new (name: string) => NativeStandInThread;
}

export interface NativeSlirp {
  /** Where a frame for the guest is while `frameReady` is called. */
  readonly frame: Uint8Array;
  input(bytes: Uint8Array, length: number): void;
  addHostForward(udp: boolean, hostAddress: string, hostPort: number, guestAddress: string, guestPort: number): boolean;
  removeHostForward(udp: boolean, hostAddress: string, hostPort: number): boolean;
  addGuestForward(kind: 'unix' | 'command', target: string, guestAddress: string, guestPort: number): boolean;
  connectionInfo(): string;
  close(): void;
}

export interface NativeIoRing {
  readonly fd: number;
  submit(
    op: number,
    slot: number,
    fd: number,
    memory: Uint8Array,
    spans: Float64Array,
    count: number,
    offset: number,
  ): boolean;
  /** 0, or a negative error number. */
  enter(): number;
  /** Hands over what is queued, and returns when something has finished. */
  wait(): void;
  /** How many have finished: slot and result of each are in `done`. */
  reap(): number;
  close(): void;
}

export interface NativeStandInThread {
  /** The kernel's number of the thread. */
  readonly id: number;
  /** Runs the calling thread on the CPUs that the thread was last bound to. */
  follow(): void;
  close(): void;
}

export interface NativeFdPoll {
  watch(events: number): void;
  setRef(on: boolean): void;
  close(): void;
}

/** @throws SouthbridgeError ERR_ADDON_MISSING, ERR_ADDON_LOAD */
export const hostCalls = (): HostCalls => loadNative() as HostCalls;
