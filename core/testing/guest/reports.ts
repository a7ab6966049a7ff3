import type { TestResult } from './suite.ts';

/** One result as TAP 14 has it. */
export function tapLine({ suite, name, failure, durationMs, output }: TestResult, number: number): string {
  const line = `${failure === undefined ? 'ok' : 'not ok'} ${number} - ${suite}: ${name} # time=${durationMs.toFixed(0)}ms\n`;
  if (failure === undefined) return line;
  const block = (text: string): string =>
    text
      .split('\n')
      .map(each => `    ${each.trimEnd()}\n`)
      .join('');
  return `${line}  ---\n  message: |\n${block(failure.message)}  console: |\n${block(output)}  ...\n`;
}

/** The results as a JUnit file, as CI systems read it. */
export function junit(results: readonly TestResult[]): string {
  const parts = [...new Set(results.map(result => result.suite))].map(name => {
    const tests = results.filter(result => result.suite === name);
    const failures = tests.filter(test => test.failure !== undefined).length;
    const cases = tests.map(test => testCase(test)).join('');
    const time = seconds(tests.reduce((sum, test) => sum + test.durationMs, 0));
    return `  <testsuite name="${escaped(name)}" tests="${tests.length}" failures="${failures}" time="${time}">\n${cases}  </testsuite>\n`;
  });
  return `<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n${parts.join('')}</testsuites>\n`;
}

function testCase({ suite, name, failure, durationMs, output }: TestResult): string {
  const head = `    <testcase classname="${escaped(suite)}" name="${escaped(name)}" time="${seconds(durationMs)}"`;
  const out = `      <system-out>${escaped(output)}</system-out>\n`;
  if (failure === undefined) return `${head}>\n${out}    </testcase>\n`;
  const [first = ''] = failure.message.split('\n');
  return `${head}>\n      <failure message="${escaped(first)}">${escaped(failure.stack ?? failure.message)}</failure>\n${out}    </testcase>\n`;
}

const seconds = (ms: number): string => (ms / 1000).toFixed(3);

/** Text in XML 1.0, which has no place for most control characters. */
function escaped(text: string): string {
  return [...text]
    .map(character => {
      const code = character.charCodeAt(0);
      if (code < 0x20 && character !== '\n' && character !== '\t') return '';
      return code === 0x7f ? '' : (ENTITIES.get(character) ?? character);
    })
    .join('');
}

const ENTITIES: ReadonlyMap<string, string> = new Map([
  ['&', '&amp;'],
  ['<', '&lt;'],
  ['>', '&gt;'],
  ['"', '&quot;'],
]);
