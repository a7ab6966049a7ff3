import { SouthbridgeError } from '../../errors.ts';
import { Guest, type GuestOptions } from './guest.ts';

const TEST_TIMEOUT_MS = 60_000;

/** A test of a suite: types, expects, looks at devices. It fails by throwing: any assertion library will do. */
export type GuestTest = (guest: Guest) => void | Promise<void>;

/** Tests of one guest, which is booted once. Each test begins with the guest as it was then. */
export interface GuestSuite extends GuestOptions {
  readonly name: string;
  /** What the console says when the guest has booted; the state of that moment is what every test begins with. */
  readonly ready: RegExp | string;
  readonly tests: Readonly<Record<string, GuestTest>>;
  /** Host time for one test; default 60 seconds. */
  readonly testTimeoutMs?: number;
}

export interface TestResult {
  readonly suite: string;
  readonly name: string;
  readonly failure: Error | undefined;
  readonly durationMs: number;
  /** What the console said during the test. */
  readonly output: string;
}

/** Declares a suite: the default export of a file for `southbridge test`. */
export function guestSuite(suite: GuestSuite): GuestSuite {
  return suite;
}

/** Runs a suite; `report` is told each result as it comes. */
export async function runSuite(
  suite: GuestSuite,
  report: (result: TestResult) => void = () => {},
): Promise<readonly TestResult[]> {
  const results: TestResult[] = [];
  const note = (result: TestResult): void => {
    results.push(result);
    report(result);
  };
  const started = performance.now();
  let guest: Guest | undefined;
  try {
    guest = await Guest.boot(suite);
    await guest.expect(suite.ready);
    const booted = guest.snapshot();
    note(resultOf(suite.name, 'boots', undefined, started, guest.console.output));
    for (const [name, test] of Object.entries(suite.tests)) {
      const began = performance.now();
      guest.restore(booted);
      guest.resume();
      const failure = await attempt(guest, test, suite.testTimeoutMs ?? TEST_TIMEOUT_MS);
      note(resultOf(suite.name, name, failure, began, guest.console.output.slice(booted.console.length)));
    }
  } catch (error) {
    note(resultOf(suite.name, 'boots', asError(error), started, guest?.console.output ?? ''));
  } finally {
    guest?.dispose();
  }
  return results;
}

async function attempt(guest: Guest, test: GuestTest, timeoutMs: number): Promise<Error | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    const error = new SouthbridgeError('ERR_GUEST_TIMEOUT', `the test takes longer than ${timeoutMs} ms`);
    timer = setTimeout(() => reject(error), timeoutMs);
  });
  try {
    await Promise.race([test(guest), late]);
    return undefined;
  } catch (error) {
    return asError(error);
  } finally {
    clearTimeout(timer);
  }
}

const asError = (error: unknown): Error => (error instanceof Error ? error : new Error(String(error)));

function resultOf(suite: string, name: string, failure: Error | undefined, since: number, output: string): TestResult {
  return { suite, name, failure, durationMs: performance.now() - since, output };
}
