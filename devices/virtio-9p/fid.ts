import { field, type StateValues } from '../../core/state/fields.ts';

const ATTRIBUTE_MAX = 0x1_0000;
/** Bytes of the longest path that a client may come to by walking; renaming a folder may make those below it longer. */
export const PATH_MAX = 4096;

/** An extended attribute that a fid stands for: to be read, or written and set when the fid is let go. */
export interface Attribute {
  readonly name: string;
  readonly value: Uint8Array;
  readonly flags: number;
  /** It is being written: how much has been. Absent where it is read. */
  written?: number;
}

/** How a fid is saved: an open file is opened again by its path. */
export const fidFields = {
  fid: field.u32(),
  path: field.string('', 4 * PATH_MAX),
  uid: field.u32(),
  opened: field.bool(),
  folder: field.bool(),
  flags: field.u32(),
  attribute: field.string(),
  attributeValue: field.buffer(ATTRIBUTE_MAX),
  attributeFlags: field.u32(),
  attributeWritten: field.number(-1),
} as const;
export type SavedFid = StateValues<typeof fidFields>;

/** The handle of a file that could not be opened again after a restore. */
export const NO_HANDLE = -1;

/** A number by which the client names a file: a path, and once it is opened a handle of the tree. */
export class Fid {
  path: string;
  readonly uid: number;
  handle: number | undefined;
  folder = false;
  /** Those that it was opened with. */
  flags = 0;
  attribute: Attribute | undefined;

  constructor(path: string, uid: number) {
    this.path = path;
    this.uid = uid;
  }

  /** Neither opened nor an attribute: only such a fid walks. */
  get idle(): boolean {
    return this.handle === undefined && this.attribute === undefined;
  }
}
