/** `npm start`: the lab PC on the best accelerator that this host has, with a guest that tries out the edu card. */
import { readFileSync } from 'node:fs';
import type { Accelerator } from '../../core/accel/accelerator.ts';
import { kvm } from '../../core/accel/kvm/accelerator.ts';
import { wasm } from '../../core/accel/wasm/accelerator.ts';
import { StdioChardev } from '../../core/char/stdio.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { bootDirectly } from '../../core/loader/boot.ts';
import { E820 } from '../../core/loader/image.ts';
import { loadKernel } from '../../core/loader/kernel.ts';
import { Machine } from '../../core/machine/machine.ts';
import { DEFAULT_CONFIG } from '../../core/machine/machine-config.ts';
import { buildGuest } from '../../test/guests/build.ts';
import { labPc } from './lab-pc.ts';

const PATIENCE_MS = 60_000;

function say(line: string): void {
  process.stderr.write(`southbridge: ${line}\n`);
}

/** The first that works here; says why the others do not. */
function best(candidates: readonly Accelerator[]): Accelerator {
  for (const candidate of candidates) {
    try {
      candidate.probe();
      return candidate;
    } catch (error) {
      if (!(error instanceof SouthbridgeError)) throw error;
      say(`not ${candidate.name}: ${error.message}${error.hint === undefined ? '' : ` (${error.hint})`}`);
    }
  }
  throw new SouthbridgeError('ERR_NO_ACCELERATOR', 'no accelerator works on this host');
}

async function main(): Promise<number> {
  const wanted = process.argv[2];
  const accelerator = best([kvm, wasm].filter(({ name }) => wanted === undefined || name === wanted));
  const guest = await buildGuest(accelerator.caps.longMode ? 'demo64' : 'demo32');
  const ramSize = labPc.defaultRam;
  say(`a PC with ${ramSize / 2 ** 20} MiB, a serial port and the edu card, on ${accelerator.summary}`);

  const console = new StdioChardev('console', true);
  await console.open();
  const config = { ...DEFAULT_CONFIG, ramSize, options: { console: 'console' } };
  const machine = new Machine({ type: labPc, config, accelerator, backends: { find: () => console } }).build();
  try {
    const memory = [
      { address: 0, size: 0xa_0000, type: E820.RAM },
      { address: 0x10_0000, size: ramSize - 0x10_0000, type: E820.RAM },
    ];
    bootDirectly(machine, loadKernel(readFileSync(guest), { memory, commandLine: `accelerator=${accelerator.name}` }));
    machine.resetDevices();
    machine.start();
    return await new Promise<number>((resolve, reject) => {
      machine.power.onFinished(resolve);
      const late = (): void =>
        reject(new SouthbridgeError('ERR_DEMO', `the guest has not finished: ${machine.power.report}`));
      setTimeout(late, PATIENCE_MS).unref();
    });
  } finally {
    machine.dispose();
    console.dispose();
  }
}

try {
  // `npm start -- -machine pc ...` is the program itself.
  if (process.argv[2]?.startsWith('-')) await import('../../machines/program.ts');
  else process.exitCode = await main();
} catch (error) {
  if (!(error instanceof SouthbridgeError)) throw error;
  say(`${error.message} (${error.code})${error.hint === undefined ? '' : `\n  ${error.hint}`}`);
  process.exitCode = 1;
}
