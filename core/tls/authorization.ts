/** Who may come in, by the name that a peer has proven: QEMU's `-object authz-*`. */
import { readFileSync, watch } from 'node:fs';
import { basename, dirname } from 'node:path';
import { SouthbridgeError } from '../errors.ts';

/** Decides over identities; the distinguished name where the peer has shown a certificate. */
export interface Authorizer {
  /** @throws SouthbridgeError where it cannot be told */
  allows(identity: string): boolean;
}

type Policy = 'allow' | 'deny';

export interface Rule {
  readonly match: string;
  readonly policy: Policy;
  /** `exact` unless it says otherwise. */
  readonly format?: 'exact' | 'glob' | undefined;
}

export interface AuthorizationRules {
  /** Where no rule matches; `deny` unless it says otherwise. */
  readonly policy?: Policy | undefined;
  readonly rules?: readonly Rule[] | undefined;
}

/** One identity only. */
export const onlyFor = (identity: string): Authorizer => ({ allows: given => given === identity });

/** The first rule that matches decides. */
export const byRules = ({ policy = 'deny', rules = [] }: AuthorizationRules): Authorizer => {
  const compiled = rules.map(rule => ({ policy: rule.policy, matches: matcher(rule) }));
  return { allows: identity => (compiled.find(({ matches }) => matches(identity))?.policy ?? policy) === 'allow' };
};

function matcher({ match, format }: Rule): (identity: string) => boolean {
  if (format !== 'glob') return identity => identity === match;
  // Stars only at `*`, any character at `?`: GLib's patterns know nothing else.
  const pieces = match
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replace(/\*+/g, '.*')
    .replaceAll('?', '.');
  const pattern = new RegExp(`^${pieces}$`, 'su');
  return identity => pattern.test(identity);
}

/** Rules in a file, which is read again when it changes; while it makes no sense, nobody is let in. */
export class RulesFile implements Authorizer {
  readonly #path: string;
  readonly #parse: (text: string) => AuthorizationRules;
  readonly #stop: () => void;
  #current: Authorizer | undefined;

  /**
   * @param parse reads the JSON; throws where it is none
   * @param complain told what is wrong with a file that has changed
   * @throws SouthbridgeError ERR_AUTHZ where the file cannot be read, or what `parse` throws
   */
  constructor(
    path: string,
    refresh: boolean,
    parse: (text: string) => AuthorizationRules,
    complain: (error: unknown) => void,
  ) {
    this.#path = path;
    this.#parse = parse;
    this.#current = this.#load();
    if (!refresh) {
      this.#stop = () => undefined;
      return;
    }
    const folder = dirname(path);
    if (folder === '.') throw new SouthbridgeError('ERR_AUTHZ', 'Filename must be an absolute path');
    // Editors put a new file in the old one's place, so it is the folder that is watched.
    const watcher = watch(folder, { persistent: false }, (_event, name) => {
      if (name !== basename(path)) return;
      this.#current = undefined;
      try {
        this.#current = this.#load();
      } catch (error) {
        complain(error);
      }
    });
    watcher.on('error', complain);
    this.#stop = () => watcher.close();
  }

  allows(identity: string): boolean {
    return this.#current?.allows(identity) ?? false;
  }

  dispose(): void {
    this.#stop();
  }

  #load(): Authorizer {
    let text: string;
    try {
      text = readFileSync(this.#path, 'utf8');
    } catch (cause) {
      const why =
        cause instanceof Error && 'code' in cause && cause.code === 'ENOENT' ? 'No such file or directory' : cause;
      throw new SouthbridgeError(
        'ERR_AUTHZ',
        `Unable to read '${this.#path}': Failed to open file “${this.#path}”: ${why instanceof Error ? why.message : why}`,
        undefined,
        { cause },
      );
    }
    return byRules(this.#parse(text));
  }
}
