import { spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import t from 'tap';
import { buildGuest, type GuestName } from './build.ts';

t.setTimeout(600_000);

// Our guests are tests of machines, so they are tested themselves: on Debian's QEMU, which is right where they differ.
const QEMU = 'qemu-system-x86_64';
const has = (program: string): boolean => spawnSync(program, ['--version']).status === 0;
const missing = [QEMU, 'gcc'].filter(program => !has(program));
const skip = missing.length === 0 ? false : `${missing.join(' and ')} not installed`;

async function boot(name: GuestName, args: readonly string[]): Promise<{ output: string; status: number | null }> {
  const guest = await buildGuest(name);
  const image = name === 'real16' ? ['-drive', `format=raw,file=${guest}`] : ['-kernel', guest];
  const machine = ['-m', '64', '-nodefaults', '-display', 'none', '-no-reboot', '-serial', 'stdio'];
  const devices = ['-device', 'edu', '-device', 'isa-debug-exit,iobase=0xf4'];
  const qemu = spawn(QEMU, [...machine, ...devices, ...image, ...args], { timeout: 120_000, killSignal: 'SIGKILL' });
  let output = '';
  qemu.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  return new Promise(resolve => qemu.on('close', status => resolve({ output, status })));
}

const accelerators = existsSync('/dev/kvm') ? ['tcg', 'kvm'] : ['tcg'];

t.test('guests do on QEMU what they are for', { skip }, async t => {
  for (const accel of accelerators) {
    for (const machine of ['pc', 'q35']) {
      // 32-bit guests take interrupts with iretd, which not every KVM host can run: see bench32 for 32 bits without.
      const bits = accel === 'kvm' ? (['demo64'] as const) : (['demo32', 'demo64'] as const);
      for (const name of bits) {
        const { output, status } = await boot(name, ['-accel', accel, '-M', machine]);
        t.match(output, /10! = 3628800[\s\S]*4 interrupts in all[\s\S]*All is well/, `${name} on ${machine}, ${accel}`);
        t.equal(status, 0, 'and leaves through ACPI');
      }
    }
    for (const name of accel === 'kvm' ? (['smp64'] as const) : (['smp32', 'smp64'] as const)) {
      const smp = await boot(name, ['-accel', accel, '-smp', '2']);
      t.match(smp.output, /smp: 2 CPUs[\s\S]*10 inter-processor interrupts taken/, `${name}, ${accel}`);
    }
    for (const name of ['bench32', 'bench64', 'bench64-ring3'] as const) {
      const { output, status } = await boot(name, ['-accel', accel, '-append', 'pio=100 mmio=100']);
      t.match(output, /pio 100 cycles-each \d+[\s\S]*mmio 100 cycles-each \d+/, `${name}, ${accel}`);
      t.equal(status, 0);
    }
  }
  const real = await boot('real16', ['-accel', 'tcg']);
  t.match(real.output, /real mode: 10 timer interrupts/);
  t.equal(real.status, 33, 'isa-debug-exit makes 0x10 into 33');
});
