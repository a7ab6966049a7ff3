import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { wasm } from '../../core/accel/wasm/accelerator.ts';
import { blockGraph } from '../../core/block/block.ts';
import { Drives } from '../../core/block/drives.ts';
import { ScsiBus } from '../../core/scsi/scsi-bus.ts';
import { megasas, megasasGen2 } from '../../devices/megasas/megasas.ts';
import { scsiHd } from '../../devices/scsi/scsi-disk.ts';
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

const variants = [
  { name: 'logical drives of a first adapter', type: megasas, props: {}, channel: 2 },
  { name: 'drives as they are (JBOD) behind a second one', type: megasasGen2, props: { use_jbod: true }, channel: 0 },
] as const;

// The driver of Debian's kernel is the oracle: megaraid_sas.
for (const { name, type, props, channel } of variants) {
  t.test(`Linux drives ${name}; a drive comes while it runs`, { timeout: 800_000 }, async t => {
    for (const item of ['linux-i386', 'busybox-i386'] as const) if ((await guestOrSkip(t, item)) === undefined) return;
    wasm.probe();
    const folder = mkdtempSync(join(tmpdir(), 'southbridge-megasas-'));
    t.teardown(() => rmSync(folder, { recursive: true }));
    const drives = new Drives(blockGraph());
    const file = (name: string): string => join(folder, `${name}.img`);
    for (const [seed, name] of ['first', 'late'].entries()) {
      writeFileSync(file(name), pattern(seed));
      const options: [string, string][] = [
        ['id', name],
        ['file', file(name)],
        ['format', 'raw'],
        ['if', 'none'],
      ];
      await drives.add(options, { interface: 'none' });
    }
    const guest = await linuxGuest({
      modules: ['megaraid_sas', 'sd_mod'],
      backend: (kind, id) => (kind === 'drive' ? drives.graph.backend(id) : undefined),
      plug(machine, pci) {
        pci.plug(type, {}, props, 'raid');
        const bus = [...machine.buses()].find(candidate => candidate instanceof ScsiBus);
        bus?.plug(scsiHd, { 'scsi-id': 3 }, { drive: 'first' }, 'disk0');
      },
      script: `
        await() { i=0; while [ $i -lt 600 ]; do [ -b /dev/$1 ] && return; sleep 0.1; i=$((i+1)); done; }
        await sda
        disk=/sys/block/sda
        echo "found $(cat $disk/device/model) $(cat $disk/size) $(basename $(readlink $disk/device))"
        echo "read $(dd if=/dev/sda bs=64k 2>/dev/null | md5sum | cut -c 1-32)"
        dd if=/dev/zero bs=512 count=300 2>/dev/null | tr '\\0' '#' | dd of=/dev/sda bs=512 seek=101 conv=fsync 2>/dev/null
        echo "written $?"
        dd if=/dev/sda of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null && echo "direct"
        echo "bring another"
        await sdb
        echo "new $(basename $(readlink /sys/block/sdb/device)) $(md5sum < /dev/sdb | cut -c 1-32)"`,
    });
    t.teardown(() => guest.dispose());
    const bus = [...guest.machine.buses()].find(candidate => candidate instanceof ScsiBus);
    await guest.console.until(/bring another\r?\n/, 400_000);
    bus?.plug(scsiHd, { 'scsi-id': 7 }, { drive: 'late' });
    const output = await guest.finished(200_000);
    t.match(output, new RegExp(`found QEMU HARDDISK +2048 0:${channel}:3:0`));
    t.match(output, new RegExp(`read ${md5(pattern(0))}`));
    t.match(output, /written 0\ndirect\n/);
    t.match(output, new RegExp(`new 0:${channel}:7:0 ${md5(pattern(1))}`));
    const expected = pattern(0).fill('#', WRITTEN.at, WRITTEN.at + WRITTEN.length);
    t.ok(readFileSync(file('first')).equals(expected), 'what was written is there, and nothing else has changed');
  });
}
