import t from 'tap';
import { leftBehind } from './starts.ts';

t.setTimeout(1_800_000);
t.test('400 starts in a row leave nothing behind', async t => {
  t.same(await leftBehind(400), []);
});
