import { ERRNO, type Outcome } from '../../core/fsdev/errno.ts';
import { MODE } from '../../core/fsdev/file-status.ts';
import { join, OPEN } from '../../core/fsdev/file-tree.ts';
import { type Attribute, type Fid, NO_HANDLE, PATH_MAX } from './fid.ts';
import { COUNT_SIZE, HEADER_SIZE, LOCK, QID, QID_SIZE } from './protocol.ts';
import type { Exchange, Handler, Session } from './session.ts';

/** Flags that a guest's open(2) has and that mean something to the host; O_CREAT is what Tlcreate is for. */
const HOST_FLAGS =
  OPEN.ACCESS | OPEN.EXCLUSIVE | OPEN.TRUNCATE | OPEN.APPEND | OPEN.NONBLOCK | OPEN.FOLDER | OPEN.NOATIME | OPEN.SYNC;
const CHANGES = OPEN.ACCESS | OPEN.APPEND | OPEN.TRUNCATE;
const DATA_AT = HEADER_SIZE + COUNT_SIZE;
/** A folder's entry besides its name: qid, position, type, the name's length. */
const ENTRY_SIZE = QID_SIZE + 8 + 1 + 2;

const open: Handler = (session, { request, reply }) => {
  const fid = session.fid(request.u32());
  const flags = request.u32() & HOST_FLAGS;
  if (fid === undefined) return -ERRNO.ENOENT;
  if (!fid.idle) return -ERRNO.EINVAL;
  const looked = session.look(fid);
  if (looked < 0) return looked;
  const folder = session.status.type === MODE.FOLDER;
  if (session.tree.readOnly && (flags & CHANGES) !== 0 && !folder) return -ERRNO.EROFS;
  if (!session.mayOpen) return -ERRNO.ENFILE;
  const wanted = folder ? OPEN.FOLDER : flags & ~OPEN.EXCLUSIVE;
  const handle = session.tree.open(fid.path, wanted);
  if (handle < 0) return handle;
  session.opened(fid, handle, wanted, folder);
  const outcome = session.qid(reply);
  reply.u32(folder ? 0 : session.ioUnit(session.status.blockSize));
  return outcome;
};

/** Tlcreate: makes a file in the fid's folder; the fid is the file then. */
const create: Handler = (session, { request, reply }) => {
  const fid = session.fid(request.u32());
  const name = request.text();
  const flags = request.u32() & HOST_FLAGS;
  const mode = request.u32();
  const gid = request.u32();
  if (name === '' || name.includes('/') || name.includes('\0')) return -ERRNO.ENOENT;
  if (name === '.' || name === '..') return -ERRNO.EEXIST;
  if (fid === undefined) return -ERRNO.ENOENT;
  if (!fid.idle) return -ERRNO.EINVAL;
  if (!session.mayOpen) return -ERRNO.ENFILE;
  const path = join(fid.path, name);
  if (path.length > PATH_MAX) return -ERRNO.ENAMETOOLONG;
  const handle = session.tree.create(path, flags, { uid: fid.uid, gid, mode });
  if (handle < 0) return handle;
  fid.path = path;
  session.opened(fid, handle, flags, false);
  const looked = session.look(fid);
  if (looked < 0) return looked;
  const outcome = session.qid(reply);
  reply.u32(session.ioUnit(session.status.blockSize));
  return outcome;
};

const read: Handler = (session, { request, reply, answer }) => {
  const fid = session.fid(request.u32());
  const offset = request.u64();
  const wanted = request.u32();
  if (fid === undefined) return -ERRNO.EINVAL;
  const room = Math.min(wanted, session.msize - DATA_AT, answer.length - DATA_AT);
  if (fid.attribute !== undefined) return readAttribute(fid.attribute, offset, room, answer, reply);
  const handle = handleOf(fid, false);
  if (handle < 0) return handle;
  if (!Number.isSafeInteger(offset)) return -ERRNO.EINVAL;
  const length = room <= 0 ? 0 : session.tree.read(handle, answer, DATA_AT, room, offset);
  if (length < 0) return length;
  reply.u32(length);
  reply.data = length;
  return 0;
};

function readAttribute(
  { value, written }: Attribute,
  offset: number,
  room: number,
  answer: Exchange['answer'],
  reply: Exchange['reply'],
): Outcome {
  if (written !== undefined) return -ERRNO.EINVAL;
  const length = Math.max(0, Math.min(room, value.length - offset));
  if (length > 0) answer.scatter(DATA_AT, value, offset, length);
  reply.u32(length);
  reply.data = length;
  return 0;
}

const write: Handler = (session, { request, reply, message }) => {
  const fid = session.fid(request.u32());
  const offset = request.u64();
  const length = Math.min(request.u32(), message.length - request.at);
  if (fid === undefined) return -ERRNO.EINVAL;
  if (fid.attribute !== undefined) return writeAttribute(fid.attribute, offset, message, request.at, length, reply);
  const handle = handleOf(fid, false);
  if (handle < 0) return handle;
  if (!Number.isSafeInteger(offset + length)) return -ERRNO.EFBIG;
  const done = session.tree.write(handle, message, request.at, length, offset);
  if (done < 0) return done;
  reply.u32(done);
  return 0;
};

function writeAttribute(
  attribute: Attribute,
  offset: number,
  message: Exchange['message'],
  from: number,
  wanted: number,
  reply: Exchange['reply'],
): Outcome {
  if (attribute.written === undefined) return -ERRNO.EINVAL;
  const length = Math.min(wanted, attribute.value.length - offset);
  if (length < 0) return -ERRNO.ENOSPC;
  message.gather(from, attribute.value, offset, length);
  attribute.written += length;
  reply.u32(length);
  return 0;
}

/** Treaddir: entries from a position on, each with where to go on behind it. */
const readFolder: Handler = (session, { request, reply, answer }) => {
  const fid = session.fid(request.u32());
  const position = [request.u32(), request.u32()] as const;
  const wanted = request.u32();
  if (fid === undefined) return -ERRNO.EINVAL;
  const handle = handleOf(fid, true);
  if (handle < 0) return handle;
  reply.u32(0);
  const start = reply.length;
  const limit = start + Math.min(wanted, session.msize - DATA_AT, reply.room(answer.length));
  const outcome = session.tree.readFolder(handle, position, limit - start, entry => {
    if (reply.length + ENTRY_SIZE + entry.name.length > limit) return false;
    // Clients take nothing but its number from this qid; looking at each file for the rest would cost them dearly.
    reply.u8(QID.FILE).u32(0).u32(entry.inodeLow).u32(entry.inodeHigh);
    reply.u32(entry.nextLow).u32(entry.nextHigh).u8(entry.type).text(entry.name);
    return true;
  });
  reply.count(start);
  return Math.min(0, outcome);
};

const sync: Handler = (session, { request }) => {
  const fid = session.fid(request.u32());
  const dataOnly = request.u32() !== 0;
  if (fid === undefined) return -ERRNO.ENOENT;
  const handle = handleOf(fid, fid.folder);
  return handle < 0 ? handle : session.tree.sync(handle, dataOnly);
};

const clunk: Handler = (session, { request }) => {
  const number = request.u32();
  const fid = session.fid(number);
  if (fid === undefined) return -ERRNO.ENOENT;
  const { attribute, path } = fid;
  session.drop(number);
  if (attribute?.written === undefined) return 0;
  if (attribute.written !== attribute.value.length) return -ERRNO.EINVAL;
  // Nothing as the value of an attribute takes it away.
  if (attribute.value.length === 0) return session.tree.removeAttribute(path, attribute.name);
  return session.tree.setAttribute(path, attribute.name, attribute.value, attribute.flags);
};

/** Tlock: one client has the tree, and its kernel resolves the locks of its processes. */
const lock: Handler = (session, { request, reply }) => {
  const fid = session.fid(request.u32());
  request.u8();
  const flags = request.u32();
  if ((flags & ~LOCK.FLAG_BLOCK) !== 0) return -ERRNO.EINVAL;
  if (fid === undefined) return -ERRNO.ENOENT;
  reply.u8(LOCK.SUCCESS);
  return lockable(session, fid);
};

const getLock: Handler = (session, { request, reply }) => {
  const fid = session.fid(request.u32());
  request.u8();
  const range = [request.u32(), request.u32(), request.u32(), request.u32()];
  const process = request.u32();
  const client = request.text();
  if (fid === undefined) return -ERRNO.ENOENT;
  reply.u8(LOCK.UNLOCKED);
  for (const word of range) reply.u32(word);
  reply.u32(process).text(client);
  return lockable(session, fid);
};

function lockable(session: Session, fid: Fid): Outcome {
  const handle = handleOf(fid, fid.folder);
  return handle < 0 ? handle : session.tree.openStatus(handle, session.status);
}

/** The handle of an open file or folder, or why there is none. */
function handleOf(fid: Fid, folder: boolean): Outcome {
  if (fid.handle === undefined || fid.folder !== folder) return -ERRNO.EINVAL;
  return fid.handle === NO_HANDLE ? -ERRNO.ESTALE : fid.handle;
}

export const files = { open, create, read, write, readFolder, sync, clunk, lock, getLock };
