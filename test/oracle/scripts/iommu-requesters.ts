import type { RegisterScript } from '../register-script.ts';
import { BASE, DATA, machine, netdev, PAGE, VtdDriver } from '../vtd-driver.ts';

/** Who asks, of those that bridges ask for. */
export function requesters(): RegisterScript {
  const bridges = ['-device', 'pcie-root-port,id=rp,addr=5,chassis=1', '-device', 'pcie-pci-bridge,id=pb,bus=rp'];
  const card = [...netdev, '-device', 'rtl8139,netdev=n,bus=pb,addr=4,mac=52:54:00:12:34:56'];
  const behind = new VtdDriver('behind bridges', machine(',intremap=off', ...bridges, ...card), 0x0200);
  behind.script
    .pciWrite({ device: 5 }, 0x18, 0x02_0100)
    .pciWrite({ device: 5 }, 0x1c, 0xc0c0)
    .pciWrite({ device: 5 }, 4, 7);
  behind.script.pciWrite({ bus: 1, device: 0 }, 0x18, 0x02_0201).pciWrite({ bus: 1, device: 0 }, 0x1c, 0xc0c0);
  behind.script.pciWrite({ bus: 1, device: 0 }, 4, 7);
  behind
    .card({ bus: 2, device: 4 })
    .tables()
    .map(0, DATA)
    .map(1, DATA + 0x9000)
    .pattern(DATA, 0x31)
    .enable();
  behind
    .about('a bridge from Express')
    .copy(BASE, BASE + PAGE)
    .see(DATA + 0x9000)
    .fault();
  behind
    .about('is not allowed to')
    .flush()
    .root(0n)
    .flush()
    .copy(BASE, BASE + PAGE)
    .fault();
  return behind.script;
}

export function ownBridge(): RegisterScript {
  const bridges = ['-device', 'i82801b11-bridge,id=b,addr=1e.0'];
  const card = [...netdev, '-device', 'rtl8139,netdev=n,bus=b,addr=4,mac=52:54:00:12:34:56'];
  const driver = new VtdDriver('behind a conventional bridge', machine(',intremap=off', ...bridges, ...card), 0xf0);
  const bridge = { device: 0x1e };
  driver.script.pciWrite(bridge, 0x18, 0x01_0100).pciWrite(bridge, 0x1c, 0xc0c0).pciWrite(bridge, 4, 7);
  driver
    .card({ bus: 1, device: 4 })
    .tables()
    .map(0, DATA)
    .map(1, DATA + 0x9000)
    .pattern(DATA, 0x31)
    .enable();
  driver
    .about('the bridge asks')
    .copy(BASE, BASE + PAGE)
    .see(DATA + 0x9000)
    .fault();
  driver
    .about('is not allowed to')
    .flush()
    .context(0n, 0n)
    .flush()
    .copy(BASE, BASE + PAGE)
    .fault();
  return driver.script;
}
