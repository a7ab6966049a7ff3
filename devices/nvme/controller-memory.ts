import { SouthbridgeError } from '../../core/errors.ts';
import { SharedRam } from '../../core/memory/guest-ram.ts';
import type { MemoryBackend } from '../../core/memory/memory-backend.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import type { RegisterBank } from '../../core/register/register.ts';
import type { Aperture } from './memory.ts';
import type { nvmeRegisters } from './registers.ts';

type Registers = RegisterBank<typeof nvmeRegisters>['regs'];

export const CMB_BAR = 2;
export const PMR_BAR = 4;
const MIB = 2 ** 20;
/** A base address register decodes no less. */
const MIN_BAR = 16;
/** Bits of CMBMSC and PMRMSCL. */
const CRE = 1n;
const CMSE = 2n;
const ADDRESS = ~0xfffn & 0xffff_ffff_ffff_ffffn;
/** CMBLOC: in BAR 2, for data pointers and lists of any kind (NVMe 1.4, section 3.1.11). */
const CMBLOC = CMB_BAR | (1 << 5) | (1 << 6);
/** CMBSZ: submission queues, lists, reads and writes; in units of 1 MiB (section 3.1.12). */
const CMBSZ = 0b1_1101 | (2 << 8);

/** Memory in a base address register, which commands may also see at an address of the host's choice. */
interface Exposed extends Aperture {
  readonly region: MemoryRegion;
}

function expose(name: string, size: number): Exposed {
  const ram = new SharedRam(name, size);
  const region = MemoryRegion.container(`${name}-bar`, Math.max(size, MIN_BAR));
  region.add(MemoryRegion.ram(ram), 0);
  return { ram, region, base: undefined };
}

/** The controller memory buffer (NVMe 1.4, section 4.7). */
export class ControllerMemoryBuffer {
  readonly exposed: Exposed;
  readonly #legacy: boolean;
  readonly #megabytes: number;

  constructor(megabytes: number, legacy: boolean) {
    this.exposed = expose('nvme-cmb', megabytes * MIB);
    this.#megabytes = megabytes;
    this.#legacy = legacy;
  }

  /** After the host, a reset or a restore has changed CMBMSC. */
  update(regs: Registers): void {
    const control = regs.CMBMSC.value;
    const capable = (control & CRE) !== 0n;
    const enabled = capable || this.#legacy;
    regs.CMBLOC.value = enabled ? CMBLOC : 0;
    regs.CMBSZ.value = enabled ? (CMBSZ | (this.#megabytes << 12)) >>> 0 : 0;
    const base = control & ADDRESS;
    const fits = base + BigInt(this.exposed.ram.size) <= ADDRESS;
    const mapped = capable && (control & CMSE) !== 0n;
    regs.CMBSTS.CBAI = mapped && !fits;
    this.exposed.base = mapped && fits ? Number(base) : undefined;
  }
}

/** The persistent memory region (section 4.8), which lasts as long as its backend: with a shared file for good. */
export class PersistentMemoryRegion {
  readonly exposed: Exposed;
  readonly #contents: MemoryRegion;

  /** @throws SouthbridgeError ERR_PROPERTY_VALUE, in QEMU's words */
  constructor(backend: MemoryBackend) {
    const { id, size, mapped } = backend;
    if (mapped) throw new SouthbridgeError('ERR_PROPERTY_VALUE', `can't use already busy memdev: ${id}`);
    if (!Number.isInteger(Math.log2(size))) {
      throw new SouthbridgeError('ERR_PROPERTY_VALUE', 'pmr backend size needs to be power of 2 in size');
    }
    const [ram, more] = backend.contents();
    if (ram === undefined || more !== undefined)
      throw new SouthbridgeError('ERR_PROPERTY_VALUE', `the memory of '${id}' is too large`, 'at most 4 GiB');
    this.#contents = MemoryRegion.ram(ram);
    const region = MemoryRegion.container('nvme-pmr-bar', Math.max(size, MIN_BAR));
    region.add(this.#contents, 0);
    this.exposed = { ram, region, base: undefined };
  }

  declare(regs: Registers): void {
    const { PMRCAP } = regs;
    PMRCAP.RDS = true;
    PMRCAP.WDS = true;
    PMRCAP.BIR = PMR_BAR;
    PMRCAP.PMRWBM = 2;
    PMRCAP.CMSS = true;
  }

  /** After PMRCTL or the address has changed. */
  update(regs: Registers): void {
    const enabled = regs.PMRCTL.EN;
    this.#contents.setEnabled(enabled);
    regs.PMRSTS.NRDY = !enabled;
    const base = (BigInt(regs.PMRMSCU.value) << 32n) | (BigInt(regs.PMRMSCL.value) & ADDRESS);
    const fits = base + BigInt(this.exposed.ram.size) <= ADDRESS;
    const mapped = enabled && (BigInt(regs.PMRMSCL.value) & CMSE) !== 0n;
    regs.PMRSTS.CBAI = mapped && !fits;
    this.exposed.base = mapped && fits ? Number(base) : undefined;
  }
}
