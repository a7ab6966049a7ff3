import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { initramfs } from '../../core/firmware/guest-cache/initramfs.ts';
import { Lines } from '../core/control/program.ts';
import { guestOrSkip } from './guest-or-skip.ts';

t.setTimeout(900_000);

const PROGRAM = fileURLToPath(new URL('../../southbridge.js', import.meta.url));
const DISK_SIZE = 24 * 2 ** 20;
const LIBRARIES = {
  'lib/i386-linux-gnu': ['libc.so.6', 'libext2fs.so.2', 'libe2p.so.2', 'libcom_err.so.2'],
  'usr/lib/i386-linux-gnu': ['libblkid.so.1', 'libuuid.so.1'],
} as const;

type Message = Readonly<Record<string, unknown>>;

/** The program with a guest on its serial port, and a client of its QMP. */
class Guest {
  readonly process: ChildProcess;
  readonly events: string[] = [];
  output = '';
  errors = '';
  readonly #qmp: Lines;
  readonly #replies: Message[] = [];
  #changed: () => void = () => {};

  constructor(child: ChildProcess, qmp: Socket) {
    this.process = child;
    this.#qmp = new Lines(qmp);
    child.stdout?.on('data', (chunk: Buffer) => {
      this.output += chunk.toString('latin1').replaceAll('\r', '');
      this.#changed();
    });
    child.stderr?.on('data', (chunk: Buffer) => {
      this.errors += chunk.toString();
    });
    child.on('exit', () => this.#changed());
    void this.#listen();
  }

  async #listen(): Promise<void> {
    for (;;) {
      const message: Message = JSON.parse(await this.#qmp.next());
      if ('QMP' in message) continue;
      if (typeof message['event'] === 'string') this.events.push(message['event']);
      else this.#replies.push(message);
      this.#changed();
    }
  }

  /** Waits for `found` to find something; undefined where the process ended first. */
  async #until<T>(found: () => T | undefined): Promise<T | undefined> {
    for (;;) {
      const result = found();
      if (result !== undefined || this.process.exitCode !== null) return result;
      await new Promise<void>(resolve => {
        this.#changed = resolve;
      });
    }
  }

  says(pattern: RegExp): Promise<RegExpExecArray | undefined> {
    return this.#until(() => pattern.exec(this.output) ?? undefined);
  }

  event(name: string): Promise<true | undefined> {
    return this.#until(() => (this.events.includes(name) ? true : undefined));
  }

  async execute(name: string, args: object = {}): Promise<Message | undefined> {
    this.#qmp.send(`${JSON.stringify({ execute: name, arguments: args })}\n`);
    return this.#until(() => this.#replies.shift());
  }
}

async function start(folder: string, args: readonly string[]): Promise<Guest> {
  const path = join(folder, 'qmp');
  const server = createServer().listen(path);
  await once(server, 'listening');
  const child = spawn(
    process.execPath,
    [
      PROGRAM,
      ...['-accel', 'wasm', '-m', '192', '-nodefaults', '-display', 'none', '-no-reboot', '-serial', 'stdio'],
      ...['-chardev', `socket,path=${path},id=q`, '-mon', 'chardev=q,mode=control', ...args],
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  const [socket] = (await once(server, 'connection')) as [Socket];
  server.close();
  const guest = new Guest(child, socket);
  await guest.execute('qmp_capabilities');
  return guest;
}

/** mke2fs and e2fsck with the libraries that they need, where Linux looks for them. */
async function fileSystemTools(t: Test): Promise<Record<string, Uint8Array> | undefined> {
  const tools = await guestOrSkip(t, 'e2fsprogs-i386');
  if (tools === undefined) return undefined;
  const files: Record<string, Uint8Array> = {
    'sbin/mke2fs': readFileSync(tools.mke2fs),
    'sbin/e2fsck': readFileSync(tools.e2fsck),
    'lib/ld-linux.so.2': readFileSync(join(tools.directory, 'lib/i386-linux-gnu/ld-linux.so.2')),
  };
  for (const [folder, names] of Object.entries(LIBRARIES))
    for (const name of names) files[`lib/${name}`] = readFileSync(join(tools.directory, folder, name));
  return files;
}

/** What an administrator does with a new disk: partition it, make a file system, fill it, check it. */
const USE_DISKS = `
  appears() { for i in $(seq 120); do [ -b /dev/$1 ] && return; sleep 1; done; echo "no $1"; }
  driver() {
    address=$(busybox readlink -f /sys/block/$1 | sed 's#.*/\\(0000:[0-9a-f:.]*\\)/\\(ata\\|virtio\\).*#\\1#')
    basename $(busybox readlink /sys/bus/pci/devices/$address/driver)
  }
  for disk in sda sdb vda; do
    appears $disk
    echo "$disk by $(driver $disk)"
    printf 'n\\np\\n1\\n\\n\\nw\\n' | fdisk /dev/$disk > /dev/null
    appears \${disk}1
    /sbin/mke2fs -q -F -t ext4 /dev/\${disk}1
    mount -t ext4 /dev/\${disk}1 /mnt
    dd if=/dev/urandom of=/mnt/data bs=64k count=16 2> /dev/null
    md5sum < /mnt/data > /tmp/$disk
    umount /mnt
    echo 3 > /proc/sys/vm/drop_caches
    mount -t ext4 /dev/\${disk}1 /mnt
    md5sum < /mnt/data | cmp - /tmp/$disk && echo "$disk reads what was written"
    umount /mnt
    /sbin/e2fsck -fn /dev/\${disk}1 > /dev/null 2>&1 && echo "$disk is clean"
  done
  echo "unplug now"
  for i in $(seq 120); do [ -b /dev/vda ] || break; sleep 1; done
  [ -b /dev/vda ] || echo "vda is gone"
  appears vda1
  mount -t ext4 /dev/vda1 /mnt
  md5sum < /mnt/data | cmp - /tmp/vda && echo "vda is back"
  umount /mnt
  dd if=/dev/vdb of=/dev/null bs=512 skip=4096 count=8 2>&1 | grep -o 'Input/output error'
  dd if=/dev/vdb of=/dev/null bs=512 skip=8192 count=8 2> /dev/null && echo "the rest of vdb can be read"
  printf 'kept' | dd of=/dev/vdb bs=512 seek=16384 conv=fsync 2> /dev/null && echo "vdb took it in the end"`;

t.test('Debian partitions, formats and fills disks; unplugs one; sees errors', { timeout: 800_000 }, async t => {
  const kernel = await guestOrSkip(t, 'linux-i386');
  for (const item of ['busybox-i386', 'seabios'] as const) if ((await guestOrSkip(t, item)) === undefined) return;
  const files = await fileSystemTools(t);
  if (kernel === undefined || files === undefined) return;
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-disks-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const image = (name: string): string => join(folder, `${name}.img`);
  for (const name of ['ide', 'ahci', 'virtio', 'bad']) {
    writeFileSync(image(name), '');
    truncateSync(image(name), DISK_SIZE);
  }
  const initrd = join(folder, 'initrd');
  const modules = ['ata_piix', 'ahci', 'sd_mod', 'virtio_pci', 'virtio_blk', 'crc32c_generic', 'ext4'];
  writeFileSync(initrd, await initramfs({ modules, files, init: USE_DISKS }));
  const file = (name: string): string => `driver=raw,node-name=${name},file.driver=file,file.filename=${image(name)}`;
  const inject = [
    ...['event=none', 'iotype=read', 'errno=5', 'sector=4096'].map(rule => `inject-error.0.${rule}`),
    ...['event=none', 'iotype=write', 'errno=28', 'sector=16384', 'once=on'].map(rule => `inject-error.1.${rule}`),
  ].join(',');
  const guest = await start(folder, [
    ...['-kernel', kernel.vmlinuz, '-initrd', initrd, '-append', 'console=ttyS0 quiet panic=-1 nokaslr'],
    ...['-blockdev', file('ide'), '-device', 'ide-hd,drive=ide,bus=ide.0'],
    ...['-blockdev', file('ahci'), '-device', 'ahci,id=sata', '-device', 'ide-hd,drive=ahci,bus=sata.0'],
    ...['-blockdev', file('virtio'), '-device', 'virtio-blk-pci,id=v,drive=virtio,addr=8'],
    ...['-blockdev', `driver=blkdebug,node-name=bad,image.driver=file,image.filename=${image('bad')},${inject}`],
    ...['-device', 'virtio-blk-pci,drive=bad,addr=9,werror=stop'],
  ]);
  t.teardown(() => guest.process.kill('SIGKILL'));

  await guest.says(/unplug now/);
  await guest.execute('device_del', { id: 'v' });
  await guest.event('DEVICE_DELETED');
  await guest.says(/vda is gone/);
  await guest.execute('device_add', { driver: 'virtio-blk-pci', id: 'v2', drive: 'virtio', addr: '8' });
  // The failed read was the guest's to hear of; for want of space the machine waits.
  await guest.event('STOP');
  t.match(await guest.execute('query-status'), { return: { status: 'io-error' } });
  await guest.execute('cont');
  if (guest.process.exitCode === null) await once(guest.process, 'exit');

  // Linux names SATA and IDE disks in the order in which it finds them, which is chance.
  for (const driver of ['ata_piix', 'ahci', 'virtio-pci']) {
    const disk = new RegExp(`(\\S+) by ${driver}\n`).exec(guest.output)?.[1];
    t.ok(disk, `${driver} has a disk`);
    t.match(guest.output, `${disk} reads what was written`);
    t.match(guest.output, `${disk} is clean`);
  }
  t.match(guest.output, 'vda is back');
  t.match(guest.output, 'Input/output error');
  t.match(guest.output, 'the rest of vdb can be read');
  t.match(guest.output, 'vdb took it in the end');
  t.match(guest.output, 'Power down');
  t.equal(guest.process.exitCode, 0, guest.errors);
  for (const name of ['ide', 'ahci', 'virtio']) {
    const bytes = readFileSync(image(name));
    const partition = bytes.readUInt32LE(0x1be + 8) * 512;
    t.equal(bytes.readUInt16LE(partition + 1024 + 0x38), 0xef53, `${name}: ext4 where the partition table says`);
  }
  t.equal(readFileSync(image('bad')).toString('latin1', 16384 * 512, 16384 * 512 + 4), 'kept');
});
