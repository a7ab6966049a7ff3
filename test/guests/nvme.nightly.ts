import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { blockGraph } from '../../core/block/block.ts';
import { Drives } from '../../core/block/drives.ts';
import { nvme } from '../../devices/nvme/nvme.ts';
import { nvmeNs } from '../../devices/nvme/nvme-ns.ts';
import { bootLinux } from './linux-machine.ts';

t.setTimeout(600_000);

const DISK_SIZE = 8 * 2 ** 20;

const USE_DISKS = `
  dd if=/dev/urandom of=/tmp/data bs=64k count=16 2> /dev/null
  for disk in nvme0n1 nvme0n2; do
    for i in $(seq 60); do [ -b /dev/$disk ] && break; sleep 1; done
    echo "$disk has $(cat /sys/block/$disk/size) sectors of $(cat /sys/block/$disk/queue/logical_block_size)"
    dd if=/tmp/data of=/dev/$disk bs=512k conv=fsync 2> /dev/null
    echo 3 > /proc/sys/vm/drop_caches
    dd if=/dev/$disk bs=64k count=16 2> /dev/null | md5sum > /tmp/read
    md5sum < /tmp/data | cmp - /tmp/read && echo "$disk reads what was written"
  done
  echo "model $(cat /sys/class/nvme/nvme0/model)"
  echo "serial $(cat /sys/class/nvme/nvme0/serial)"
  grep -c nvme0q /proc/interrupts
  printf 'the end' | dd of=/dev/nvme0n1 bs=4096 seek=2047 conv=fsync,notrunc 2> /dev/null
  dmesg | grep -i 'nvme.*\\(timeout\\|error\\|fail\\)'`;

t.test("Debian's nvme driver reads and writes two namespaces", { timeout: 600_000 }, async t => {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-nvme-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const drives = new Drives(blockGraph());
  for (const id of ['d0', 'd1']) {
    writeFileSync(join(folder, id), Buffer.alloc(DISK_SIZE));
    await drives.add(
      [
        ['id', id],
        ['file', join(folder, id)],
        ['format', 'raw'],
        ['if', 'none'],
      ],
      {
        ...{ interface: 'none', snapshot: false, isDefault: false },
      },
    );
  }
  const linux = await bootLinux(t, {
    init: USE_DISKS,
    modules: ['nvme'],
    backend: (kind, id) => (kind === 'drive' ? drives.graph.backend(id) : undefined),
    plug: machine => {
      const pci = machine.findBus('pci.0');
      const controller = pci?.plug(nvme, {}, { serial: 'disk-42', drive: 'd0' });
      const block = { logical_block_size: '4096', physical_block_size: '4096' };
      controller?.buses[0]?.plug(nvmeNs, {}, { drive: 'd1', ...block });
    },
  });
  if (linux === undefined) return;
  await linux.down;
  const text = linux.terminal.output.replaceAll('\r', '');
  t.comment(text);
  t.match(text, 'nvme0n1 has 16384 sectors of 512');
  t.match(text, 'nvme0n2 has 16384 sectors of 4096');
  for (const disk of ['nvme0n1', 'nvme0n2']) t.match(text, `${disk} reads what was written`);
  t.match(text, /model QEMU NVMe Ctrl/);
  t.match(text, /serial disk-42/);
  t.match(text, /\n2\n/, 'a vector for the admin queue and one for the CPU');
  t.notMatch(text, /timeout|error/i);
  t.equal(readFileSync(join(folder, 'd0')).toString('latin1', 2047 * 4096, 2047 * 4096 + 7), 'the end');
});
