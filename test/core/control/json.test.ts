import t from 'tap';
import { JsonStream, parseJson } from '../../../core/control/json/stream.ts';
import { type Json, JsonFloat } from '../../../core/control/json/value.ts';
import { writeJson } from '../../../core/control/json/writer.ts';

/** Feeds `text` in pieces of `size` bytes and returns values and error messages in order. */
function read(text: string | Buffer, size = 1 << 20): unknown[] {
  const seen: unknown[] = [];
  const stream = new JsonStream({ value: value => seen.push(value), error: error => seen.push(error.message) });
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += size) stream.feed(Buffer.from(bytes.subarray(at, at + size)));
  return seen;
}

const plain = (value: Json): unknown => JSON.parse(writeJson(value));

t.test('values survive any cut of the stream', async t => {
  const text = `{"a": [1, -2, 0, 2.5, 1e3, true, null], 'b': 'it\\'s "x" \\u00e9 \\ud83d\\ude00 é', "c": {}} [] "s" {"d":1}`;
  for (let size = 1; size < 40; size++) {
    const [object, array, ...rest] = read(text, size);
    t.strictSame(plain(object as Json), {
      a: [1, -2, 0, 2.5, 1000, true, null],
      b: 'it\'s "x" é 😀 é',
      c: {},
    });
    t.strictSame(array, []);
    t.equal(rest.length, 2);
  }
});

t.test('64-bit integers are exact, and 1.0 is no integer', async t => {
  t.equal(parseJson('18446744073709551615'), 18446744073709551615n);
  t.equal(parseJson('-9223372036854775808'), -9223372036854775808n);
  t.equal(parseJson('9007199254740993'), 9007199254740993n);
  t.equal(parseJson('-0'), 0);
  t.ok(parseJson('1.0') instanceof JsonFloat);
  t.ok(parseJson('18446744073709551616') instanceof JsonFloat);
  t.equal(
    writeJson(parseJson('[18446744073709551615, 2.5, 1.0, "é\\n\\u007f"]')),
    '[18446744073709551615, 2.5, 1.0, "\\u00E9\\n\\u007F"]',
  );
});

t.test("errors are QEMU's", async t => {
  const cases: [string, string][] = [
    ['{"a" 1}', 'missing : in object pair'],
    ['{1: 2}', 'key is not a string in object'],
    ['{"a": 1, "a": 2}', 'duplicate key'],
    ['{"a": 1 "b": 2}', 'expected separator in dict'],
    ['[1 2]', 'expected separator in list'],
    ['[1,]', 'expecting value'],
    ['{"a": }', 'expecting value'],
    ['nope ', "invalid keyword 'nope'"],
    ['"\\x"', 'invalid escape sequence in string'],
    ['"\\ud800"', '\\ud800 is not a valid Unicode character'],
    ['01', "stray '01'"],
    ['$', "stray '$'"],
    ['}', 'expecting value'],
  ];
  for (const [text, message] of cases) t.strictSame(read(text), [`JSON parse error, ${message}`], text);
  t.strictSame(read(Buffer.from([0x22, 0xc1, 0x80, 0x22])), ['JSON parse error, invalid UTF-8 sequence in string']);
});

t.test('after an error the next value is read', async t => {
  t.strictSame(read('{"a": x$ garbage {"b": 1}').length, 2);
  t.strictSame(read('\xff {}\n', 1).length, 2);
  t.strictSame(plain(read('@@@@\n{"b": 1}').at(-1) as Json), { b: 1 });
});

t.test('limits hold against a hostile stream', async t => {
  t.strictSame(read('['.repeat(1025))[0], 'JSON nesting depth limit exceeded');
  t.equal(read(`${'['.repeat(1024)}${']'.repeat(1024)}`).length, 1);
  const stream = new JsonStream({ value: () => t.fail('no value'), error: error => errors.push(error.message) });
  const errors: string[] = [];
  const megabyte = Buffer.alloc(1 << 20, 'a');
  stream.feed(Buffer.from('"'));
  for (let count = 0; count < 100; count++) stream.feed(megabyte);
  t.equal(errors[0], 'JSON token size limit exceeded');
});
