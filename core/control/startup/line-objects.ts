import type { Program } from '../program.ts';
import { at } from './at.ts';
import { isLate } from './objects.ts';

/** Makes the objects of the command line: those that others refer to, or those that refer to others. */
export async function addObjects(program: Program, late: boolean): Promise<void> {
  const objects = await program.objects();
  for (const { value, keyval, location } of program.line.object('object')) {
    if (isLate(value) !== late) continue;
    await at(location, () => objects.addFrom(value, keyval));
  }
}
