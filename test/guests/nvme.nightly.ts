import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { blockGraph } from '../../core/block/block.ts';
import { Drives } from '../../core/block/drives.ts';
import { nvme } from '../../devices/nvme/nvme.ts';
import { nvmeNs } from '../../devices/nvme/nvme-ns.ts';
import { nvmeSubsys } from '../../devices/nvme/subsystem.ts';
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

async function disks(t: Test, ids: readonly string[]): Promise<{ drives: Drives; image(id: string): Buffer }> {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-nvme-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const drives = new Drives(blockGraph());
  for (const id of ids) {
    writeFileSync(join(folder, id), Buffer.alloc(DISK_SIZE));
    const options = { id, file: join(folder, id), format: 'raw', if: 'none' };
    await drives.add(Object.entries(options), { interface: 'none', snapshot: false, isDefault: false });
  }
  return { drives, image: id => readFileSync(join(folder, id)) };
}

t.test("Debian's nvme driver reads and writes two namespaces", { timeout: 600_000 }, async t => {
  const { drives, image } = await disks(t, ['d0', 'd1']);
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
  t.equal(image('d0').toString('latin1', 2047 * 4096, 2047 * 4096 + 7), 'the end');
});

/** The kernel's multipath block device has both controllers behind it, and goes on with one. */
const USE_PATHS = `
  paths() { ls /sys/class/nvme-subsystem/*/ | grep -c '^nvme[0-9]*$'; }
  wait_for() { for i in $(seq 60); do [ "$(paths)" = $1 ] && break; sleep 1; done; sleep 2; echo "paths: $(paths)"; }
  wait_for 2
  for c in /sys/class/nvme/*; do echo "controller $(cat $c/cntlid) of $(cat $c/subsysnqn)"; done
  subsystem=$(ls -d /sys/class/nvme-subsystem/*)
  disk=/dev/$(basename $subsystem | sed s/-subsys//)n1
  [ -b $disk ] && echo "a block device"
  echo round-robin > $subsystem/iopolicy
  dd if=/dev/urandom of=/tmp/data bs=64k count=16 2> /dev/null
  same() { echo 3 > /proc/sys/vm/drop_caches; dd if=$disk bs=64k count=16 2> /dev/null | cmp - /tmp/data && echo "$1"; }
  dd if=/tmp/data of=$disk bs=64k conv=fsync,notrunc 2> /dev/null
  same 'two paths read what was written'
  for stat in /sys/block/*c*n1/stat; do set -- $(cat $stat); [ $5 -gt 100 ] && echo "a path has carried writes"; done
  set -- /sys/class/nvme/*
  function=$(basename $(readlink -f $1/device))
  echo $function > /sys/bus/pci/drivers/nvme/unbind
  wait_for 1
  same 'one path still reads it'
  printf 'the end' | dd of=$disk bs=4096 seek=2047 conv=fsync,notrunc 2> /dev/null
  echo $function > /sys/bus/pci/drivers/nvme/bind
  wait_for 2
  same 'the other is back'
  dmesg | grep -i 'nvme.*\\(timeout\\|error\\|fail\\|duplicate\\)'`;

t.test("Debian's nvme driver uses two controllers of one subsystem", { timeout: 600_000 }, async t => {
  const { drives, image } = await disks(t, ['d0']);
  const linux = await bootLinux(t, {
    init: USE_PATHS,
    modules: ['nvme'],
    backend: (kind, id) => (kind === 'drive' ? drives.graph.backend(id) : undefined),
    plug: machine => {
      const pci = machine.findBus('pci.0');
      machine.system.plug(nvmeSubsys, {}, { nqn: 'lab' }, 'sub');
      const controllers = [1, 2].map(() => pci?.plug(nvme, {}, { serial: 'one', subsys: 'sub' }));
      controllers[0]?.buses[0]?.plug(nvmeNs, {}, { drive: 'd0', uuid: '01234567-89ab-cdef-0123-456789abcdef' });
    },
  });
  if (linux === undefined) return;
  await linux.down;
  const text = linux.terminal.output.replaceAll('\r', '');
  t.comment(text);
  for (const id of [0, 1]) t.match(text, `controller ${id} of nqn.2019-08.org.qemu:lab`);
  t.match(text, 'a block device');
  t.equal(text.match(/a path has carried writes/g)?.length, 2);
  t.same(text.match(/paths: \d+/g), ['paths: 2', 'paths: 1', 'paths: 2']);
  for (const said of ['two paths read what was written', 'one path still reads it', 'the other is back'])
    t.match(text, said);
  t.notMatch(text, /timeout|error|duplicate/i);
  t.equal(image('d0').toString('latin1', 2047 * 4096, 2047 * 4096 + 7), 'the end');
});
