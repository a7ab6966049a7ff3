import type { ScsiBus } from '../../core/scsi/scsi-bus.ts';
import type { ScsiDevice } from '../../core/scsi/scsi-device.ts';
import { VirtioScsiCommand } from './command.ts';
import { addressAt, lunAt, RESPONSE, TMF, TMF_SUBTYPE } from './layout.ts';

/**
 * Carries out a task management function (virtio 1.2, section 5.6.6.2; SAM-4, section 7). `respond` is called with the
 * response once nothing of what was taken away goes on any more: at once, or later.
 */
export function manageTasks(bus: ScsiBus, request: DataView, respond: (response: number) => void): void {
  const subtype = request.getUint32(TMF.SUBTYPE, true);
  if (subtype === TMF_SUBTYPE.I_T_NEXUS_RESET) {
    resetTarget(bus, request.getUint8(TMF.LUN + 1), () => respond(RESPONSE.OK));
    return;
  }
  if (subtype === TMF_SUBTYPE.CLEAR_ACA || subtype > TMF_SUBTYPE.QUERY_TASK_SET) {
    respond(RESPONSE.FUNCTION_REJECTED);
    return;
  }
  const address = addressAt(request, TMF.LUN);
  const device = address === undefined ? undefined : bus.find(0, address.target, address.lun);
  if (device === undefined) respond(RESPONSE.BAD_TARGET);
  else if (device.lun !== lunAt(request, TMF.LUN)) respond(RESPONSE.INCORRECT_LUN);
  else manage(device, subtype, request, respond);
}

function manage(device: ScsiDevice, subtype: number, request: DataView, respond: (response: number) => void): void {
  const done = (): void => respond(RESPONSE.OK);
  switch (subtype) {
    case TMF_SUBTYPE.ABORT_TASK: {
      const task = taskWithTag(device, request);
      if (task === undefined) done();
      else task.cancel(done);
      return;
    }
    case TMF_SUBTYPE.QUERY_TASK:
      respond(taskWithTag(device, request) === undefined ? RESPONSE.OK : RESPONSE.FUNCTION_SUCCEEDED);
      return;
    case TMF_SUBTYPE.QUERY_TASK_SET:
      respond(device.requests.size === 0 ? RESPONSE.OK : RESPONSE.FUNCTION_SUCCEEDED);
      return;
    case TMF_SUBTYPE.LOGICAL_UNIT_RESET:
      resetUnit(device, done);
      return;
    default:
      device.cancelAll(done);
  }
}

function taskWithTag(device: ScsiDevice, request: DataView) {
  const low = request.getUint32(TMF.TAG, true);
  const high = request.getUint32(TMF.TAG + 4, true);
  for (const task of device.requests) {
    if (task.task instanceof VirtioScsiCommand && task.task.tagLow === low && task.task.tagHigh === high) return task;
  }
  return undefined;
}

/** Resets a logical unit; its commands end with RESET. */
export function resetUnit(device: ScsiDevice, done: () => void): void {
  for (const { task } of device.requests) if (task instanceof VirtioScsiCommand) task.reset = true;
  device.cancelAll(done);
  device.reset();
}

function resetTarget(bus: ScsiBus, target: number, done: () => void): void {
  let left = 1;
  const gone = (): void => {
    left--;
    if (left === 0) done();
  };
  for (const unit of [...bus.units()]) {
    if (unit.channel !== 0 || unit.target !== target) continue;
    left++;
    resetUnit(unit, gone);
  }
  gone();
}
