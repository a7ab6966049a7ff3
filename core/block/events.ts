/** What happens in the block layer that a monitor reports: QMP's events, as data. */
export type BlockEvent =
  | {
      readonly event: 'BLOCK_IO_ERROR';
      /** The backend's name; empty where it has none. */
      readonly device: string;
      readonly nodeName: string | undefined;
      readonly operation: 'read' | 'write';
      readonly action: ErrorAction;
      readonly nospace: boolean;
      readonly reason: string;
    }
  | { readonly event: 'DEVICE_TRAY_MOVED'; readonly device: string; readonly id: string; readonly trayOpen: boolean }
  | {
      readonly event: 'BLOCK_WRITE_THRESHOLD';
      readonly nodeName: string;
      readonly writeThreshold: number;
      readonly amountExceeded: number;
    }
  | {
      readonly event: 'BLOCK_IMAGE_CORRUPTED';
      readonly device: string;
      readonly nodeName: string;
      readonly msg: string;
      readonly offset?: number;
      readonly size?: number;
      readonly fatal: boolean;
    }
  | {
      readonly event: 'QUORUM_REPORT_BAD';
      readonly type: 'read' | 'write' | 'flush';
      readonly error?: string;
      readonly nodeName: string;
      readonly sectorNum: number;
      readonly sectorsCount: number;
    }
  | {
      readonly event: 'QUORUM_FAILURE';
      readonly reference: string;
      readonly sectorNum: number;
      readonly sectorsCount: number;
    }
  | { readonly event: 'JOB_STATUS_CHANGE'; readonly id: string; readonly status: JobStatus }
  | {
      readonly event: 'BLOCK_JOB_COMPLETED' | 'BLOCK_JOB_CANCELLED' | 'BLOCK_JOB_READY';
      readonly type: JobType;
      readonly device: string;
      readonly len: number;
      readonly offset: number;
      readonly speed: number;
      readonly error?: string;
    }
  | {
      readonly event: 'BLOCK_JOB_ERROR';
      readonly device: string;
      readonly operation: 'read' | 'write';
      readonly action: ErrorAction;
    }
  | { readonly event: 'BLOCK_JOB_PENDING'; readonly type: JobType; readonly id: string }
  | { readonly event: 'BLOCK_EXPORT_DELETED'; readonly id: string };

export type ErrorAction = 'ignore' | 'report' | 'stop';

export type JobType =
  | 'commit'
  | 'stream'
  | 'mirror'
  | 'backup'
  | 'create'
  | 'amend'
  | 'snapshot-load'
  | 'snapshot-save'
  | 'snapshot-delete';

export type JobStatus =
  | 'undefined'
  | 'created'
  | 'running'
  | 'paused'
  | 'ready'
  | 'standby'
  | 'waiting'
  | 'pending'
  | 'aborting'
  | 'concluded'
  | 'null';
