import { TRANSFER } from '../../../core/usb/endpoint.ts';
import { PID, type UsbPacket } from '../../../core/usb/packet.ts';
import { PAGE } from './registers.ts';
import type { ScheduleHost } from './schedule.ts';

/** Words of an isochronous transfer descriptor (EHCI 1.0, section 3.3): a link, eight transactions, seven buffer pointers. */
const TRANSACTIONS = 1;
const TRANSACTION_COUNT = 8;
const BUFFERS = 9;
const BUFFER_COUNT = 7;

const XACT = { ACTIVE: 1 << 31, BABBLE: 1 << 29, ERROR: 1 << 28, IOC: 1 << 15 } as const;
const DIRECTION_IN = 1 << 11;
const MAX_BYTES = 3 * 1024;

/** Executes the active transactions of one descriptor with `packet`. Returns its link. */
export function processIsochronous(host: ScheduleHost, packet: UsbPacket, address: number): number {
  const { dma } = host;
  const word = (index: number): number => dma.read32(address + 4 * index);
  const link = word(0);
  const pointers = [word(BUFFERS), word(BUFFERS + 1), word(BUFFERS + 2)] as const;
  const pid = (pointers[1] & DIRECTION_IN) !== 0 ? PID.IN : PID.OUT;
  const limit = (pointers[1] & 0x7ff) * (pointers[2] & 3);
  const endpoint = host.device(pointers[0] & 0x7f)?.endpoint(pid, (pointers[0] >> 8) & 0xf);
  for (let index = 0; index < TRANSACTION_COUNT; index++) {
    const at = TRANSACTIONS + index;
    let transaction = word(at);
    if ((transaction & XACT.ACTIVE) === 0) continue;
    const page = (transaction >> 12) & 7;
    const length = Math.min((transaction >> 16) & 0xfff, limit, MAX_BYTES);
    const base = (transaction & (PAGE - 1)) + page * PAGE;
    let done = 0;
    if (page >= BUFFER_COUNT || endpoint === undefined || endpoint.type !== TRANSFER.ISOCHRONOUS) {
      // An OUT transaction has no handshake to miss (section 3.3.2).
      if (pid === PID.IN && endpoint === undefined) {
        transaction |= XACT.ERROR;
        host.interrupt(true);
      }
    } else {
      packet.prepare(pid, endpoint, length);
      if (pid === PID.OUT) move(host, address, base, packet, length);
      endpoint.device.submit(packet);
      // There is no later for an isochronous packet.
      if (packet.status === 'async') endpoint.device.cancel(packet);
      done = packet.status === 'success' ? packet.transferred : 0;
      if (pid === PID.IN) move(host, address, base, packet, done);
      if (packet.status === 'babble') transaction |= XACT.BABBLE;
      else if (pid === PID.IN && (packet.status === 'io-error' || packet.status === 'stall')) transaction |= XACT.ERROR;
      if ((transaction & (XACT.BABBLE | XACT.ERROR)) !== 0) host.interrupt(true);
    }
    const count = pid === PID.IN ? done : length - done;
    transaction = (transaction & ~(XACT.ACTIVE | 0x0fff_0000)) | (count << 16);
    if ((transaction & XACT.IOC) !== 0) host.interrupt(false);
    dma.write32(address + 4 * at, transaction >>> 0);
  }
  return link;
}

/** Bytes from `offset` into the pages that the descriptor's buffer pointers name. */
function move(host: ScheduleHost, descriptor: number, offset: number, packet: UsbPacket, length: number): void {
  const { dma } = host;
  for (let done = 0; done < length; ) {
    const at = offset + done;
    const page = Math.floor(at / PAGE);
    if (page >= BUFFER_COUNT) return;
    const base = (dma.read32(descriptor + 4 * (BUFFERS + page)) & ~(PAGE - 1)) >>> 0;
    const count = Math.min(length - done, PAGE - (at % PAGE));
    if (packet.pid === PID.IN) dma.write(base + (at % PAGE), packet.data, done, count);
    else dma.read(base + (at % PAGE), packet.data, done, count);
    done += count;
  }
}
