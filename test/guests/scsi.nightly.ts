import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { wasm } from '../../core/accel/wasm/accelerator.ts';
import { blockGraph } from '../../core/block/block.ts';
import { Drives } from '../../core/block/drives.ts';
import { ScsiBus } from '../../core/scsi/scsi-bus.ts';
import { pvscsi } from '../../devices/pvscsi/pvscsi.ts';
import { scsiCd, scsiHd } from '../../devices/scsi/scsi-disk.ts';
import { virtioScsiPci } from '../../devices/virtio-scsi/virtio-scsi.ts';
import { guestOrSkip } from './guest-or-skip.ts';
import { linuxGuest } from './linux-guest.ts';

t.setTimeout(900_000);

const MIB = 2 ** 20;
const WRITTEN = { at: 101 * 512, length: 300 * 512 };

/** Bytes that no two places of an image share, so that a block that went astray shows. */
function pattern(seed: number): Buffer {
  const image = Buffer.alloc(MIB);
  for (let at = 0; at < MIB; at += 4) image.writeUInt32LE((Math.imul(at, 2654435761) + seed) >>> 0, at);
  return image;
}

const md5 = (bytes: Uint8Array): string => createHash('md5').update(bytes).digest('hex');

const ADAPTERS = [
  // LUN 300 is in the flat form.
  { type: virtioScsiPci, modules: ['virtio_pci', 'virtio_scsi'], lun: 300, shown: 16684 },
  { type: pvscsi, modules: ['vmw_pvscsi'], lun: 0, shown: 0 },
] as const;

// The drivers of Debian's kernel are the oracle: virtio_scsi, vmw_pvscsi, sd_mod and sr_mod.
for (const adapter of ADAPTERS) {
  t.test(
    `${adapter.type.type}: Linux drives a SCSI disk and a disc; disks go and come while it runs`,
    { timeout: 800_000 },
    t => drivesDisks(t, adapter),
  );
}

async function drivesDisks(t: Test, { type, modules, lun, shown }: (typeof ADAPTERS)[number]): Promise<void> {
  for (const item of ['linux-i386', 'busybox-i386'] as const) if ((await guestOrSkip(t, item)) === undefined) return;
  wasm.probe();
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-scsi-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const drives = new Drives(blockGraph());
  const file = (name: string): string => join(folder, `${name}.img`);
  for (const [seed, name] of ['first', 'late', 'disc'].entries()) {
    writeFileSync(file(name), pattern(seed));
    const options: [string, string][] = [
      ['id', name],
      ['file', file(name)],
      ['format', 'raw'],
      ['if', 'none'],
    ];
    if (name === 'disc') options.push(['media', 'cdrom']);
    await drives.add(options, { interface: 'none' });
  }
  const guest = await linuxGuest({
    modules: [...modules, 'sd_mod', 'sr_mod'],
    backend: (kind, id) => (kind === 'drive' ? drives.graph.backend(id) : undefined),
    plug(machine, pci) {
      pci.plug(type, {}, {}, 'vs');
      const bus = [...machine.buses()].find(candidate => candidate instanceof ScsiBus);
      bus?.plug(scsiHd, { 'scsi-id': 1, lun }, { drive: 'first', serial: 'SERIAL-1' }, 'disk0');
      bus?.plug(scsiCd, { 'scsi-id': 2 }, { drive: 'disc' });
    },
    script: `
      await() { i=0; while [ $i -lt 600 ]; do [ -b /dev/$1 ] && return; sleep 0.1; i=$((i+1)); done; }
      await sda; await sr0
      for name in sda sr0; do
        disk=/sys/block/$name
        echo "found $name $(cat $disk/device/model) $(cat $disk/size) $(basename $(readlink $disk/device))"
        echo "read $name $(dd if=/dev/$name bs=64k 2>/dev/null | md5sum | cut -c 1-32)"
      done
      dd if=/dev/zero bs=512 count=300 2>/dev/null | tr '\\0' '#' | dd of=/dev/sda bs=512 seek=101 conv=fsync 2>/dev/null
      echo "written $?"
      dd if=/dev/sda of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null && echo "direct"
      echo "take it away"
      i=0; while [ $i -lt 600 ] && [ -e /sys/block/sda ]; do sleep 0.1; i=$((i+1)); done
      [ -e /sys/block/sda ] || echo "sda is gone"
      echo "bring another"
      i=0; while [ $i -lt 600 ] && ! ls -d /sys/block/sd? > /dev/null 2>&1; do sleep 0.1; i=$((i+1)); done
      name=$(basename $(ls -d /sys/block/sd?)); await $name
      echo "new $(basename $(readlink /sys/block/$name/device)) $(md5sum < /dev/$name | cut -c 1-32)"`,
  });
  t.teardown(() => guest.dispose());
  const bus = [...guest.machine.buses()].find(candidate => candidate instanceof ScsiBus);
  const first = guest.machine.findDevice('disk0');
  if (bus === undefined || first === undefined) throw new TypeError('the machine has no disk');
  await guest.console.until(/take it away\r?\n/, 400_000);
  bus.unplug(first);
  await guest.console.until(/bring another\r?\n/, 200_000);
  bus.plug(scsiHd, { 'scsi-id': 7 }, { drive: 'late' });
  const output = await guest.finished(200_000);
  t.match(output, new RegExp(`found sda QEMU HARDDISK +2048 0:0:1:${shown}\\n`));
  t.match(output, /found sr0 QEMU CD-ROM +2048 0:0:2:0\n/);
  t.match(output, new RegExp(`read sda ${md5(pattern(0))}`));
  t.match(output, new RegExp(`read sr0 ${md5(pattern(2))}`));
  t.match(output, /written 0\ndirect\n/);
  t.match(output, /sda is gone/);
  t.match(output, new RegExp(`new 0:0:7:0 ${md5(pattern(1))}`));
  const expected = pattern(0).fill('#', WRITTEN.at, WRITTEN.at + WRITTEN.length);
  t.ok(readFileSync(file('first')).equals(expected), 'what was written is there, and nothing else has changed');
}
