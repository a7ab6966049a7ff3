import { LocatedError } from '../options/command-line.ts';
import { HelpWanted } from '../options/opts.ts';

/** Runs a step, and names the option behind it in the error that it may throw. */
export async function at<T>(location: string | undefined, step: () => T | Promise<T>): Promise<T> {
  try {
    return await step();
  } catch (error) {
    if (error instanceof HelpWanted || error instanceof LocatedError || !(error instanceof Error)) throw error;
    throw location === undefined ? error : new LocatedError(location, error);
  }
}
