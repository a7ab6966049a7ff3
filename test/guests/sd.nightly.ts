import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { blockGraph } from '../../core/block/block.ts';
import { Drives } from '../../core/block/drives.ts';
import { PciBus } from '../../core/pci/pci-bus.ts';
import { SdBus } from '../../devices/sd/sd-bus.ts';
import { sdCard } from '../../devices/sd/sd-card.ts';
import { sdhciPci } from '../../devices/sd/sdhci.ts';
import { bootLinux } from './linux-machine.ts';

t.setTimeout(900_000);

const SIZE = 4 << 20;
const WRITTEN = { at: 101 * 512, length: 300 * 512 };

/** Bytes that no two places of an image share, so that a block that went astray shows. */
function pattern(): Buffer {
  const image = Buffer.alloc(SIZE);
  for (let at = 0; at < SIZE; at += 4) image.writeUInt32LE(Math.imul(at, 2654435761) >>> 0, at);
  return image;
}

const md5 = (bytes: Uint8Array): string => createHash('md5').update(bytes).digest('hex');

const variants = [
  { name: 'ADMA2', host: {}, card: {} },
  {
    name: 'SDMA, a card of version 3',
    host: { 'sd-spec-version': 3, capareg: 0x0570_34b4n },
    card: { spec_version: 3 },
  },
] as const;

// The drivers of Debian's kernel are the oracle: sdhci_pci and mmc_block.
for (const { name, host, card } of variants) {
  t.test(
    `Linux reads, writes and erases an SD card by ${name}; the card is taken out`,
    { timeout: 800_000 },
    async t => {
      const folder = mkdtempSync(join(tmpdir(), 'southbridge-sd-'));
      t.teardown(() => rmSync(folder, { recursive: true }));
      const file = join(folder, 'card.img');
      writeFileSync(file, pattern());
      const drives = new Drives(blockGraph());
      const options: [string, string][] = [
        ['id', 'card'],
        ['file', file],
        ['format', 'raw'],
        ['if', 'none'],
      ];
      await drives.add(options, { interface: 'none' });
      const linux = await bootLinux(t, {
        modules: ['sdhci_pci', 'mmc_block'],
        backend: (kind, id) => (kind === 'drive' ? drives.graph.backend(id) : undefined),
        plug(machine) {
          const pci = machine.findBus('pci.0');
          if (!(pci instanceof PciBus)) throw new TypeError('the machine has no PCI bus');
          pci.plug(sdhciPci, {}, host, 'sd');
          const slot = [...machine.buses()].find(bus => bus instanceof SdBus);
          slot?.plug(sdCard, {}, { drive: 'card', ...card });
        },
        init: `
        i=0; while [ $i -lt 600 ]; do [ -b /dev/mmcblk0 ] && break; sleep 0.1; i=$((i+1)); done
        disk=/sys/block/mmcblk0
        echo "found $(cat $disk/device/name) $(cat $disk/device/type) $(cat $disk/size)"
        echo "read $(dd if=/dev/mmcblk0 bs=64k 2>/dev/null | md5sum | cut -c 1-32)"
        dd if=/dev/zero bs=512 count=300 2>/dev/null | tr '\\0' '#' | dd of=/dev/mmcblk0 bs=512 seek=101 conv=fsync 2>/dev/null
        echo "written $?"
        blkdiscard -o 2097152 -l 1048576 /dev/mmcblk0 2>/dev/null && echo "erased"
        dmesg | grep -iE "mmc|sdhci"
        echo "take it out"
        i=0; while [ $i -lt 600 ] && [ -e $disk ]; do sleep 0.1; i=$((i+1)); done
        [ -e $disk ] || echo "it is gone"`,
      });
      if (linux === undefined) return;
      const { terminal } = linux;
      const { input: output } = await terminal.until(/take it out\r?\n/, 400_000);
      t.match(output, /found QEMU! SD 8192\r?\n/);
      t.match(output, new RegExp(`read ${md5(pattern())}`));
      t.match(output, /written 0\r?\n/);
      t.notMatch(output, /mmc.*(error|timeout|failed)/i);
      const expected = pattern().fill('#', WRITTEN.at, WRITTEN.at + WRITTEN.length);
      const image = readFileSync(file);
      if (/erased/.test(output)) expected.fill(0, 2 << 20, 3 << 20);
      else t.comment('this BusyBox has no blkdiscard');
      t.ok(image.equals(expected), 'what was written is there, and nothing else has changed');
      await drives.graph.backend('card')?.remove();
      drives.graph.backend('card')?.device?.changeMedium?.(false);
      t.match(await terminal.until(/it is gone/, 200_000), /it is gone/);
      await linux.down;
    },
  );
}
