import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { noSlirp } from '../core/host/libslirp.ts';
import { code, dword } from '../machine-code.ts';
import { guestOrSkip } from './guest-or-skip.ts';
import { runToEnd } from './run-to-end.ts';

t.setTimeout(400_000);

// The whole way: SeaBIOS runs iPXE from the card's ROM; DHCP and TFTP by libslirp lead it to a script, the script to a
// kernel on a web server of the host and to a module for it on the TFTP server.

/** More than a few segments of TCP, so that the kernel's end comes late. */
const KERNEL_SIZE = 256 * 1024;
/** Three blocks of TFTP: iPXE's have 1432 bytes at most. */
const MODULE = Array.from({ length: 160 }, (_, line) => `module line ${line} by TFTP\r\n`).join('');

/** A kernel for Multiboot 0.6.96 that writes to COM1 what its last bytes are, and its first module; then it exits with 33. */
function kernel(lastWords: string): Buffer {
  const LOAD = 0x10_0000;
  const MAGIC = 0x1bad_b002;
  const AOUT_KLUDGE = 1 << 16;
  const put = code`
    66 ba fd 03          ; mov dx, COM1 + LSR
    ec a8 20 74 fb       ; until it has room for a byte
    66 ba f8 03 ac ee    ; mov dx, COM1; lodsb; out dx, al
    e2 ef c3             ; loop; ret`;
  const entry = LOAD + 32 + put.length;
  const call = (at: number): number[] => [0xe8, ...dword(LOAD + 32 - (at + 5))];
  const first = code`
    bc ${dword(0x9_0000)}                                                       ; mov esp, ...
    be ${dword(LOAD + KERNEL_SIZE - lastWords.length)} b9 ${dword(lastWords.length)}`;
  const second = code`
    8b 43 18 8b 30       ; mov eax, [ebx + mods_addr]; mov esi, [eax + mod_start]
    8b 48 04 29 f1       ; mov ecx, [eax + mod_end]; sub ecx, esi`;
  const toSecond = entry + first.length;
  const program = [
    ...[...put, ...first, ...call(toSecond)],
    ...[...second, ...call(toSecond + 5 + second.length)],
    ...code`b0 10 e6 f4 f4                                                      ; isa-debug-exit; hlt`,
  ];
  const end = LOAD + KERNEL_SIZE;
  const header = [MAGIC, AOUT_KLUDGE, -(MAGIC + AOUT_KLUDGE), LOAD, LOAD, end, end, entry].flatMap(dword);
  const image = Buffer.alloc(KERNEL_SIZE, 0x5a);
  image.set([...header, ...program]);
  image.write(lastWords, KERNEL_SIZE - lastWords.length, 'latin1');
  return image;
}

/** The frames of a capture that start something, in order, as tshark sees them; or undefined where it is not installed. */
function steps(capture: string): string[] | undefined {
  const fields = ['dhcp.option.dhcp', 'tftp.source_file', 'http.request.uri'].flatMap(field => ['-e', field]);
  const filter = 'dhcp or tftp.opcode == 1 or http.request';
  const { stdout, error } = spawnSync(
    'tshark',
    ['-n', '-r', capture, '-Y', filter, '-T', 'fields', '-E', 'separator= ', ...fields],
    { encoding: 'utf8' },
  );
  return error === undefined ? stdout.split('\n').map(line => line.trim()) : undefined;
}

async function webServer(t: Test, path: string, content: Buffer): Promise<number> {
  const server = createServer((request, response) => {
    if (request.url !== path) response.statusCode = 404;
    response.end(request.url === path ? content : '');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('a TCP port was expected');
  return address.port;
}

for (const [card, driver] of [
  ['e1000', '82540em'],
  ['virtio-net-pci', 'virtio-net'],
] as const) {
  t.test(`iPXE boots a kernel from the network through ${card}`, { skip: noSlirp, timeout: 180_000 }, async t => {
    for (const item of ['seabios', 'ipxe'] as const) if ((await guestOrSkip(t, item)) === undefined) return;
    const directory = mkdtempSync(join(tmpdir(), 'southbridge-pxe-'));
    t.teardown(() => rmSync(directory, { recursive: true, force: true }));
    const lastWords = `the kernel has come by HTTP through ${card}\r\n`;
    const port = await webServer(t, '/kernel', kernel(lastWords));
    writeFileSync(join(directory, 'module.txt'), MODULE);
    writeFileSync(
      join(directory, 'boot.ipxe'),
      `#!ipxe\nkernel http://10.0.2.2:${port}/kernel\nmodule tftp://10.0.2.2/module.txt\nboot\n`,
    );
    const capture = join(directory, 'wire.pcap');
    const { output, errors, status } = await runToEnd([
      ...['-M', 'pc', '-m', '64', '-nographic', '-vga', 'none', '-monitor', 'none'],
      ...['-serial', 'stdio', '-no-reboot', '-boot', 'n', '-device', 'isa-debug-exit,iobase=0xf4'],
      ...['-netdev', `user,id=n,tftp=${directory},bootfile=boot.ipxe`, '-device', `${card},netdev=n,bootindex=0`],
      ...['-object', `filter-dump,id=d,netdev=n,file=${capture}`],
    ]);
    if (status !== 33) t.comment(`${errors}\n${output.slice(-2000)}`);
    t.equal(status, 33, 'the kernel ends the machine');
    t.match(output, new RegExp(`using ${driver} on`), "iPXE's driver");
    t.match(output, /net0: 10\.0\.2\.15\/255\.255\.255\.0 gw 10\.0\.2\.2/, 'DHCP');
    t.ok(output.includes(lastWords), "the kernel's last bytes");
    t.ok(output.includes(MODULE), 'the whole module');

    const seen = steps(capture);
    if (seen === undefined) {
      t.pass('the capture', { skip: 'this host has no tshark' });
      return;
    }
    const [DISCOVER, OFFER, REQUEST, ACK] = ['1', '2', '3', '5'] as const;
    const places = [DISCOVER, OFFER, REQUEST, ACK, 'boot.ipxe', '/kernel', 'module.txt'].map(step =>
      seen.indexOf(step),
    );
    t.ok(!places.includes(-1), seen.join('; '));
    t.same(
      places,
      [...places].sort((a, b) => a - b),
      seen.join('; '),
    );
  });
}
