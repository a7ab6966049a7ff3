import type { BlockOptions } from './options.ts';
import type { NodeSettings } from './requests.ts';

/** What an open node is to become. */
export interface ReopenTarget {
  readonly settings: NodeSettings;
  /** The driver's own options; undefined where they stay as they are. */
  readonly options: BlockOptions | undefined;
  /** The child `file` will be another node. */
  readonly otherFile: boolean;
}

/** How a node becomes that, in step with all others that are reopened with it: all of them do, or none. */
export interface ReopenSteps {
  /** First, with everything still as it was. */
  prepare?(): Promise<void>;
  /** The settings and children are new now; what they need of others is not settled yet. */
  commit?(): void;
  /** All of it is settled. */
  activate?(): Promise<void>;
  /** It stays that way. */
  finish?(): void;
  /** Undoes `commit`; called with the old settings and children, before what they need of others is settled. */
  revert?(): void;
  /** Undoes `prepare` and `activate`. */
  abort?(): Promise<void>;
}

/** Of drivers whose nodes have nothing to do for it: their settings say it all. */
export const settingsAlone = { resettable: [], steps: (): ReopenSteps => ({}) } as const;
