import { ERRNO, type Outcome } from '../../core/fsdev/errno.ts';
import { type FileTime, TIME } from '../../core/fsdev/file-tree.ts';
import { GETATTR, IO_HEADER_SIZE, SETATTR } from './protocol.ts';
import type { Handler } from './session.ts';

const UNCHANGED = 0xffff_ffff;
/** XATTR_SIZE_MAX, XATTR_NAME_MAX, XATTR_CREATE | XATTR_REPLACE (linux/limits.h, xattr.h). */
const ATTRIBUTE_MAX = 0x1_0000;
const ATTRIBUTE_NAME_MAX = 255;
const ATTRIBUTE_FLAGS = 3;

const getAttributes: Handler = (session, { request, reply }) => {
  const fid = session.fid(request.u32());
  const mask = request.u64();
  if (fid === undefined) return -ERRNO.ENOENT;
  const looked = session.look(fid);
  if (looked < 0) return looked;
  const { status } = session;
  const generation = (mask & GETATTR.GENERATION) !== 0 ? session.tree.generation(fid.path) : -ERRNO.EOPNOTSUPP;
  reply.u64(GETATTR.BASIC | (generation >= 0 ? GETATTR.GENERATION : 0));
  const outcome = session.qid(reply);
  reply.u32(status.mode).u32(status.uid).u32(status.gid).u64(status.links).u64(status.device);
  reply.u64(status.size).u64(session.ioUnit(status.blockSize)).u64(status.blocks);
  for (const time of ['accessed', 'modified', 'changed'] as const)
    reply.u64(status.seconds(time)).u64(status.nanoseconds(time));
  // Time of birth, which stat(2) does not know; the generation; the version of the data.
  reply.u64(0).u64(0).u64(Math.max(0, generation)).u64(0);
  return outcome;
};

const setAttributes: Handler = (session, { request }) => {
  const fid = session.fid(request.u32());
  const valid = request.u32();
  const mode = request.u32();
  const uid = request.u32();
  const gid = request.u32();
  const size = request.u64();
  const accessed = time(valid, SETATTR.ATIME, SETATTR.ATIME_SET, request.u64(), request.u64());
  const modified = time(valid, SETATTR.MTIME, SETATTR.MTIME_SET, request.u64(), request.u64());
  if (request.malformed || fid === undefined) return -ERRNO.EINVAL;
  const { tree } = session;
  const { path } = fid;
  let outcome: Outcome = 0;
  if ((valid & SETATTR.MODE) !== 0) outcome = tree.changeMode(path, mode);
  if (outcome >= 0 && (valid & (SETATTR.ATIME | SETATTR.MTIME)) !== 0)
    outcome = tree.changeTimes(path, accessed, modified);
  // The time of the last change alone: changing no owner to no other sets it.
  const owners = (valid & (SETATTR.UID | SETATTR.GID)) !== 0 || (valid & SETATTR.ALL) === SETATTR.CTIME;
  if (outcome >= 0 && owners) {
    outcome = tree.changeOwner(
      path,
      (valid & SETATTR.UID) !== 0 ? uid : UNCHANGED,
      (valid & SETATTR.GID) !== 0 ? gid : UNCHANGED,
    );
  }
  if (outcome >= 0 && (valid & SETATTR.SIZE) !== 0)
    outcome = Number.isSafeInteger(size) ? tree.truncate(path, size) : -ERRNO.EFBIG;
  return outcome;
};

function time(valid: number, change: number, given: number, seconds: number, nanoseconds: number): FileTime {
  if ((valid & change) === 0) return [0, TIME.OMIT];
  return (valid & given) === 0 ? [0, TIME.NOW] : [seconds, Math.min(nanoseconds, 999_999_999)];
}

const fileSystem: Handler = (session, { request, reply }) => {
  if (session.fid(request.u32()) === undefined) return -ERRNO.ENOENT;
  const status = session.tree.fileSystem();
  if (typeof status === 'number') return status;
  // Clients move whole messages: a block is as large as what fits into one.
  const factor = Math.max(1, Math.floor((session.msize - IO_HEADER_SIZE) / Math.max(1, status.blockSize)));
  const blocks = (count: number): number => Math.floor(count / factor);
  reply.u32(status.type).u32(status.blockSize * factor);
  reply.u64(blocks(status.blocks)).u64(blocks(status.free)).u64(blocks(status.available));
  reply.u64(status.files).u64(status.filesFree);
  reply.u32(status.id[0]).u32(status.id[1]).u32(status.nameMax);
  return 0;
};

/** Txattrwalk: a fid for the value of an attribute, or without a name for the list of them. */
const attributeWalk: Handler = (session, { request, reply }) => {
  const file = session.fid(request.u32());
  const number = request.u32();
  const name = request.text();
  if (file === undefined) return -ERRNO.ENOENT;
  const { path } = file;
  if (session.fid(number) !== undefined) return -ERRNO.EINVAL;
  const value = name === '' ? session.tree.listAttributes(path) : session.tree.getAttribute(path, name);
  if (typeof value === 'number') return value;
  const fid = session.add(number, path, file.uid);
  if (typeof fid === 'number') return fid;
  fid.attribute = { name, value, flags: 0 };
  reply.u64(value.length);
  return 0;
};

/** Txattrcreate: what is written to the fid from now on is an attribute's value, set when the fid is let go. */
const attributeCreate: Handler = (session, { request }) => {
  const fid = session.fid(request.u32());
  const name = request.text();
  const size = request.u64();
  const flags = request.u32();
  if ((flags & ~ATTRIBUTE_FLAGS) !== 0) return -ERRNO.EINVAL;
  if (size > ATTRIBUTE_MAX) return -ERRNO.E2BIG;
  if (name.length > ATTRIBUTE_NAME_MAX) return -ERRNO.ERANGE;
  if (fid === undefined || !fid.idle) return -ERRNO.EINVAL;
  fid.attribute = { name, value: new Uint8Array(size), flags, written: 0 };
  return 0;
};

export const attributes = { getAttributes, setAttributes, fileSystem, attributeWalk, attributeCreate };
