import t from 'tap';
import { leftBehind } from './starts.ts';

t.setTimeout(300_000);
t.test('20 starts in a row leave nothing behind', async t => {
  t.same(await leftBehind(20), []);
});
