import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

const QEMU = 'qemu-system-x86_64';

/** Why Debian's QEMU cannot be asked here, or false. */
export const noQemu: string | false = spawnSync(QEMU, ['--version']).status === 0 ? false : `${QEMU} is not installed`;

/** What QEMU's fw_cfg device holds when it is started with `args`: read through the ports, over its qtest server. */
export async function qemuFwCfg(
  args: readonly string[],
  wanted: readonly { readonly selector: number; readonly length: number }[],
): Promise<Map<number, Uint8Array>> {
  const qemu = spawn(QEMU, ['-accel', 'tcg', '-S', '-display', 'none', '-nodefaults', '-qtest', 'stdio', ...args]);
  const complaints: string[] = [];
  qemu.stderr.on('data', (chunk: Buffer) => complaints.push(chunk.toString()));
  const timeout = setTimeout(() => qemu.kill('SIGKILL'), 60_000);
  try {
    const commands = wanted.flatMap(({ selector, length }) => [
      `outw 0x510 ${selector}`,
      ...Array.from({ length }, () => 'inb 0x511'),
    ]);
    const values = (await ask(qemu, commands)).map(answer => Number(answer.split(' ')[1]));
    const found = new Map<number, Uint8Array>();
    let start = 1;
    for (const { selector, length } of wanted) {
      found.set(selector, Uint8Array.from(values.slice(start, start + length)));
      start += length + 1;
    }
    return found;
  } catch (cause) {
    throw new Error(`QEMU did not answer: ${complaints.join('')}`, { cause });
  } finally {
    clearTimeout(timeout);
    qemu.kill('SIGKILL');
  }
}

async function ask(qemu: ChildProcessWithoutNullStreams, commands: readonly string[]): Promise<string[]> {
  const lines = createInterface({ input: qemu.stdout });
  const answers: string[] = [];
  const done = new Promise<void>((resolve, reject) => {
    lines.on('line', line => {
      if (!line.startsWith('OK')) return;
      answers.push(line);
      if (answers.length === commands.length) resolve();
    });
    void once(qemu, 'exit').then(() => reject(new Error('it ended')));
  });
  qemu.stdin.write(`${commands.join('\n')}\n`);
  await done;
  lines.close();
  return answers;
}
