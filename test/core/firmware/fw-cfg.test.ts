import t from 'tap';
import {
  bootOrderFile,
  devicePath,
  ideNodes,
  isaNode,
  pciNode,
  scsiNodes,
  usbNodes,
} from '../../../core/firmware/boot-order.ts';
import { AMD_HYPERTRANSPORT } from '../../../core/firmware/e820.ts';
import { FW_CFG_KEYS, FwCfg, type FwCfgMemory } from '../../../core/firmware/fw-cfg.ts';
import {
  addCommonItems,
  addX86Items,
  refreshBootFiles,
  setHpets,
  systemStatesFile,
} from '../../../core/firmware/machine-items.ts';

/** 64 KiB of guest memory. */
class Memory implements FwCfgMemory {
  readonly bytes = Buffer.alloc(0x1_0000);

  read(address: number, into: Uint8Array): boolean {
    if (address + into.length > this.bytes.length) return false;
    into.set(this.bytes.subarray(address, address + into.length));
    return true;
  }

  write(address: number, from: Uint8Array): boolean {
    if (address + from.length > this.bytes.length) return false;
    this.bytes.set(from, address);
    return true;
  }

  /** Places a DMA request at 0x100 and returns the control word that it leaves. */
  request(fwCfg: FwCfg, control: number, length: number, buffer: number): number {
    this.bytes.writeUInt32BE(control, 0x100);
    this.bytes.writeUInt32BE(length, 0x104);
    this.bytes.writeBigUInt64BE(BigInt(buffer), 0x108);
    fwCfg.dma(0x100, this);
    return this.bytes.readUInt32BE(0x100);
  }
}

const READ = 2;
const SKIP = 4;
const SELECT = 8;
const WRITE = 16;

function readAll(fwCfg: FwCfg, selector: number, length: number): Buffer {
  fwCfg.select(selector);
  return Buffer.from(Array.from({ length }, () => fwCfg.readByte()));
}

t.test('items are read byte by byte, and zeroes follow', async t => {
  const fwCfg = new FwCfg({ dma: true });
  t.equal(readAll(fwCfg, FW_CFG_KEYS.SIGNATURE, 6).toString('latin1'), 'QEMU\0\0');
  t.equal(readAll(fwCfg, FW_CFG_KEYS.ID, 4).readUInt32LE(), 3);
  t.equal(new FwCfg({ dma: false }).item(FW_CFG_KEYS.ID)?.[0], 1);
  t.equal(fwCfg.select(0x40), false, 'beyond the file slots');
  t.equal(fwCfg.readByte(), 0);
  t.equal(fwCfg.select(0x4000), true, 'the write channel bit is not part of the number');
  t.equal(fwCfg.readByte(), 0x51);
});

t.test('files are listed in the order of their names', async t => {
  const fwCfg = new FwCfg({ dma: true });
  fwCfg.addFile('opt/b', Buffer.from('bee'));
  fwCfg.addFile('etc/a', Buffer.from('ay'));
  const directory = readAll(fwCfg, FW_CFG_KEYS.FILE_DIR, 4 + 128);
  t.equal(directory.readUInt32BE(0), 2);
  t.equal(directory.readUInt32BE(4), 2);
  t.equal(directory.readUInt16BE(8), 0x20);
  t.equal(directory.toString('latin1', 12, 18), 'etc/a\0');
  t.equal(directory.readUInt16BE(4 + 64 + 4), 0x21);
  t.equal(readAll(fwCfg, 0x21, 3).toString(), 'bee');
  fwCfg.setFile('etc/a', Buffer.from('longer'));
  t.equal(readAll(fwCfg, FW_CFG_KEYS.FILE_DIR, 8).readUInt32BE(4), 6);
  t.throws(() => fwCfg.addFile('etc/a', Buffer.alloc(0)), { code: 'ERR_FW_CFG_FILE' });
  t.throws(() => fwCfg.addFile('x'.repeat(56), Buffer.alloc(0)), { code: 'ERR_FW_CFG_FILE' });
  for (let slot = 2; slot < 32; slot++) fwCfg.addFile(`opt/c${slot}`, Buffer.alloc(1));
  t.throws(() => fwCfg.addFile('opt/full', Buffer.alloc(0)), { code: 'ERR_FW_CFG_FILE' });
});

t.test('a file is built when it is selected', async t => {
  const fwCfg = new FwCfg({ dma: true });
  let built = 0;
  fwCfg.addFile('etc/late', Buffer.alloc(2), {
    selected: () => fwCfg.setFile('etc/late', Buffer.from([++built, 0x55])),
  });
  t.same([...readAll(fwCfg, 0x20, 2)], [1, 0x55]);
  t.same([...readAll(fwCfg, 0x20, 2)], [2, 0x55]);
});

t.test('DMA selects, reads, skips and writes', async t => {
  const fwCfg = new FwCfg({ dma: true });
  const memory = new Memory();
  const target = Buffer.alloc(4);
  const writes: [number, number][] = [];
  fwCfg.addFile('opt/data', Buffer.from('0123456789'));
  fwCfg.addFile('opt/target', target, { written: (offset, length) => writes.push([offset, length]) });

  memory.bytes.fill(0xee);
  t.equal(memory.request(fwCfg, (0x20 << 16) | SELECT | READ, 4, 0x200), 0);
  t.equal(memory.bytes.toString('latin1', 0x200, 0x204), '0123');
  t.equal(memory.request(fwCfg, SKIP, 3, 0), 0);
  t.equal(memory.request(fwCfg, READ, 6, 0x300), 0);
  t.equal(memory.bytes.toString('latin1', 0x300, 0x307), '789\0\0\0\xee', 'zeroes beyond the end');

  t.equal(memory.request(fwCfg, SELECT | (0x21 << 16) | SKIP, 1, 0), 0);
  t.equal(memory.request(fwCfg, WRITE, 3, 0x200), 0);
  t.equal(target.toString('latin1'), '\x00012');
  t.same(writes, [[1, 3]]);
  t.equal(memory.request(fwCfg, SELECT | (0x21 << 16) | WRITE, 5, 0x200), 1, 'longer than the file');
  t.equal(memory.request(fwCfg, SELECT | (0x20 << 16) | WRITE, 1, 0x200), 1, 'read-only');
  t.equal(memory.request(fwCfg, SELECT | (0x20 << 16) | READ, 4, 0xfffe), 1, 'outside memory');
  t.equal(memory.request(fwCfg, SELECT | (0x3000 << 16) | READ, 4, 0x400), 0, 'no such item reads as zeroes');
  t.equal(memory.bytes.readUInt32LE(0x400), 0);
  t.equal(memory.request(fwCfg, 0xffff_fffe, 0xffff_ffff, 0x400), 1, 'a length beyond all memory ends');
  t.doesNotThrow(() => fwCfg.dma(2 ** 52, memory), 'a request that cannot be read');
});

t.test('a machine describes itself', async t => {
  const fwCfg = new FwCfg({ dma: true });
  addCommonItems(fwCfg, {
    uuid: '12345678-1234-5678-9abc-def012345678',
    ramSize: 128 * 2 ** 20,
    graphics: true,
    cpus: 1,
    boot: { splashTimeMs: 12 },
  });
  addX86Items(fwCfg, {
    apicIdLimit: 1,
    e820: [AMD_HYPERTRANSPORT, { base: 0, length: 128 * 2 ** 20, type: 'ram' }],
    numa: { cpus: [], nodes: [] },
  });
  setHpets(fwCfg, [{ blockId: 0x8086_a201, base: 0xfed0_0000, minTick: 0 }]);
  const item = (key: number): string => Buffer.from(fwCfg.item(key) ?? []).toString('hex');
  const file = (name: string): string => Buffer.from(fwCfg.file(name) ?? []).toString('hex');
  t.equal(item(FW_CFG_KEYS.UUID), '12345678123456789abcdef012345678');
  t.equal(item(FW_CFG_KEYS.RAM_SIZE), '0000000800000000');
  t.equal(item(FW_CFG_KEYS.NOGRAPHIC), '0000');
  t.equal(item(FW_CFG_KEYS.NB_CPUS), '0100');
  t.equal(item(FW_CFG_KEYS.MAX_CPUS), '0100');
  t.equal(item(FW_CFG_KEYS.NUMA), '00'.repeat(16));
  t.equal(item(FW_CFG_KEYS.HPET), `0101a286800000d0fe${'00'.repeat(112)}`);
  t.equal(file('etc/boot-fail-wait'), 'ffffffff');
  t.equal(file('etc/boot-menu-wait'), '0c00');
  t.equal(file('etc/e820'), '00000000fd0000000000000003000000020000000000000000000000000000080000000001000000');
  t.equal(Buffer.from(systemStatesFile({ s3: true, s4: true, s4Value: 2 })).toString('hex'), '800000818280');
  refreshBootFiles(
    fwCfg,
    [
      { index: 1, path: '/b' },
      { index: 0, path: '/a' },
    ],
    false,
    [{ path: '/a', cylinders: 1, heads: 2, sectors: 3 }],
  );
  t.equal(Buffer.from(fwCfg.file('bootorder') ?? []).toString('latin1'), '/a\n/b\0');
  t.equal(Buffer.from(fwCfg.file('bios-geometry') ?? []).toString('latin1'), '/a 1 2 3\0');
  t.equal(Buffer.from(bootOrderFile([{ index: 0, path: '/a' }], true)).toString('latin1'), '/a\nHALT\0');
  t.equal(bootOrderFile([], true).length, 0, 'nothing to be strict about');
});

t.test('device paths', async t => {
  const ide = pciNode({ devfn: 0x09, classCode: 0x0101, vendor: 0x8086, device: 0x7010 });
  t.equal(devicePath('pci@i0cf8', ide, ...ideNodes(1, 0)), '/pci@i0cf8/ide@1,1/drive@1/disk@0');
  t.equal(pciNode({ devfn: 0x18, classCode: 0x0200, vendor: 0x8086, device: 0x100e }), 'ethernet@3');
  t.equal(pciNode({ devfn: 0x20, classCode: 0x0106, vendor: 0x8086, device: 0x2922 }), 'pci8086,2922@4');
  t.equal(pciNode({ devfn: 0x10, classCode: 0x0380, vendor: 0x1af4, device: 0x1050 }), 'display@2');
  t.equal(isaNode('fdc', 0x3f0), 'fdc@03f0');
  t.same(scsiNodes(0, 1, 0), ['channel@0', 'disk@1,0']);
  t.same(usbNodes('1.12', 'storage'), ['hub@1', 'storage@c']);
});
