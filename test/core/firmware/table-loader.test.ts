import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { LOADER_FILE, RSDP_FILE, TABLES_FILE } from '../../../core/firmware/acpi-blob.ts';
import { type AcpiFiles, microvmAcpi, pcAcpi } from '../../../core/firmware/acpi-build.ts';
import { serialPort } from '../../../core/firmware/dsdt-isa.ts';
import { TableLoader } from '../../../core/firmware/table-loader.ts';
import { VMGENID_GUID_FILE, vmGenIdPage } from '../../../core/firmware/vmgenid.ts';
import { emptyBus, GIB, MIB, microvmFadt, pc, pcBus, pcFadt, q35, q35Fadt } from './platforms.ts';

const ioApics = [{ id: 0, address: 0xfec0_0000, gsiBase: 0 }];
const cpus = [0, 1, 2].map(apicId => ({ apicId, present: apicId < 2, node: 0 }));
const madt = { cpus, ioApics, timerOnGsi2: true, pciIrqMask: 0xe20 };

/** A pc with about everything that the builder can add. */
const fullPc = (): AcpiFiles =>
  pcAcpi({
    dsdt: pc({
      cpuHotplug: { cpus, base: 0xaf00 },
      memoryHotplug: { base: 0xa00, slots: 3 },
      nvdimm: false,
      rootBus: pcBus(0, [{ devfn: 0x18, hotpluggable: true, secondary: emptyBus(1) }]),
    }),
    fadt: pcFadt,
    madt,
    hpet: { blockId: 0x8086_a201, base: 0xfed0_0000 },
    numa: { memory: [{ base: 0, length: 128 * MIB, node: 0, flags: 1 }], distances: [[10]] },
    vmGenId: true,
  });
const fullQ35 = (): AcpiFiles =>
  pcAcpi({
    dsdt: q35({ cpuHotplug: { cpus, base: 0xcd8, smi: { unplug: true } } }),
    fadt: q35Fadt,
    madt,
    mcfg: { base: 0xb000_0000, size: 256 * MIB },
  });
const fullMicrovm = (): AcpiFiles =>
  microvmAcpi({
    dsdt: {
      fwCfg: { iobase: 0x510, dma: true },
      isaDevices: [serialPort({ index: 0, iobase: 0x3f8, irq: 4 })],
      ged: { base: 0xfea0_0000, gsi: 9 },
      virtio: [{ index: 0, base: 0xfeb0_0000, gsi: 16 }],
      xhci: { base: 0xfe90_0000, gsi: 10 },
      pcie: {
        ecam: { base: 0xe000_0000, size: 256 * MIB },
        mmio32: { min: 0xc000_0000, max: 0xdfff_ffff },
        mmio64: { min: 768 * GIB, max: 1024 * GIB - 1 },
        gsi: 12,
      },
    },
    fadt: microvmFadt,
    madt: { ...madt, timerOnGsi2: false, pciIrqMask: 0 },
  });

/** Guest memory after the script has run, as firmware runs it. */
interface Linked {
  readonly memory: Buffer;
  readonly placed: ReadonlyMap<string, number>;
  /** What WRITE_POINTER told the host: by file and offset. */
  readonly told: ReadonlyMap<string, bigint>;
}

function link(acpi: AcpiFiles): Linked {
  const files = new Map<string, Uint8Array>([
    [TABLES_FILE, acpi.tables],
    [RSDP_FILE, acpi.rsdp],
    [LOADER_FILE, acpi.loader],
    [VMGENID_GUID_FILE, vmGenIdPage('00112233-4455-6677-8899-aabbccddeeff')],
  ]);
  const memory = Buffer.alloc(2 * MIB);
  const placed = new Map<string, number>();
  const told = new Map<string, bigint>();
  let next = 0x10_0040;
  const script = Buffer.from(acpi.loader);
  const file = (at: number): string => script.toString('latin1', at, at + 56).replace(/\0.*$/s, '');
  const place = (name: string): number => {
    const address = placed.get(name);
    if (address === undefined) throw new Error(`'${name}' is used before it is allocated`);
    return address;
  };
  for (let at = 0; at < script.length; at += 128) {
    switch (script.readUInt32LE(at)) {
      case 0:
        break;
      case 1: {
        const name = file(at + 4);
        const bytes = files.get(name);
        if (bytes === undefined) throw new Error(`there is no file '${name}'`);
        const alignment = script.readUInt32LE(at + 60);
        const address = script.readUInt8(at + 64) === 2 ? 0xf_0000 : Math.ceil(next / alignment) * alignment;
        memory.set(bytes, address);
        placed.set(name, address);
        if (address >= next) next = address + bytes.length;
        break;
      }
      case 2: {
        const target = place(file(at + 4)) + script.readUInt32LE(at + 116);
        const size = script.readUInt8(at + 120);
        const value = size === 8 ? memory.readBigUInt64LE(target) : BigInt(memory.readUIntLE(target, size));
        const sum = value + BigInt(place(file(at + 60)));
        if (size === 8) memory.writeBigUInt64LE(sum, target);
        else memory.writeUIntLE(Number(sum), target, size);
        break;
      }
      case 3: {
        const base = place(file(at + 4));
        const start = base + script.readUInt32LE(at + 64);
        const sum = memory
          .subarray(start, start + script.readUInt32LE(at + 68))
          .reduce((total, byte) => total + byte, 0);
        const target = base + script.readUInt32LE(at + 60);
        memory[target] = ((memory[target] ?? 0) - sum) & 0xff;
        break;
      }
      case 4: {
        const address = place(file(at + 60)) + script.readUInt32LE(at + 120);
        told.set(`${file(at + 4)}+${script.readUInt32LE(at + 116)}`, BigInt(address));
        break;
      }
      default:
        throw new Error(`command ${script.readUInt32LE(at)}`);
    }
  }
  return { memory, placed, told };
}

const sum = (bytes: Buffer): number => bytes.reduce((total, byte) => (total + byte) & 0xff, 0);

/** All tables that the RSDP leads to, by signature, with their checksums verified. */
function tables({ memory }: Linked): Map<string, Buffer> {
  const rsdp = memory.indexOf('RSD PTR ', 0xf_0000, 'latin1');
  const isV2 = memory.readUInt8(rsdp + 15) === 2;
  t.equal(sum(memory.subarray(rsdp, rsdp + 20)), 0, 'the RSDP adds up');
  if (isV2) t.equal(sum(memory.subarray(rsdp, rsdp + 36)), 0, 'the extended RSDP adds up');
  const table = (address: number): Buffer => memory.subarray(address, address + memory.readUInt32LE(address + 4));
  const root = table(isV2 ? Number(memory.readBigUInt64LE(rsdp + 24)) : memory.readUInt32LE(rsdp + 16));
  const found = new Map([[root.toString('latin1', 0, 4), root]]);
  const step = isV2 ? 8 : 4;
  for (let at = 36; at < root.length; at += step) {
    const listed = table(root.readUIntLE(at, 4));
    found.set(listed.toString('latin1', 0, 4), listed);
  }
  const fadt = found.get('FACP');
  if (fadt !== undefined) {
    found.set('DSDT', table(fadt.readUInt32LE(40)));
    if (fadt.length > 148) t.equal(fadt.readUInt32LE(140), fadt.readUInt32LE(40), 'both ways to the DSDT agree');
    const facs = fadt.readUInt32LE(36);
    if (facs !== 0) t.equal(memory.toString('latin1', facs, facs + 4), 'FACS');
    t.equal(facs % 64, 0, 'the FACS is aligned');
  }
  for (const [signature, bytes] of found) t.equal(sum(bytes), 0, `${signature} adds up`);
  return found;
}

t.test('firmware can link the tables of each machine', async t => {
  const linked = link(fullPc());
  t.same([...tables(linked).keys()], ['RSDT', 'FACP', 'APIC', 'SSDT', 'HPET', 'SRAT', 'SLIT', 'WAET', 'DSDT']);
  const page = linked.placed.get(VMGENID_GUID_FILE) ?? -1;
  t.equal(page % 4096, 0);
  t.equal(linked.told.get('etc/vmgenid_addr+0'), BigInt(page + 40), 'the host learns where the GUID is');
  t.equal(
    tables(linked)
      .get('SSDT')
      ?.readUInt32LE(36 + 6),
    page,
    'and so does the SSDT',
  );
  t.same([...tables(link(fullQ35())).keys()], ['RSDT', 'FACP', 'APIC', 'MCFG', 'WAET', 'DSDT']);
  t.same([...tables(link(fullMicrovm())).keys()], ['XSDT', 'FACP', 'APIC', 'DSDT']);
});

/** This iasl knows no FADT of revision 5, which ends before revision 6's last field, and no _HID of eight letters. */
const BEYOND_IASL = new Set(['microvm-facp', 'pc-ssdt']);
const noIasl = spawnSync('iasl', ['-v']).error === undefined ? false : 'iasl is not installed';

t.test('iasl takes every table apart and puts it together again', { skip: noIasl }, async t => {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-acpi-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const machines = { pc: fullPc, q35: fullQ35, microvm: fullMicrovm };
  for (const [machine, build] of Object.entries(machines)) {
    for (const [signature, bytes] of tables(link(build()))) {
      const name = `${machine}-${signature.toLowerCase()}`;
      if (BEYOND_IASL.has(name)) continue;
      writeFileSync(join(folder, `${name}.aml`), bytes);
      execFileSync('iasl', ['-d', `${name}.aml`], { cwd: folder, stdio: 'pipe' });
      const source = readFileSync(join(folder, `${name}.dsl`), 'latin1');
      t.notMatch(source, /\*\*\*\* (?!32-bit)|Invalid|Warning/, `${name} has nothing wrong`);
      const compiled = spawnSync('iasl', ['-ve', '-p', `${name}-again`, `${name}.dsl`], {
        cwd: folder,
        encoding: 'utf8',
      });
      t.match(compiled.stdout, / 0 Errors/, `${name} compiles`);
    }
  }
});

t.test('the script refuses what firmware could not do', async t => {
  const loader = new TableLoader();
  loader.allocate('etc/a', 64, 'high');
  t.throws(() => loader.allocate('etc/a', 64, 'high'), { code: 'ERR_TABLE_LOADER' });
  t.throws(() => loader.addPointer('etc/a', 0, 4, 'etc/b'), { code: 'ERR_TABLE_LOADER' });
  t.throws(() => loader.allocate('x'.repeat(56), 64, 'high'), { code: 'ERR_TABLE_LOADER' });
  loader.allocate('etc/b', 16, 'fSegment');
  t.equal(
    Buffer.from(loader.bytes()).toString('latin1', 4, 9),
    'etc/b',
    'allocations come first, the last of them first',
  );
  t.equal(loader.bytes().length, 4096);
});
