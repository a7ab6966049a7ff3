/** SMBIOS structures (DMTF DSP0134 2.8 and 3.0) and their entry point, as the firmware takes them over fw_cfg. */
import { SouthbridgeError } from '../errors.ts';
import { concat, u8, u16, u32, u64, uuidBytes } from './aml.ts';
import { IPMI_INTERFACE_TYPES } from './dsdt-isa.ts';
import { ONBOARD_KINDS, type SmbiosOptions } from './smbios-options.ts';

export const SMBIOS_TABLES_FILE = 'etc/smbios/smbios-tables';
export const SMBIOS_ANCHOR_FILE = 'etc/smbios/smbios-anchor';

export interface SmbiosFacts {
  readonly options: SmbiosOptions;
  /** What stands in for a name that the user did not give; undefined where no structures are built by default. */
  readonly defaults?: { readonly manufacturer: string; readonly product: string; readonly version: string };
  readonly uuid?: string;
  /** `_SM_` (2.8) or `_SM3_` (3.0). */
  readonly entryPoint: '32' | '64';
  readonly sockets: number;
  readonly coresPerSocket: number;
  readonly threadsPerSocket: number;
  /** EAX and EDX of CPUID leaf 1. */
  readonly cpuid: { readonly version: number; readonly features: number };
  readonly ramSize: number;
  /** Where RAM lies, from the E820 map. */
  readonly ramRanges: readonly { readonly base: number; readonly length: number }[];
  /** Interfaces to BMCs, for type 38. */
  readonly ipmi?: readonly SmbiosIpmi[];
  /** Finds a device on the root bus for type 41, as bus and devfn. */
  readonly findPci?: (id: string) => { readonly bus: number; readonly devfn: number } | undefined;
}

export interface SmbiosIpmi {
  readonly kind: keyof typeof IPMI_INTERFACE_TYPES;
  /** A port, or an address on the SMBus. */
  readonly base: number;
  readonly slaveAddress: number;
  readonly irq: number;
}

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;
const UNKNOWN_WIDTH = 0xffff;
const NO_CACHE = 0xffff;
const NO_ERROR_HANDLE = 0xfffe;
const ENCLOSURE_HANDLE = 0x300;
const ARRAY_HANDLE = 0x1000;
/** The first type 17 and type 19 handles; more DIMMs than lie between push type 19 up. */
const DIMM_HANDLE = 0x1100;
const MAPPED_HANDLE = 0x1300;
const LARGEST_DIMM = 16 * GIB;
/** A 2.1 entry point counts bytes in 16 bits. */
const MAX_TABLES_21 = 0xffff;
const DEFAULT_SPEED_MHZ = 2000;

/** One structure under construction (6.1.2): the formatted area, and the strings behind it. */
class Structure {
  readonly #parts: Uint8Array[] = [];
  readonly #strings: string[] = [];

  add(...parts: readonly Uint8Array[]): this {
    this.#parts.push(...parts);
    return this;
  }

  /** A reference to a string; 0 where there is none. */
  text(value: string | undefined): this {
    if (value === undefined || value === '') return this.add(u8(0));
    this.#strings.push(value);
    return this.add(u8(this.#strings.length));
  }

  /** A string that no field refers to (type 11). */
  extra(value: string): this {
    if (value !== '') this.#strings.push(value);
    return this;
  }

  bytes(type: number, handle: number): Uint8Array {
    const area = concat(...this.#parts);
    const strings = this.#strings.map(value => Buffer.from(`${value}\0`, 'utf8'));
    const end = strings.length === 0 ? [0, 0] : [0];
    return concat([type, area.length + 4], u16(handle), area, ...strings, end);
  }
}

/** Both files. @throws SouthbridgeError ERR_SMBIOS where the options cannot be made into tables */
export function smbiosFiles(facts: SmbiosFacts): { readonly tables: Uint8Array; readonly anchor: Uint8Array } {
  const { options } = facts;
  const built: Uint8Array[] = [];
  const add = (type: number, required: boolean, handle: number, structure: () => Structure): void => {
    if (options.hasFile(type)) return;
    if (!options.hasFields(type) && !(required && facts.defaults !== undefined)) return;
    built.push(structure().bytes(type, handle));
  };

  add(0, false, 0x000, () => biosInformation(options));
  add(1, true, 0x100, () => systemInformation(facts));
  add(2, false, 0x200, () => baseboard(facts));
  add(3, true, ENCLOSURE_HANDLE, () => enclosure(facts));
  for (let socket = 0; socket < facts.sockets; socket++) add(4, true, 0x400 + socket, () => processor(facts, socket));
  options.ports.forEach((port, index) => {
    add(8, true, index, () =>
      new Structure()
        .text(port['internal_reference'])
        .add(u8(0))
        .text(port['external_reference'])
        .add(u8(options.number(port, 'connector_type', 0)), u8(options.number(port, 'port_type', 0))),
    );
  });
  if (options.oemStrings.length > 0) {
    add(11, true, 0xe00, () =>
      options.oemStrings.reduce(
        (strings, value) => strings.extra(value),
        new Structure().add(u8(options.oemStrings.length)),
      ),
    );
  }
  const dimms = Math.ceil(facts.ramSize / LARGEST_DIMM);
  add(16, true, ARRAY_HANDLE, () => memoryArray(facts.ramSize, dimms));
  for (let dimm = 0; dimm < dimms; dimm++) {
    const size = dimm < dimms - 1 ? LARGEST_DIMM : ((facts.ramSize - 1) % LARGEST_DIMM) + 1;
    add(17, true, DIMM_HANDLE + dimm, () => memoryDevice(facts, dimm, size));
  }
  const shift = Math.max(0, dimms - (MAPPED_HANDLE - DIMM_HANDLE));
  facts.ramRanges.forEach((range, index) => {
    add(19, true, MAPPED_HANDLE + shift + index, () => mappedAddress(range));
  });
  add(32, true, 0x2000, () => new Structure().add(new Uint8Array(6), u8(0)));
  for (const ipmi of facts.ipmi ?? []) add(38, true, 0x3000, () => ipmiDevice(ipmi));
  options.onboard.forEach((device, index) => {
    add(41, true, 0x2900 + index, () => onboardDevice(facts, device));
  });
  add(127, true, 0x7f00, () => new Structure());

  checkProcessors(facts);
  const files = options.files.map(file => file.bytes);
  const tables = concat(...files, ...built);
  if (facts.entryPoint === '32' && tables.length > MAX_TABLES_21) {
    throw new SouthbridgeError('ERR_SMBIOS', `SMBIOS 2.1 table length ${tables.length} exceeds ${MAX_TABLES_21}`);
  }
  const count = files.length + built.length;
  const largest = Math.max(0, ...files.map(file => file.length), ...built.map(structure => structure.length));
  return {
    tables,
    anchor: facts.entryPoint === '32' ? entryPoint21(tables.length, largest, count) : entryPoint30(tables.length),
  };
}

function checkProcessors(facts: SmbiosFacts): void {
  const supplied = facts.options.files.filter(file => file.type === 4).length;
  if (supplied > 0 && supplied !== facts.sockets) {
    throw new SouthbridgeError('ERR_SMBIOS', `Expected ${facts.sockets} SMBIOS Type 4 tables, got ${supplied} instead`);
  }
}

// 5.2 Entry points. The firmware fills in the address and the checksums.

function entryPoint21(length: number, largest: number, count: number): Uint8Array {
  return concat(
    Buffer.from('_SM_', 'latin1'),
    [0, 31, 2, 8],
    u16(largest),
    new Uint8Array(6),
    Buffer.from('_DMI_', 'latin1'),
    [0],
    u16(length),
    u32(0),
    u16(count),
    [0x28],
  );
}

function entryPoint30(length: number): Uint8Array {
  return concat(Buffer.from('_SM3_', 'latin1'), [0, 24, 3, 0, 0, 1, 0], u32(length), u64(0));
}

// 7.1 BIOS Information

function biosInformation(options: SmbiosOptions): Structure {
  const fields = options.fields(0);
  const release = /^\s*([0-9]+)\.([0-9]+)/.exec(fields['release'] ?? '');
  const characteristics = options.boolean(fields, 'uefi') ? 0x1c : 0x14;
  return new Structure()
    .text(fields['vendor'])
    .text(fields['version'])
    .add(u16(0xe800))
    .text(fields['date'])
    .add(u8(0), u64(1 << 3), u8(0), u8(characteristics))
    .add(u8(Number(release?.[1] ?? 0) & 0xff), u8(Number(release?.[2] ?? 0) & 0xff), u8(0xff), u8(0xff));
}

// 7.2 System Information

function systemInformation(facts: SmbiosFacts): Structure {
  const fields = facts.options.fields(1);
  const uuid = fields['uuid'] ?? facts.uuid;
  return new Structure()
    .text(fields['manufacturer'] ?? facts.defaults?.manufacturer)
    .text(fields['product'] ?? facts.defaults?.product)
    .text(fields['version'] ?? facts.defaults?.version)
    .text(fields['serial'])
    .add(uuid === undefined ? new Uint8Array(16) : uuidBytes(uuid), u8(0x06))
    .text(fields['sku'])
    .text(fields['family']);
}

// 7.3 Baseboard

function baseboard(facts: SmbiosFacts): Structure {
  const fields = facts.options.fields(2);
  return new Structure()
    .text(fields['manufacturer'] ?? facts.defaults?.manufacturer)
    .text(fields['product'] ?? facts.defaults?.product)
    .text(fields['version'] ?? facts.defaults?.version)
    .text(fields['serial'])
    .text(fields['asset'])
    .add(u8(0x01))
    .text(fields['location'])
    .add(u16(ENCLOSURE_HANDLE), u8(0x0a), u8(0));
}

// 7.4 System Enclosure

function enclosure(facts: SmbiosFacts): Structure {
  const fields = facts.options.fields(3);
  const safe = u8(0x03);
  return new Structure()
    .text(fields['manufacturer'] ?? facts.defaults?.manufacturer)
    .add(u8(0x01))
    .text(fields['version'] ?? facts.defaults?.version)
    .text(fields['serial'])
    .text(fields['asset'])
    .add(safe, safe, safe, u8(0x02), u32(0), u8(0), u8(0), u8(0), u8(0))
    .text(fields['sku']);
}

// 7.5 Processor Information

function processor(facts: SmbiosFacts, socket: number): Structure {
  const { options } = facts;
  const fields = options.fields(4);
  const id = options.bigint(fields, 'processor-id');
  const prefix = fields['sock_pfx'] ?? 'CPU';
  const cores = Math.min(facts.coresPerSocket, 0xff);
  const structure = new Structure()
    .text(`${prefix}${socket.toString(16).padStart(2)}`)
    .add(u8(0x03), u8(0x01))
    .text(fields['manufacturer'] ?? facts.defaults?.manufacturer)
    .add(id === 0n ? concat(u32(facts.cpuid.version), u32(facts.cpuid.features)) : u64(id))
    .text(fields['version'] ?? facts.defaults?.version)
    .add(u8(0), u16(0))
    .add(u16(options.number(fields, 'max-speed', DEFAULT_SPEED_MHZ)))
    .add(u16(options.number(fields, 'current-speed', DEFAULT_SPEED_MHZ)))
    .add(u8(0x41), u8(0x01), u16(NO_CACHE), u16(NO_CACHE), u16(NO_CACHE))
    .text(fields['serial'])
    .text(fields['asset'])
    .text(fields['part'])
    .add(u8(cores), u8(cores), u8(Math.min(facts.threadsPerSocket, 0xff)), u16(0x02), u16(0x01));
  if (facts.entryPoint === '64') {
    structure.add(u16(facts.coresPerSocket), u16(facts.coresPerSocket), u16(facts.threadsPerSocket));
  }
  return structure;
}

// 7.17 Physical Memory Array

function memoryArray(ramSize: number, dimms: number): Structure {
  const kib = Math.ceil(ramSize / KIB);
  const extended = kib >= 0x8000_0000;
  return new Structure().add(
    u8(0x01),
    u8(0x03),
    u8(0x06),
    u32(extended ? 0x8000_0000 : kib),
    u16(NO_ERROR_HANDLE),
    u16(dimms),
    u64(extended ? ramSize : 0),
  );
}

// 7.18 Memory Device

function memoryDevice(facts: SmbiosFacts, dimm: number, size: number): Structure {
  const fields = facts.options.fields(17);
  const mib = Math.ceil(size / MIB);
  const extended = mib >= 0x7fff;
  const speed = u16(facts.options.number(fields, 'speed', 0) & 0xffff);
  return new Structure()
    .add(u16(ARRAY_HANDLE), u16(NO_ERROR_HANDLE), u16(UNKNOWN_WIDTH), u16(UNKNOWN_WIDTH))
    .add(u16(extended ? 0x7fff : mib), u8(0x09), u8(0))
    .text(`${fields['loc_pfx'] ?? 'DIMM'} ${dimm}`)
    .text(fields['bank'])
    .add(u8(0x07), u16(0x02), speed)
    .text(fields['manufacturer'] ?? facts.defaults?.manufacturer)
    .text(fields['serial'])
    .text(fields['asset'])
    .text(fields['part'])
    .add(u8(0), u32(extended ? mib : 0), speed, u16(0), u16(0), u16(0));
}

// 7.20 Memory Array Mapped Address

function mappedAddress(range: { readonly base: number; readonly length: number }): Structure {
  const end = range.base + range.length - 1;
  const endKib = Math.floor(end / KIB);
  const extended = endKib >= 0xffff_ffff;
  return new Structure().add(
    u32(extended ? 0xffff_ffff : Math.floor(range.base / KIB)),
    u32(extended ? 0xffff_ffff : endKib),
    u16(ARRAY_HANDLE),
    u8(1),
    u64(extended ? range.base : 0),
    u64(extended ? end : 0),
  );
}

// 7.39 IPMI Device Information

const IPMI_2_0 = 0x20;
const IO_SPACE = 1;
const LEVEL = 1;

function ipmiDevice({ kind, base, slaveAddress, irq }: SmbiosIpmi): Structure {
  const address = kind === 'ssif' ? base << 1 : base | IO_SPACE;
  return new Structure().add(
    u8(IPMI_INTERFACE_TYPES[kind]),
    u8(IPMI_2_0),
    u8(slaveAddress),
    u8(0),
    u64(address),
    u8(LEVEL),
    u8(irq),
  );
}

// 7.42 Onboard Devices Extended Information

const ENABLED = 0x80;

function onboardDevice(facts: SmbiosFacts, fields: Readonly<Record<string, string>>): Structure {
  const { options } = facts;
  const id = fields['pcidev'];
  const place = id === undefined ? undefined : facts.findPci?.(id);
  if (id !== undefined && place === undefined) {
    const entry = fields['designation'] ?? '(null)';
    throw new SouthbridgeError('ERR_SMBIOS', `No PCI device ${id} for SMBIOS type 41 entry ${entry}`);
  }
  return new Structure()
    .text(fields['designation'])
    .add(
      u8((ONBOARD_KINDS.indexOf(fields['kind'] ?? 'other') + 1) | ENABLED),
      u8(options.number(fields, 'instance', 1) & 0xff),
    )
    .add(u16(0), u8(place?.bus ?? 0), u8(place?.devfn ?? 0));
}
