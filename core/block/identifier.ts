/** Whether a client may call a node, a job or an export that: a letter, then letters, digits and `-._`. */
export function isWellFormedId(id: string): boolean {
  return /^[a-z][a-z0-9._-]*$/i.test(id);
}
