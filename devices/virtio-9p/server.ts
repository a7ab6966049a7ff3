import { ERRNO, type Outcome } from '../../core/fsdev/errno.ts';
import { attributes } from './attributes.ts';
import { files } from './files.ts';
import { names } from './names.ts';
import { MSIZE_MIN, READ_ONLY_MESSAGES, T, UNKNOWN_VERSION, VERSION } from './protocol.ts';
import type { Exchange, Handler, Session } from './session.ts';

/** Tversion: a new conversation. Its messages are no longer than the client says. */
const version: Handler = (session, { request, reply }) => {
  const msize = request.u32();
  const wanted = request.text();
  session.reset();
  if (wanted !== VERSION) {
    reply.u32(msize).text(UNKNOWN_VERSION);
    return 0;
  }
  if (msize < MSIZE_MIN) return -ERRNO.EMSGSIZE;
  session.msize = msize;
  reply.u32(msize).text(VERSION);
  return 0;
};

/** Tattach: a fid for the root, for one user. The names of user and tree decide nothing. */
const attach: Handler = (session, { request, reply }) => {
  const number = request.u32();
  request.u32();
  request.text();
  request.text();
  const uid = request.u32();
  const fid = session.add(number, '', uid);
  if (typeof fid === 'number') return fid;
  const looked = session.look(fid);
  if (looked >= 0) return session.qid(reply);
  session.drop(number);
  return looked;
};

const HANDLERS: ReadonlyMap<number, Handler> = new Map([
  [T.VERSION, version],
  [T.ATTACH, attach],
  [T.WALK, names.walk],
  [T.MKDIR, names.makeFolder],
  [T.MKNOD, names.makeNode],
  [T.SYMLINK, names.makeSymlink],
  [T.READLINK, names.readLink],
  [T.LINK, names.link],
  [T.RENAME, names.rename],
  [T.RENAMEAT, names.renameAt],
  [T.UNLINKAT, names.removeAt],
  [T.REMOVE, names.remove],
  [T.LOPEN, files.open],
  [T.LCREATE, files.create],
  [T.READ, files.read],
  [T.WRITE, files.write],
  [T.READDIR, files.readFolder],
  [T.FSYNC, files.sync],
  [T.CLUNK, files.clunk],
  [T.LOCK, files.lock],
  [T.GETLOCK, files.getLock],
  [T.GETATTR, attributes.getAttributes],
  [T.SETATTR, attributes.setAttributes],
  [T.STATFS, attributes.fileSystem],
  [T.XATTRWALK, attributes.attributeWalk],
  [T.XATTRCREATE, attributes.attributeCreate],
]);

/** Does what a request says; the answer's body is in `exchange.reply` then. */
export function serve(session: Session, exchange: Exchange): Outcome {
  const { type } = exchange.request;
  const handler = HANDLERS.get(type);
  if (handler === undefined) return -ERRNO.EOPNOTSUPP;
  if (session.tree.readOnly && !READ_ONLY_MESSAGES.has(type)) return -ERRNO.EROFS;
  return handler(session, exchange);
}
