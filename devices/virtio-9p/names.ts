import { ERRNO, type Outcome } from '../../core/fsdev/errno.ts';
import { MODE } from '../../core/fsdev/file-status.ts';
import { join, parentOf } from '../../core/fsdev/file-tree.ts';
import { type Fid, PATH_MAX } from './fid.ts';
import { REMOVE_FOLDER, WALK_MAX } from './protocol.ts';
import type { Exchange, Handler, Session } from './session.ts';

const illegal = (name: string): boolean => name === '' || name.includes('/') || name.includes('\0');
const isDots = (name: string): boolean => name === '.' || name === '..';

/** The path of a name in a folder; the folder above the root is the root. */
function step(path: string, name: string): string {
  if (name === '.') return path;
  return name === '..' ? parentOf(path) : join(path, name);
}

/** Twalk: from a fid over up to sixteen names to a new one. What can be walked is answered, and only all of it makes the fid. */
const walk: Handler = (session, { request, reply }) => {
  const from = request.u32();
  const to = request.u32();
  const count = request.u16();
  if (count > WALK_MAX) return -ERRNO.EINVAL;
  const names: string[] = [];
  for (let index = 0; index < count && !request.malformed; index++) names.push(request.text());
  if (request.malformed) return -ERRNO.EINVAL;
  if (names.some(illegal)) return -ERRNO.ENOENT;
  const fid = session.fid(from);
  if (fid === undefined) return -ERRNO.ENOENT;
  const start = session.look(fid);
  if (start < 0) return start;
  const counted = reply.length;
  reply.u16(0);
  let path = fid.path;
  for (const [index, name] of names.entries()) {
    const next = step(path, name);
    let outcome = next.length > PATH_MAX ? -ERRNO.ENAMETOOLONG : session.tree.status(next, session.status);
    if (outcome >= 0) outcome = session.qid(reply);
    if (outcome < 0) return index === 0 ? outcome : walked(reply, counted, index);
    path = next;
  }
  if (from === to) {
    if (!fid.idle) return -ERRNO.EINVAL;
    fid.path = path;
  } else {
    const added = session.add(to, path, fid.uid);
    if (typeof added === 'number') return added;
  }
  return walked(reply, counted, names.length);
};

function walked(reply: Exchange['reply'], at: number, count: number): Outcome {
  const end = reply.length;
  reply.length = at;
  reply.u16(count);
  reply.length = end;
  return 0;
}

/** What a new name is made in: the folder's fid and the path of the name, or why not. */
function place(session: Session, number: number, name: string): { readonly fid: Fid; readonly path: string } | Outcome {
  if (illegal(name)) return -ERRNO.ENOENT;
  if (isDots(name)) return -ERRNO.EEXIST;
  const fid = session.fid(number);
  if (fid === undefined) return -ERRNO.ENOENT;
  const path = join(fid.path, name);
  return path.length > PATH_MAX ? -ERRNO.ENAMETOOLONG : { fid, path };
}

/** The qid of what has just been made. */
function made(session: Session, { reply }: Exchange, path: string, outcome: Outcome): Outcome {
  if (outcome < 0) return outcome;
  const looked = session.tree.status(path, session.status);
  return looked < 0 ? looked : session.qid(reply);
}

const makeFolder: Handler = (session, exchange) => {
  const { request } = exchange;
  const where = place(session, request.u32(), request.text());
  const mode = request.u32();
  const gid = request.u32();
  if (typeof where === 'number') return where;
  return made(session, exchange, where.path, session.tree.makeFolder(where.path, { uid: where.fid.uid, gid, mode }));
};

const makeNode: Handler = (session, exchange) => {
  const { request } = exchange;
  const where = place(session, request.u32(), request.text());
  const mode = request.u32();
  const device = [request.u32(), request.u32()] as const;
  const gid = request.u32();
  if (typeof where === 'number') return where;
  const owner = { uid: where.fid.uid, gid, mode };
  return made(session, exchange, where.path, session.tree.makeNode(where.path, owner, device));
};

const makeSymlink: Handler = (session, exchange) => {
  const { request } = exchange;
  const where = place(session, request.u32(), request.text());
  const target = request.text();
  const gid = request.u32();
  if (typeof where === 'number') return where;
  if (target === '' || target.includes('\0')) return -ERRNO.ENOENT;
  const owner = { uid: where.fid.uid, gid, mode: MODE.LINK | 0o777 };
  return made(session, exchange, where.path, session.tree.makeSymlink(where.path, target, owner));
};

const readLink: Handler = (session, { request, reply }) => {
  const fid = session.fid(request.u32());
  if (fid === undefined) return -ERRNO.ENOENT;
  const target = session.tree.readLink(fid.path);
  if (typeof target === 'number') return target;
  reply.text(target);
  return 0;
};

const link: Handler = (session, { request }) => {
  const folder = request.u32();
  const fid = session.fid(request.u32());
  const where = place(session, folder, request.text());
  if (typeof where === 'number') return where;
  return fid === undefined ? -ERRNO.ENOENT : session.tree.link(fid.path, where.path);
};

function move(session: Session, from: string, to: string): Outcome {
  if (from === '') return -ERRNO.EINVAL;
  const outcome = session.tree.rename(from, to);
  if (outcome >= 0) session.moved(from, to);
  return outcome;
}

/** Trename: the file of a fid gets a name in another folder. */
const rename: Handler = (session, { request }) => {
  const fid = session.fid(request.u32());
  const where = place(session, request.u32(), request.text());
  if (typeof where === 'number') return where === -ERRNO.EEXIST ? -ERRNO.EISDIR : where;
  return fid === undefined ? -ERRNO.ENOENT : move(session, fid.path, where.path);
};

/** Trenameat: a name in one folder becomes a name in another. */
const renameAt: Handler = (session, { request }) => {
  const from = place(session, request.u32(), request.text());
  const to = place(session, request.u32(), request.text());
  for (const where of [from, to]) if (typeof where === 'number') return where === -ERRNO.EEXIST ? -ERRNO.EISDIR : where;
  if (typeof from === 'number' || typeof to === 'number') return -ERRNO.EINVAL;
  return move(session, from.path, to.path);
};

const removeAt: Handler = (session, { request }) => {
  const number = request.u32();
  const name = request.text();
  const flags = request.u32();
  if (illegal(name)) return -ERRNO.ENOENT;
  if (name === '.') return -ERRNO.EINVAL;
  if (name === '..') return -ERRNO.EEXIST;
  if ((flags & ~REMOVE_FOLDER) !== 0) return -ERRNO.EINVAL;
  const fid = session.fid(number);
  if (fid === undefined) return -ERRNO.EINVAL;
  return session.tree.remove(join(fid.path, name), (flags & REMOVE_FOLDER) !== 0);
};

/** Tremove: removes the file, and lets the fid go whether that worked or not. */
const remove: Handler = (session, { request }) => {
  const number = request.u32();
  const fid = session.fid(number);
  if (fid === undefined) return -ERRNO.EINVAL;
  let outcome = session.look(fid);
  if (outcome >= 0) outcome = session.tree.remove(fid.path, session.status.type === MODE.FOLDER);
  session.drop(number);
  return outcome;
};

export const names = { walk, makeFolder, makeNode, makeSymlink, readLink, link, rename, renameAt, removeAt, remove };
