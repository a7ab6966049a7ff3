import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import t from 'tap';
import { noSlirp } from '../host/libslirp.ts';

t.setTimeout(120_000);

const PROGRAM = join(import.meta.dirname, '../../../southbridge.js');

/** What a PC without a CPU answers to `commands` of the human monitor, and what it says on the way. */
function ask(options: readonly string[], commands: readonly string[]): string {
  const args = ['-M', 'pc', '-accel', 'qtest', '-S', '-display', 'none', '-monitor', 'stdio', ...options];
  const { stdout, stderr } = spawnSync(process.execPath, [PROGRAM, ...args], {
    input: [...commands, 'quit', ''].join('\n'),
    encoding: 'latin1',
    timeout: 30_000,
  });
  return stdout + stderr;
}

t.test('a PC has a card on a user-mode network by default, and none with -net none', { skip: noSlirp }, t => {
  const standard = ask([], ['info network', 'info pci']);
  t.match(standard, /hub 0\r?\n \\ hub0port1: #net\d+: index=0,type=user,net=10\.0\.2\.0,restrict=off/);
  t.match(standard, /device +3, function 0:\s+\S+ \S+ PCI device 8086:100e/);
  t.notMatch(ask(['-net', 'none'], ['info network', 'info pci']), /8086:100e|hub/);
  t.end();
});

t.test('-nic makes the backend and the card; forwards come and go', { skip: noSlirp }, t => {
  const forward = ['hostfwd_add n tcp:127.0.0.1:0-:24', 'hostfwd_remove n tcp:127.0.0.1:9', 'info usernet'];
  const answer = ask(
    ['-nodefaults', '-nic', 'user,id=n,model=virtio,net=192.168.9.0/24'],
    ['info network', 'info pci', ...forward],
  );
  t.match(answer, /\\ n: index=0,type=user,net=192\.168\.9\.0,restrict=off/);
  t.match(answer, /1af4:1000/);
  t.match(answer, /host forwarding rule for tcp:127\.0\.0\.1:9 not found/);
  t.match(answer, /TCP\[HOST_FORWARD\].*192\.168\.9\.15 +24/);
  t.end();
});

t.test('backends in other processes, and of several queues: what keeps them from being there', t => {
  const answer = ask(
    ['-nodefaults', '-chardev', 'null,id=c'],
    [
      ...['vhost-user,id=v,chardev=nobody', 'vhost-user,id=v,chardev=c', 'bridge,id=b,helper=/bin/false'].map(
        netdev => `netdev_add ${netdev}`,
      ),
      ...['vde,id=x', 'l2tpv3,id=x,src=a,dst=b,txsession=1', 'vhost-vdpa,id=x'].map(netdev => `netdev_add ${netdev}`),
      ...['vhost=on', 'queues=2,fd=3', 'fds=7:8,ifname=x'].map(options => `netdev_add tap,id=t,${options}`),
    ],
  );
  for (const message of [
    /Error: chardev "nobody" not found/,
    /Error: chardev "c" is not reconnectable/,
    /Error: bridge helper failed: \/bin\/false ended with status 1/,
    /Error: vde: a VDE switch is not joined/,
    /Error: l2tpv3: tunnels of L2TPv3 are left to the kernel/,
    /Error: vhost-vdpa: guest RAM is not handed to vDPA devices/,
    /Error: tap: vhost=on: /,
    /Error: ifname=, .* and vhostfds= are invalid with fd=/,
    /Error: ifname=, .* and vhostfd= are invalid with fds=/,
  ]) {
    t.match(answer, message);
  }
  t.end();
});

t.test("what is wrong is said in QEMU's words", { skip: noSlirp }, t => {
  t.match(ask(['-nic', 'user,model=nonsense'], []), /Unsupported NIC model: nonsense/);
  t.match(ask(['-netdev', 'user,id=a,dhcpstart=1.2.3.4'], []), /DHCP doesn't belong to network/);
  const twice = ['-netdev', 'user,id=a', '-device', 'e1000,netdev=a', '-device', 'e1000,netdev=a'];
  t.match(ask(['-nodefaults', ...twice], []), /Property 'e1000\.netdev' can't take value 'a', it's in use/);
  t.match(ask(['-nodefaults', '-device', 'e1000,netdev=b'], []), /Property 'e1000\.netdev' can't find value 'b'/);
  t.end();
});
