import { existsSync } from 'node:fs';

const FOLDERS = ['/usr/lib/x86_64-linux-gnu', '/usr/lib64', '/usr/lib'];

/** Why tests of user-mode networking are skipped, or false where they can run. */
export const noSlirp: string | false = FOLDERS.some(folder => existsSync(`${folder}/libslirp.so.0`))
  ? false
  : 'this host has no libslirp';
