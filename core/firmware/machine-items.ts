/** The items and files by which an x86 machine describes itself to its firmware. */
import { SouthbridgeError } from '../errors.ts';
import { concat, u16, u32, u64 } from './aml.ts';
import {
  BIOS_GEOMETRY_FILE,
  type BiosGeometry,
  BOOT_ORDER_FILE,
  type BootDevice,
  biosGeometryFile,
  bootOrderFile,
} from './boot-order.ts';
import { E820_FILE, type E820Entry, e820File } from './e820.ts';
import { FW_CFG_KEYS, type FwCfg } from './fw-cfg.ts';

export interface BootConfig {
  /** `menu=on`. */
  readonly menu?: boolean;
  /** `splash-time`, in milliseconds. */
  readonly splashTimeMs?: number;
  /** `reboot-timeout`, in milliseconds; -1 never reboots. */
  readonly rebootTimeoutMs?: number;
  /** The picture that `splash` names. */
  readonly splash?: Uint8Array;
}

export interface MachineItemFacts {
  readonly uuid?: string;
  readonly ramSize: number;
  readonly graphics: boolean;
  /** CPUs that are there at power-on. */
  readonly cpus: number;
  readonly boot: BootConfig;
}

/** The 16 bytes of a machine's UUID in the order in which it is written; zeros for a machine that has none. */
export function uuidOctets(uuid: string | undefined): Uint8Array {
  return uuid === undefined ? new Uint8Array(16) : Uint8Array.from(Buffer.from(uuid.replaceAll('-', ''), 'hex'));
}

/** What every machine with fw_cfg has. @throws SouthbridgeError ERR_BOOT_OPTION for times that do not fit */
export function addCommonItems(fwCfg: FwCfg, facts: MachineItemFacts): void {
  fwCfg.setItem(FW_CFG_KEYS.UUID, uuidOctets(facts.uuid));
  fwCfg.setNumber(FW_CFG_KEYS.NOGRAPHIC, facts.graphics ? 0 : 1, 2);
  fwCfg.setNumber(FW_CFG_KEYS.BOOT_MENU, facts.boot.menu === true ? 1 : 0, 2);
  fwCfg.setNumber(FW_CFG_KEYS.NB_CPUS, facts.cpus, 2);
  fwCfg.setNumber(FW_CFG_KEYS.RAM_SIZE, facts.ramSize, 8);
  addBootFiles(fwCfg, facts.boot);
  fwCfg.addFile(BOOT_ORDER_FILE, new Uint8Array(0));
  fwCfg.addFile(BIOS_GEOMETRY_FILE, new Uint8Array(0));
}

function addBootFiles(fwCfg: FwCfg, boot: BootConfig): void {
  const { splashTimeMs, rebootTimeoutMs = -1, splash } = boot;
  if (splashTimeMs !== undefined) {
    if (splashTimeMs < 0 || splashTimeMs > 0xffff) {
      throw new SouthbridgeError('ERR_BOOT_OPTION', 'splash-time is invalid,it should be a value between 0 and 65535');
    }
    fwCfg.addFile('etc/boot-menu-wait', u16(splashTimeMs));
  }
  if (rebootTimeoutMs < -1 || rebootTimeoutMs > 0xffff) {
    throw new SouthbridgeError(
      'ERR_BOOT_OPTION',
      'reboot timeout is invalid,it should be a value between -1 and 65535',
    );
  }
  fwCfg.addFile('etc/boot-fail-wait', u32(rebootTimeoutMs >>> 0));
  const picture = splash === undefined ? undefined : pictureKind(splash);
  if (splash !== undefined && picture !== undefined) fwCfg.addFile(`bootsplash.${picture}`, splash);
}

/** SeaBIOS shows JPEG, and BMP with 24 bits per pixel. */
function pictureKind(bytes: Uint8Array): 'jpg' | 'bmp' | undefined {
  if (bytes.length < 30) return undefined;
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return 'jpg';
  const isBmp = bytes[0] === 0x42 && bytes[1] === 0x4d;
  return isBmp && (bytes[28] ?? 0) + (bytes[29] ?? 0) * 256 === 24 ? 'bmp' : undefined;
}

/** Renews what the user can change while the machine runs; called on each machine reset. */
export function refreshBootFiles(
  fwCfg: FwCfg,
  devices: readonly BootDevice[],
  strict: boolean,
  geometries: readonly BiosGeometry[],
): void {
  fwCfg.setFile(BOOT_ORDER_FILE, bootOrderFile(devices, strict));
  fwCfg.setFile(BIOS_GEOMETRY_FILE, biosGeometryFile(geometries));
}

export interface X86ItemFacts {
  /** One more than the highest APIC id that a CPU can have. */
  readonly apicIdLimit: number;
  readonly e820: readonly E820Entry[];
  /** NUMA: the node of each CPU by APIC id, and the bytes of each node. */
  readonly numa: {
    readonly cpus: readonly { readonly apicId: number; readonly node: number }[];
    readonly nodes: readonly number[];
  };
  /** Tables that the user supplied with `-acpitable`. */
  readonly userTables?: readonly Uint8Array[];
}

/** What x86 firmware asks for besides. */
export function addX86Items(fwCfg: FwCfg, facts: X86ItemFacts): void {
  fwCfg.setNumber(FW_CFG_KEYS.MAX_CPUS, facts.apicIdLimit, 2);
  fwCfg.setItem(FW_CFG_KEYS.NUMA, numaItem(facts));
  fwCfg.setNumber(FW_CFG_KEYS.IRQ0_OVERRIDE, 1, 4);
  fwCfg.setItem(FW_CFG_KEYS.ACPI_TABLES, userTablesItem(facts.userTables ?? []));
  setHpets(fwCfg, []);
  fwCfg.addFile(E820_FILE, e820File(facts.e820));
}

/** The number of nodes, the node of each possible APIC id, the bytes of each node. */
function numaItem(facts: X86ItemFacts): Uint8Array {
  const { cpus, nodes } = facts.numa;
  const words = new BigUint64Array(1 + facts.apicIdLimit + nodes.length);
  words[0] = BigInt(nodes.length);
  for (const cpu of cpus) words[1 + cpu.apicId] = BigInt(cpu.node);
  nodes.forEach((size, node) => {
    words[1 + facts.apicIdLimit + node] = BigInt(size);
  });
  return new Uint8Array(words.buffer);
}

/** A count and tables, each behind its length. */
function userTablesItem(tables: readonly Uint8Array[]): Uint8Array {
  if (tables.length === 0) return new Uint8Array(0);
  return concat(u16(tables.length), ...tables.flatMap(table => [u16(table.length), table]));
}

const MAX_HPETS = 8;
const HPET_ENTRY_SIZE = 15;

export interface HpetFacts {
  readonly blockId: number;
  readonly base: number;
  readonly minTick: number;
}

/** Tells of the HPETs: a count and room for eight of block id, base, minimum tick and page protection. */
export function setHpets(fwCfg: FwCfg, hpets: readonly HpetFacts[]): void {
  const entries = hpets.map(hpet => concat(u32(hpet.blockId), u64(hpet.base), u16(hpet.minTick), [0]));
  const item = new Uint8Array(1 + MAX_HPETS * HPET_ENTRY_SIZE);
  item.set(concat([hpets.length], ...entries.slice(0, MAX_HPETS)));
  fwCfg.setItem(FW_CFG_KEYS.HPET, item);
}

export const SYSTEM_STATES_FILE = 'etc/system-states';

/** Which sleep states there are: bit 7, with the value that puts the machine into it. */
export function systemStatesFile(sleep: {
  readonly s3: boolean;
  readonly s4: boolean;
  readonly s4Value: number;
}): Uint8Array {
  const enabled = 0x80;
  return Uint8Array.of(enabled, 0, 0, (sleep.s3 ? enabled : 0) | 1, (sleep.s4 ? enabled : 0) | sleep.s4Value, enabled);
}
