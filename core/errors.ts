/**
 * An error with a name. `code` is stable and meant for programs; the message says what is wrong and where, and `hint`,
 * where there is one, says what to do.
 */
export class SouthbridgeError extends Error {
  readonly code: `ERR_${string}`;
  readonly hint: string | undefined;

  /**
   * @param code stable identifier such as `ERR_BUS_OVERLAP`
   * @param message what is wrong and where, in one sentence without a full stop
   * @param hint what the user can do about it
   */
  constructor(code: `ERR_${string}`, message: string, hint?: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'SouthbridgeError';
    this.code = code;
    this.hint = hint;
  }
}

/**
 * The candidate that `word` was most likely meant to be, for "did you mean" hints.
 * Distance is Damerau-Levenshtein (optimal string alignment); nothing further than a third of the word is offered.
 */
export function nearest(word: string, candidates: Iterable<string>): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.ceil(word.length / 3)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase(), bestDistance);
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) >= limit) return limit;
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const substitution = (last[column - 1] ?? 0) + (a[row - 1] === b[column - 1] ? 0 : 1);
      let cost = Math.min((last[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1, substitution);
      if (row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1]) {
        cost = Math.min(cost, (beforeLast[column - 2] ?? 0) + 1);
      }
      current.push(cost);
    }
    beforeLast = last;
    last = current;
  }
  return last[b.length] ?? limit;
}

/** ` Did you mean 'x'?`, or a list of what there is, as a hint for an unknown name. */
export function didYouMean(word: string, candidates: Iterable<string>, listing?: string): string | undefined {
  const guess = nearest(word, candidates);
  if (guess !== undefined) return `did you mean '${guess}'?`;
  return listing === undefined ? undefined : `see '${listing}' for a list`;
}
