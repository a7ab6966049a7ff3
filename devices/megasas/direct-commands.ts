import { OP } from '../../core/scsi/command.ts';
import type { ScatterList } from '../ide/scatter-list.ts';
import type { ScsiDiskBase } from '../scsi/scsi-disk.ts';
import type { Frame } from './frame.ts';
import { DCMD, DIRECT, LD_QUERY, MAX_LOGICAL, PD_QUERY_ALL, PENDING, STATUS } from './registers.ts';
import {
  type Adapter,
  biosData,
  configuration,
  controllerInfo,
  eventLog,
  factoryDefaults,
  LD_LIST_BYTES,
  logicalDrive,
  logicalDrives,
  logicalTargets,
  physicalDrive,
  physicalDrives,
  SIZE,
} from './reports.ts';
import { ask, type FrameOwner } from './tasks.ts';

const INQUIRY_BYTES = 96;
const IDENTIFICATION_BYTES = 64;
const IDENTIFICATION_PAGE = 0x83;
/** The shortest answer to LD_LIST_QUERY: its header, and one drive. */
const LD_TARGETS_MIN = 12;

/** What direct commands need of the adapter. */
export interface DirectHost extends FrameOwner, Adapter {
  readonly events: { readonly newest: number; readonly shutdown: number; readonly boot: number };
  drives(): ScsiDiskBase[];
  drive(target: number, lun: number): ScsiDiskBase | undefined;
  /** In UTC. */
  now(): Date;
  waitForEvent(frame: Frame): void;
  shutDown(): void;
}

/** Seconds, minutes, hours, day, month and year, a byte each but the year. */
function firmwareTime(date: Date): { readonly low: number; readonly high: number } {
  const low = ((date.getUTCDate() & 0xff) << 24) | ((date.getUTCMonth() & 0xff) << 16) | date.getUTCFullYear();
  return { low: low >>> 0, high: (date.getUTCSeconds() << 16) | (date.getUTCMinutes() << 8) | date.getUTCHours() };
}

function inquiry(page: number | undefined, size: number): Uint8Array {
  return Uint8Array.of(OP.INQUIRY, page === undefined ? 0 : 1, page ?? 0, size >>> 8, size, 0);
}

/** Commands to the firmware itself. */
export class DirectCommands {
  readonly #host: DirectHost;

  constructor(host: DirectHost) {
    this.#host = host;
  }

  /** The time that events and controller information carry. */
  get time(): number {
    return firmwareTime(this.#host.now()).low;
  }

  /** Returns a status, or PENDING where the frame is finished later. Opcodes that are not known do nothing, well. */
  execute(frame: Frame, list: ScatterList): number {
    const host = this.#host;
    if (frame.sgeCount > 1 || !frame.describe(list, DIRECT.SGL)) return STATUS.MEMORY_NOT_AVAILABLE;
    const room = list.length;
    /** Answers, where there is room for `least` bytes. */
    const answer = (report: Uint8Array | undefined, least: number = report?.length ?? 0): number => {
      if (report === undefined || room < least) return STATUS.INVALID_PARAMETER;
      list.copyTo(report, 0, Math.min(room, report.length));
      return STATUS.OK;
    };
    switch (frame.view.getUint32(DIRECT.OPCODE, true)) {
      case DCMD.CTRL_GET_INFO:
        return answer(controllerInfo(host, host.drives(), this.time));
      case DCMD.CTRL_GET_PROPERTIES:
        return answer(host.settings);
      case DCMD.CTRL_SET_PROPERTIES:
        if (room < SIZE.PROPERTIES) return STATUS.INVALID_PARAMETER;
        list.copyFrom(host.settings, 0, SIZE.PROPERTIES);
        return STATUS.OK;
      case DCMD.CTRL_MFC_DEFAULTS_GET:
        return answer(factoryDefaults(host));
      case DCMD.CTRL_BIOS_DATA_GET:
        return answer(biosData(host));
      case DCMD.CTRL_GET_TIME:
        return answer(this.#firmwareTime(), 0);
      case DCMD.CTRL_EVENT_GETINFO: {
        const { newest, shutdown, boot } = host.events;
        return answer(eventLog(newest, shutdown, boot), 0);
      }
      case DCMD.CTRL_EVENT_WAIT:
        if (room < SIZE.EVENT) return STATUS.INVALID_PARAMETER;
        host.waitForEvent(frame);
        return PENDING;
      case DCMD.CTRL_CACHE_FLUSH:
        return this.#flush(frame);
      case DCMD.CTRL_SHUTDOWN:
        host.shutDown();
        return STATUS.OK;
      case DCMD.PD_GET_LIST:
        return answer(physicalDrives(host.drives(), room), SIZE.PD_LIST_HEADER + SIZE.PD_ADDRESS);
      case DCMD.PD_LIST_QUERY:
        if (frame.view.getUint8(DIRECT.MAILBOX) !== PD_QUERY_ALL && !host.jbod) return STATUS.OK;
        return answer(physicalDrives(host.drives(), room), SIZE.PD_LIST_HEADER + SIZE.PD_ADDRESS);
      case DCMD.PD_GET_INFO:
        return room < SIZE.PD_INFO ? STATUS.INVALID_PARAMETER : this.#physicalDrive(frame, list);
      case DCMD.LD_GET_LIST:
        if (room > LD_LIST_BYTES) return STATUS.INVALID_PARAMETER;
        return answer(logicalDrives(this.#logical, room), 0);
      case DCMD.LD_LIST_QUERY: {
        const kind = frame.view.getUint8(DIRECT.MAILBOX);
        const shown = kind === LD_QUERY.ALL || kind === LD_QUERY.EXPOSED_TO_HOST ? this.#logical : [];
        return answer(logicalTargets(shown, room), LD_TARGETS_MIN);
      }
      case DCMD.LD_GET_INFO:
        return room < SIZE.LD_INFO ? STATUS.INVALID_PARAMETER : this.#logicalDrive(frame, list);
      case DCMD.CFG_READ:
        return room > SIZE.CONFIG_MAX ? STATUS.INVALID_PARAMETER : answer(configuration(host.drives()), 0);
      case DCMD.CLUSTER_RESET_LD:
        return this.#resetDrives(frame.view.getUint16(DIRECT.MAILBOX, true));
      default:
        return STATUS.OK;
    }
  }

  /** In JBOD mode there are none. */
  get #logical(): readonly ScsiDiskBase[] {
    return this.#host.jbod ? [] : this.#host.drives();
  }

  #firmwareTime(): Uint8Array {
    const report = new Uint8Array(8);
    const view = new DataView(report.buffer);
    const { low, high } = firmwareTime(this.#host.now());
    view.setUint32(0, low, true);
    view.setUint32(4, high, true);
    return report;
  }

  /** The drives' caches too: what was written is on the media when this is done. */
  #flush(frame: Frame): number {
    let left = 1;
    let failed = false;
    let waited = false;
    const flushed = (good: boolean): void => {
      failed ||= !good;
      left--;
      if (left === 0 && waited) this.#host.finish(frame, failed ? STATUS.FLUSH_FAILED : STATUS.OK);
    };
    for (const drive of this.#host.drives()) {
      if (!drive.writable) continue;
      left++;
      ask(drive, Uint8Array.of(OP.SYNCHRONIZE_CACHE_10, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0, data =>
        flushed(data !== undefined),
      );
    }
    flushed(true);
    waited = left > 0;
    if (waited) return PENDING;
    return failed ? STATUS.FLUSH_FAILED : STATUS.OK;
  }

  #physicalDrive(frame: Frame, list: ScatterList): number {
    const host = this.#host;
    const id = frame.view.getUint16(DIRECT.MAILBOX, true);
    const drive = host.drive(id & 0xff, id >>> 8);
    if (drive === undefined) return STATUS.DEVICE_NOT_FOUND;
    ask(drive, inquiry(undefined, INQUIRY_BYTES), INQUIRY_BYTES, standard => {
      ask(drive, inquiry(IDENTIFICATION_PAGE, IDENTIFICATION_BYTES), IDENTIFICATION_BYTES, identification => {
        const none = Uint8Array.of(0x7f);
        list.copyTo(physicalDrive(drive, standard ?? none, identification ?? none, host.jbod), 0, SIZE.PD_INFO);
        host.finish(frame, STATUS.OK);
      });
    });
    return PENDING;
  }

  #logicalDrive(frame: Frame, list: ScatterList): number {
    const host = this.#host;
    const target = frame.view.getUint16(DIRECT.MAILBOX, true);
    const drive = host.jbod || target >= MAX_LOGICAL ? undefined : host.drive(target, 0);
    if (drive === undefined) return STATUS.DEVICE_NOT_FOUND;
    ask(drive, inquiry(IDENTIFICATION_PAGE, IDENTIFICATION_BYTES), IDENTIFICATION_BYTES, identification => {
      list.copyTo(logicalDrive(drive, identification ?? Uint8Array.of(0x7f)), 0, SIZE.LD_INFO);
      host.finish(frame, STATUS.OK);
    });
    return PENDING;
  }

  /** Drivers have no other way to reset a drive: it drops what it is at. */
  #resetDrives(target: number): number {
    for (const drive of this.#host.drives()) {
      if (drive.target !== target || drive.requests.size === 0) continue;
      for (const phase of ['enter', 'hold', 'exit'] as const) drive.resetPhase(phase);
    }
    return STATUS.OK;
  }
}
