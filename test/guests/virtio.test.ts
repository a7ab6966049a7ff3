import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { wasm } from '../../core/accel/wasm/accelerator.ts';
import { blockGraph } from '../../core/block/block.ts';
import { Drives } from '../../core/block/drives.ts';
import { NetClient } from '../../core/net/net-client.ts';
import { virtioBlkPci } from '../../devices/virtio-blk.ts';
import { virtconsole, virtserialport } from '../../devices/virtio-console.ts';
import { virtioNetPci } from '../../devices/virtio-net/virtio-net.ts';
import { virtioRngPci } from '../../devices/virtio-rng.ts';
import { virtioSerialPci } from '../../devices/virtio-serial.ts';
import { GuestConsole } from './guest-console.ts';
import { guestOrSkip } from './guest-or-skip.ts';
import { linuxGuest } from './linux-guest.ts';

t.setTimeout(600_000);

const MIB = 2 ** 20;

/** A neighbour who answers every ARP request: it has whatever address is asked for. */
function neighbour(): { readonly client: NetClient; readonly requests: () => number } {
  let requests = 0;
  const client: NetClient = new NetClient('net0', 'test', {
    canReceive: () => true,
    receive(frame, length) {
      const request = Buffer.from(frame.subarray(0, length));
      if (length < 42 || request.readUInt16BE(12) !== 0x0806 || request.readUInt16BE(20) !== 1) return true;
      requests++;
      const reply = Buffer.alloc(60);
      const mac = Buffer.from([0x52, 0x55, 0, 0, 0, 1]);
      request.copy(reply, 0, 6, 12);
      mac.copy(reply, 6);
      request.copy(reply, 12, 12, 20);
      reply.writeUInt16BE(2, 20);
      mac.copy(reply, 22);
      request.copy(reply, 28, 38, 42);
      request.copy(reply, 32, 22, 32);
      client.send(reply);
      return true;
    },
  });
  return { client, requests: () => requests };
}

// The drivers of Debian's kernel are the oracle: legacy-free, with the packed ring on the second disk.
t.test('Linux drives virtio disks, card, consoles and random numbers', { timeout: 300_000 }, async t => {
  for (const item of ['linux-i386', 'busybox-i386'] as const) if ((await guestOrSkip(t, item)) === undefined) return;
  wasm.probe();
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-virtio-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const drives = new Drives(blockGraph());
  const image = (name: string): string => join(folder, `${name}.img`);
  for (const name of ['split', 'packed']) {
    writeFileSync(image(name), `the ${name} disk\n`);
    truncateSync(image(name), MIB);
    const options: [string, string][] = [
      ['id', name],
      ['file', image(name)],
      ['format', 'raw'],
      ['if', 'none'],
    ];
    await drives.add(options, { interface: 'none', snapshot: false, isDefault: false });
  }
  const chardevs: Record<string, GuestConsole> = { hvc: new GuestConsole(), port: new GuestConsole() };
  for (const chardev of Object.values(chardevs)) await chardev.open();
  const { client, requests } = neighbour();
  // A second queue with nobody at its other end.
  const queues = [client, new NetClient('net0', 'test', { canReceive: () => true, receive: () => true })];
  const guest = await linuxGuest({
    modules: ['virtio_pci', 'virtio_blk', 'virtio_net', 'virtio_rng', 'virtio_console'],
    backend: (kind, id) =>
      kind === 'drive'
        ? drives.graph.backend(id)
        : kind === 'netdev'
          ? { id, client, queues, dispose() {} }
          : chardevs[id],
    plug(_machine, pci) {
      pci.plug(virtioBlkPci, {}, { drive: 'split', serial: 'SPLIT-1' });
      pci.plug(virtioBlkPci, {}, { drive: 'packed', packed: 'on', 'disable-legacy': 'on', serial: 'PACKED-1' });
      pci.plug(virtioNetPci, {}, { netdev: 'net0', mac: '52:54:00:ab:cd:ef', mq: 'on', rss: 'on' });
      pci.plug(virtioRngPci, {}, {});
      const serial = pci.plug(virtioSerialPci, {}, {}, 'vser');
      const ports = serial.buses[0]?.devices[0]?.buses[0];
      ports?.plug(virtconsole, {}, { chardev: 'hvc' });
      ports?.plug(virtserialport, {}, { chardev: 'port', name: 'org.southbridge.test' });
    },
    script: `
      for disk in vda vdb; do
        echo "$disk $(cat /sys/block/$disk/serial) $(cat /sys/block/$disk/size) $(head -n 1 /dev/$disk)"
        dd if=/dev/zero bs=512 count=7 2>/dev/null | tr '\\0' '#' | dd of=/dev/$disk bs=512 seek=100 conv=fsync 2>/dev/null
        dd if=/dev/$disk bs=4096 iflag=direct 2>/dev/null | md5sum
        echo "packed $disk $(cut -c 35 /sys/block/$disk/device/features)"
      done
      ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up
      ping -c 1 -W 2 10.0.2.2 > /dev/null
      echo "neighbour $(ip neigh show 10.0.2.2)"
      cat /sys/class/net/eth0/address
      echo "rng $(cat /sys/class/misc/hw_random/rng_current) $(dd if=/dev/hwrng bs=64 count=1 2>/dev/null | wc -c)"
      cat /sys/class/virtio-ports/*/name
      echo "from the guest" > /dev/$(ls /dev | grep '^vport.*p1$')
      echo "on hvc" > /dev/hvc0
      grep -c 'virtio.*-input\\.[01]$' /proc/interrupts
      cut -c 23,61 /sys/class/net/eth0/device/features
      grep -c virtio /proc/interrupts`,
  });
  t.teardown(() => guest.dispose());
  const output = await guest.finished(240_000);
  t.match(output, /vda SPLIT-1 2048 the split disk/);
  t.match(output, /vdb PACKED-1 2048 the packed disk/);
  t.match(output, /packed vda 0\n/);
  t.match(output, /packed vdb 1\n/);
  t.match(output, /neighbour 10\.0\.2\.2 dev eth0 lladdr 52:55:00:00:00:01/);
  t.match(output, /52:54:00:ab:cd:ef/);
  t.ok(requests() > 0);
  t.match(output, /rng virtio_rng\S* 64/);
  t.match(output, /org\.southbridge\.test/);
  t.match(output, /\n2\n11\n13\n$/, 'two pairs of queues, MQ and RSS; each queue has its vector');
  for (const name of ['split', 'packed']) {
    const bytes = readFileSync(image(name));
    t.ok(
      bytes.subarray(51200, 51200 + 7 * 512).every(byte => byte === 0x23),
      `${name}: what was written is there`,
    );
  }
  t.match(chardevs['port']?.output, /from the guest/);
  t.match(chardevs['hvc']?.output, /on hvc/);
});
