import { lstatSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { wasm } from '../../core/accel/wasm/accelerator.ts';
import { LocalTree } from '../../core/fsdev/local-tree.ts';
import { virtio9pPci } from '../../devices/virtio-9p/virtio-9p.ts';
import { guestOrSkip } from './guest-or-skip.ts';
import { linuxGuest } from './linux-guest.ts';

t.setTimeout(300_000);

// The 9p client of Debian's kernel is the oracle. Owners are mapped, so that no root is needed here.
t.test('Linux mounts a folder of the host', { timeout: 240_000 }, async t => {
  for (const item of ['linux-i386', 'busybox-i386'] as const) if ((await guestOrSkip(t, item)) === undefined) return;
  wasm.probe();
  const path = mkdtempSync(join(tmpdir(), 'southbridge-shared-'));
  t.teardown(() => rmSync(path, { recursive: true }));
  writeFileSync(join(path, 'large'), Buffer.alloc(300_000, 'southbridge '));
  const tree = new LocalTree('share', {
    path,
    securityModel: 'mapped-file',
    readOnly: false,
    immediateWriteout: false,
    multipleDevices: 'remap',
    modes: { file: 0o600, folder: 0o700 },
  });
  const guest = await linuxGuest({
    modules: ['virtio_pci', '9pnet_virtio', '9p'],
    plug: (_machine, pci) => void pci.plug(virtio9pPci, {}, { fsdev: tree, mount_tag: 'share' }),
    script: `
      mkdir -p /mnt
      mount -t 9p -o trans=virtio,version=9p2000.L,msize=65536 share /mnt; echo "mounted $?"
      cd /mnt
      echo "large $(wc -c < large) $(md5sum < large | cut -c 1-32)"
      echo hello > note; echo more >> note; cat note
      chown 12:34 note; chmod 4711 note; ls -ln note
      mkdir -p a/b/c; mv note a/b; ls a/b; rmdir a/b/c
      ln -s b/note a/link; cat a/link; readlink a/link
      ln a/b/note twin; mknod null c 1 3; ls -ln null | cut -c 1-10
      i=0; while [ $i -lt 200 ]; do echo $i > a/file$i; i=$((i+1)); done; ls a | wc -l
      dd if=/dev/zero of=sparse bs=1 count=1 seek=99999 2>/dev/null; wc -c < sparse
      dd if=large of=sparse bs=1000 seek=50 count=1 conv=notrunc 2>/dev/null; md5sum < sparse
      touch -d '2001-02-03 04:05:06' twin; date -u -r twin '+%F %T'
      df . | tail -1 | grep -c share
      cat nothing 2>&1; mkdir a 2>&1; rmdir a 2>&1
      exec 3< a/file7; rm a/file7; cat <&3; exec 3<&-
      rm -r a; ls
      cd /; umount /mnt; echo "unmounted $?"`,
  });
  t.teardown(() => guest.dispose());
  const output = await guest.finished(200_000);
  t.match(output, /mounted 0\nlarge 300000 [0-9a-f]{32}\nhello\nmore\n/);
  t.match(output, /-rws--x--x +1 12 +34 +11 .* note\n/, 'owner and mode are as the guest has set them');
  t.match(output, /c +note\nhello\nmore\nb\/note\ncrw-r--r--\n202\n100000\n/);
  t.match(output, /2001-02-03 04:05:06\n1\n/);
  t.match(output, /nothing.*No such file.*\n.*File exists\n.*Directory not empty\n7\n/);
  t.match(output, /large +null +sparse +twin\nunmounted 0\n/);
  t.equal(readFileSync(join(path, 'twin'), 'latin1'), 'hello\nmore\n');
  t.equal(lstatSync(join(path, 'twin')).mode & 0o7777, 0o600, 'here it is an ordinary file');
  t.equal(lstatSync(join(path, 'twin')).mtime.toISOString(), '2001-02-03T04:05:06.000Z');
  t.equal(readFileSync(join(path, 'sparse'), 'latin1').slice(50_000, 50_012), 'southbridge ');
});
