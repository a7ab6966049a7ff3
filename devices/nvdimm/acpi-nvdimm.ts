/**
 * What persistent memory answers to its ACPI methods (QEMU docs/specs/acpi_nvdimm): the guest's method puts a call into a page of
 * memory and writes the page's address to a port, and finds the answer in the page. The calls of modules are those of Intel's
 * "NVDIMM DSM Interface", revision 1.2.
 */
import { type MemoryBus, type MemoryDevice, type MemoryHotplugController, refused } from '../../core/bus/memory-bus.ts';
import { type NvdimmFacts, type NvdimmPersistence, nfitStructures, nvdimmHandle } from '../../core/firmware/nfit.ts';
import {
  LABEL_FUNCTION,
  NVDIMM_ANSWER,
  NVDIMM_CALL,
  NVDIMM_PAGE_SIZE,
  NVDIMM_PORT,
  NVDIMM_PORT_SIZE,
  NVDIMM_STATUS,
  READ_FIT,
} from '../../core/firmware/ssdt-nvdimm.ts';
import type { AddressSpace } from '../../core/memory/address-space.ts';
import { Dma } from '../../core/memory/dma.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import { Nvdimm } from './nvdimm.ts';

const REVISION = 1;
const ROOT_HANDLE = 0;
const QUERY = 0;

/** What follows an answer's length: its status, and then what was asked for. */
const STATUS = NVDIMM_ANSWER.DATA;
const PAYLOAD = STATUS + 4;
const MAX_PAYLOAD = NVDIMM_PAGE_SIZE - PAYLOAD;
/** 3.4 to 3.6: the argument of label calls, and what of labels fits into a page both ways. */
const LABEL = {
  OFFSET: NVDIMM_CALL.ARGUMENT,
  LENGTH: NVDIMM_CALL.ARGUMENT + 4,
  DATA: NVDIMM_CALL.ARGUMENT + 8,
} as const;
const MAX_LABEL_TRANSFER = Math.min(MAX_PAYLOAD, NVDIMM_PAGE_SIZE - LABEL.DATA);

export const acpiNvdimmState = {
  /** A module has come since the guest began to read the table. */
  changed: field.bool(),
};

export class AcpiNvdimm implements MemoryHotplugController {
  readonly #s: StateValues<typeof acpiNvdimmState>;
  readonly #raise: () => void;
  readonly #page = new Uint8Array(NVDIMM_PAGE_SIZE);
  readonly #view = new DataView(this.#page.buffer);
  #bus: MemoryBus | undefined;
  #persistence: NvdimmPersistence | undefined;

  /** @param raise raises the general-purpose event */
  constructor(state: StateValues<typeof acpiNvdimmState>, raise: () => void) {
    this.#s = state;
    this.#raise = raise;
  }

  /** Takes over the persistent modules of `bus`; from then on there may be some. */
  wire(bus: MemoryBus, io: MemoryRegion, memory: AddressSpace, persistence: NvdimmPersistence | undefined): void {
    const dma = new Dma(memory);
    this.#bus = bus;
    this.#persistence = persistence;
    bus.controllers.set('nvdimm', this);
    const handler = {
      read: () => 0,
      write: (_offset: number, _size: number, address: number) => this.#call(dma, address >>> 0),
    };
    const sizes = { min: NVDIMM_PORT_SIZE, max: NVDIMM_PORT_SIZE } as const;
    io.add(MemoryRegion.io('nvdimm-acpi-io', NVDIMM_PORT_SIZE, handler, { valid: sizes, impl: sizes }), NVDIMM_PORT);
  }

  plugged(): void {
    this.#s.changed = true;
    this.#raise();
  }

  requestUnplug(_module: MemoryDevice, _done: () => void): never {
    throw refused('nvdimm device hot unplug is not supported yet.');
  }

  /** The modules that are there, as the tables describe them. */
  get facts(): readonly NvdimmFacts[] {
    return this.#modules.map(({ slot, address, size, node, unarmed }) => ({
      slot,
      base: address,
      length: size,
      node,
      unarmed,
    }));
  }

  get #modules(): readonly Nvdimm[] {
    const modules = (this.#bus?.dimms ?? []).filter(device => device instanceof Nvdimm);
    return modules.sort((a, b) => a.slot - b.slot);
  }

  /** The page is copied once: the guest may write it meanwhile. */
  #call(dma: Dma, address: number): void {
    if (!dma.read(address, this.#page)) return;
    const length = this.#answer();
    this.#view.setUint32(NVDIMM_ANSWER.LENGTH, length, true);
    dma.write(address, this.#page, 0, length);
  }

  /** Puts the answer over the call. Returns its length in bytes. */
  #answer(): number {
    const handle = this.#view.getUint32(NVDIMM_CALL.HANDLE, true);
    const operation = this.#view.getUint32(NVDIMM_CALL.FUNCTION, true);
    if (this.#view.getUint32(NVDIMM_CALL.REVISION, true) !== REVISION) return this.#status(NVDIMM_STATUS.NOT_SUPPORTED);
    if (handle === READ_FIT.HANDLE) return this.#readFit(operation);
    if (handle === ROOT_HANDLE)
      return operation === QUERY ? this.#supported() : this.#status(NVDIMM_STATUS.NOT_SUPPORTED);
    const module = this.#modules.find(({ slot }) => nvdimmHandle(slot) === handle);
    const hasLabels = module !== undefined && module.labelSize > 0;
    if (operation === QUERY) return hasLabels ? this.#supported(...Object.values(LABEL_FUNCTION)) : this.#supported();
    if (module === undefined) return this.#status(NVDIMM_STATUS.NON_EXISTING_MEMORY_DEVICE);
    if (!hasLabels) return this.#status(NVDIMM_STATUS.NOT_SUPPORTED);
    switch (operation) {
      case LABEL_FUNCTION.SIZE:
        return this.#labelSize(module);
      case LABEL_FUNCTION.READ:
        return this.#readLabels(module);
      case LABEL_FUNCTION.WRITE:
        return this.#writeLabels(module);
      default:
        return this.#status(NVDIMM_STATUS.NOT_SUPPORTED);
    }
  }

  /** Function 0: a bit for each function that there is, and bit 0 where there is any. */
  #supported(...functions: readonly number[]): number {
    const any = functions.length > 0 ? 1 : 0;
    return this.#status(functions.reduce((bits, operation) => bits | (1 << operation), any));
  }

  #status(status: number): number {
    this.#view.setUint32(STATUS, status, true);
    return PAYLOAD;
  }

  #readFit(operation: number): number {
    if (operation === QUERY) return this.#supported(READ_FIT.FUNCTION);
    if (operation !== READ_FIT.FUNCTION) return this.#status(NVDIMM_STATUS.NOT_SUPPORTED);
    const offset = this.#view.getUint32(NVDIMM_CALL.ARGUMENT, true);
    const table = nfitStructures(this.facts, this.#persistence);
    if (offset > table.length) return this.#status(NVDIMM_STATUS.INVALID_INPUT);
    if (offset === 0) this.#s.changed = false;
    else if (this.#s.changed) return this.#status(NVDIMM_STATUS.FIT_CHANGED);
    const piece = table.subarray(offset, offset + MAX_PAYLOAD);
    this.#page.set(piece, PAYLOAD);
    return this.#status(NVDIMM_STATUS.SUCCESS) + piece.length;
  }

  /** 3.4 Get Namespace Label Data Size. */
  #labelSize({ labelSize }: Nvdimm): number {
    this.#view.setUint32(PAYLOAD, labelSize, true);
    this.#view.setUint32(PAYLOAD + 4, MAX_LABEL_TRANSFER, true);
    return this.#status(NVDIMM_STATUS.SUCCESS) + 8;
  }

  /** 3.5 Get Namespace Label Data. */
  #readLabels(module: Nvdimm): number {
    const offset = this.#view.getUint32(LABEL.OFFSET, true);
    const length = this.#view.getUint32(LABEL.LENGTH, true);
    if (!inLabels(module, offset, length)) return this.#status(NVDIMM_STATUS.INVALID_INPUT);
    module.readLabels(offset, this.#page, PAYLOAD, length);
    return this.#status(NVDIMM_STATUS.SUCCESS) + length;
  }

  /** 3.6 Set Namespace Label Data. */
  #writeLabels(module: Nvdimm): number {
    const offset = this.#view.getUint32(LABEL.OFFSET, true);
    const length = this.#view.getUint32(LABEL.LENGTH, true);
    if (!inLabels(module, offset, length) || !module.writeLabels(offset, this.#page, LABEL.DATA, length))
      return this.#status(NVDIMM_STATUS.INVALID_INPUT);
    return this.#status(NVDIMM_STATUS.SUCCESS);
  }
}

function inLabels({ labelSize }: Nvdimm, offset: number, length: number): boolean {
  return length <= MAX_LABEL_TRANSFER && offset + length <= labelSize;
}
