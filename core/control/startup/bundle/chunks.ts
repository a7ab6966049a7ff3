/** What one start of the program loaded, in order, in phases: until its greeting, until its first reply, and after that. */
export type Recording = readonly (readonly string[])[];

/** Modules that are wanted together: each start that loads one of them loads all, and in the same phase. */
export interface Chunk {
  readonly name: string;
  /** In the order of their first loading: an importer comes before what it imports. */
  readonly modules: readonly string[];
}

/**
 * Divides what starts loaded into chunks. As what a module imports is loaded no later than it, imports between chunks never
 * form a circle.
 */
export function chunksOf(recordings: readonly Recording[]): Chunk[] {
  const phases = recordings.map(phaseOf);
  const groups = new Map<string, string[]>();
  for (const module of new Set(recordings.flat(2))) {
    const key = phases.map(phase => phase.get(module) ?? '-').join();
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [module]);
    else group.push(module);
  }
  return [...groups.values()].map((modules, index) => ({ name: String(index), modules }));
}

function phaseOf(recording: Recording): Map<string, number> {
  return new Map(recording.flatMap((modules, phase) => modules.map(module => [module, phase] as const)));
}
