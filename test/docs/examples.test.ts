import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { Accelerator } from '../../core/accel/accelerator.ts';
import { kvm } from '../../core/accel/kvm/accelerator.ts';
import { wasm } from '../../core/accel/wasm/accelerator.ts';

/** Why an accelerator does not work here, or false. */
function missing(accelerator: Accelerator): string | false {
  try {
    accelerator.probe();
    return false;
  } catch (error) {
    return String(error);
  }
}

const demo = fileURLToPath(new URL('../../docs/examples/demo.js', import.meta.url));

for (const accelerator of [kvm, wasm]) {
  const bits = accelerator.caps.longMode ? 64 : 32;
  t.test(`npm start on ${accelerator.name}`, { skip: missing(accelerator), timeout: 90_000 }, async t => {
    const child = spawn(process.execPath, [demo, accelerator.name], { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
    const status = await new Promise(resolve => child.on('close', resolve));
    t.equal(status, 0);
    t.match(output, new RegExp(`${bits}-bit[\\s\\S]*accelerator=${accelerator.name}`));
    t.match(output, /20 interrupts of the 8254/);
    t.match(
      output,
      /1234:11e8.*educational device[\s\S]*10! = 3628800[\s\S]*back, equal; 4 interrupts[\s\S]*All is well/,
    );
  });
}
