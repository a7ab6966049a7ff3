import { command, event } from '../declare.ts';
import { array, enumeration, int, opt, str, struct } from '../types.ts';

export const JobType = enumeration('JobType', [
  'commit',
  'stream',
  'mirror',
  'backup',
  'create',
  'amend',
  'snapshot-load',
  'snapshot-save',
  'snapshot-delete',
]);
export const JobStatus = enumeration('JobStatus', [
  'undefined',
  'created',
  'running',
  'paused',
  'ready',
  'standby',
  'waiting',
  'pending',
  'aborting',
  'concluded',
  'null',
]);
export const JobInfo = struct('JobInfo', {
  id: str,
  type: JobType,
  status: JobStatus,
  'current-progress': int,
  'total-progress': int,
  error: opt(str),
});

export const commands = {
  'query-jobs': command('The jobs', { returns: array(JobInfo) }),
  'job-pause': command('Pauses a job', { args: { id: str } }),
  'job-resume': command('Resumes a job', { args: { id: str } }),
  'job-cancel': command('Cancels a job', { args: { id: str } }),
  'job-complete': command('Lets a ready job complete', { args: { id: str } }),
  'job-dismiss': command('Forgets a concluded job', { args: { id: str } }),
  'job-finalize': command('Lets a pending job commit', { args: { id: str } }),
};

export const events = {
  JOB_STATUS_CHANGE: event({ id: str, status: JobStatus }),
};
