import type { DeviceContext } from '../../core/device/device-type.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import type { MemoryBackend } from '../../core/memory/memory-backend.ts';
import type { CxlMemory } from '../../core/pci/cxl-host.ts';
import { DataObjectExchange, dataObjectState } from '../../core/pci/data-object-exchange.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import type { RegisterBank, Registers } from '../../core/register/register.ts';
import { type AttributeTable, memoryTable, tableAccess, tableFromFile } from './cdat.ts';
import { componentBlock, decoderHooks, HdmDecoder } from './component.ts';
import { COMPONENT_BLOCK_SIZE, memoryComponent } from './component-registers.ts';
import { DEVICE_BLOCK_SIZE, memoryDeviceRegisters } from './device-registers.ts';
import { COMPONENT_BAR, DEVICE_BAR, DvsecList } from './dvsec.ts';
import { Mailbox, mailboxState } from './mailbox.ts';

const SERIAL_AT = 0x100;
const SERIAL_SIZE = 0x0c;
const EXCHANGE_AT = 0x190;
const VECTORS = { vectors: 1, bar: 4 } as const;
const NO_SERIAL = 0xffff_ffff_ffff_ffffn;

const backend = (help: string) =>
  prop.backend<MemoryBackend>('memory-backend', { help, typeName: 'link<memory-backend>' });

const properties = {
  memdev: backend('id of the memory backend that is its memory'),
  lsa: backend('id of the memory backend that keeps its labels'),
  sn: prop.u64({ default: NO_SERIAL, help: 'serial number' }),
  cdat: prop.string({ help: 'file with the attributes of its memory' }),
} as const;

/** A memory expander whose contents are kept (CXL 2.0, section 2.3): memory that is reached through decoders, and a mailbox. */
export class CxlType3 extends PciDevice<typeof properties> implements CxlMemory {
  readonly #component: RegisterBank<typeof memoryComponent> = this.bank(
    memoryComponent,
    decoderHooks(() => this.#component.regs),
  );
  readonly #decoder = new HdmDecoder(this.#component.regs);
  readonly #regs: Registers<typeof memoryDeviceRegisters> = this.bind(memoryDeviceRegisters, {
    MAILBOX_CONTROL: { wrote: () => this.#rung() },
  });
  readonly #mailbox = new Mailbox(
    {
      payload: payloadOf(this.#regs),
      clock: this.clock,
      memory: () => this.props.memdev,
      labels: () => this.props.lsa,
    },
    this.state(1, mailboxState, { name: 'mailbox', onReset: 'keep' }),
  );
  readonly #exchange: DataObjectExchange;
  #table: AttributeTable | undefined;

  constructor(context: DeviceContext<typeof properties>) {
    super(context);
    const { config } = this;
    const { sn, memdev } = this.props;
    this.addMsix(VECTORS);
    if (sn !== NO_SERIAL) config.addSerialNumber(SERIAL_AT, [...bytesOf(sn)]);
    const dvsecs = new DvsecList(config, sn === NO_SERIAL ? SERIAL_AT : SERIAL_AT + SERIAL_SIZE);
    dvsecs
      .device(memdev?.size ?? 0)
      .registerLocator('component and device')
      .deviceFlush();
    this.#exchange = new DataObjectExchange(
      {
        ...{ config, at: EXCHANGE_AT, vector: 0, notify: vector => this.notify(vector) },
        protocols: [tableAccess(() => this.#table)],
      },
      this.state(1, dataObjectState, { name: 'exchange' }),
    );
    this.bar(COMPONENT_BAR, componentBlock(this.typeName, this.#component));
  }

  protected override realize(): void {
    const { memdev, lsa, cdat } = this.props;
    if (memdev === undefined) throw missing('memdev');
    if (memdev.mapped) throw busy(memdev);
    this.#take(memdev);
    if (lsa === undefined) throw missing('lsa');
    this.#take(lsa);
    this.#table = cdat === undefined ? memoryTable(memdev.size) : this.#tableFrom(cdat);
    const vectors = this.msix?.exclusiveBar(VECTORS);
    if (vectors !== undefined) this.bar(VECTORS.bar, vectors, { size: vectors.size });
  }

  /** Has snapshots hold what is in the backend, once where several have it. */
  #take(backend: MemoryBackend): void {
    if (!backend.mapped) for (const ram of backend.contents()) this.onUnrealize(this.services.guestRam(ram));
    this.onUnrealize(backend.claim());
  }

  #tableFrom(path: string): AttributeTable {
    return tableFromFile(path, message => this.log.guestError(message));
  }

  // Memory, by host physical address

  readMemory(address: number, size: number): number {
    return this.#access(address, size, 0, false);
  }

  writeMemory(address: number, size: number, value: number): void {
    this.#access(address, size, value, true);
  }

  #access(address: number, size: number, value: number, write: boolean): number {
    const { memdev } = this.props;
    let at = this.#decoder.deviceAddress(address);
    if (memdev === undefined || at < 0) return 0;
    for (const { view, size: here, readonly } of memdev.contents()) {
      if (at + size <= here) {
        if (!write)
          return size === 4 ? view.getUint32(at, true) : size === 2 ? view.getUint16(at, true) : view.getUint8(at);
        if (readonly) return 0;
        if (size === 4) view.setUint32(at, value, true);
        else if (size === 2) view.setUint16(at, value, true);
        else view.setUint8(at, value);
        return 0;
      }
      at -= here;
    }
    return 0;
  }

  // Mailbox

  /** 8.2.8.4: software rings once the command and its payload are there; the bell is silent when its answer is. */
  #rung(): void {
    const regs = this.#regs;
    if (!regs.MAILBOX_CONTROL.DOORBELL) return;
    const { COMMAND } = regs;
    const { code, length } = this.#mailbox.run(COMMAND.OPCODE, COMMAND.LENGTH + COMMAND.LENGTH_HIGH * 0x1_0000);
    COMMAND.OPCODE = 0;
    COMMAND.LENGTH = length;
    COMMAND.LENGTH_HIGH = 0;
    regs.MAILBOX_STATUS.low = 0;
    regs.MAILBOX_STATUS.high = code;
    regs.MAILBOX_CONTROL.DOORBELL = false;
  }

  // Data object exchange

  override configWrite(offset: number, size: number, value: number): void {
    super.configWrite(offset, size, value);
    if (!this.absent) this.#exchange.written(offset, size, value);
  }

  protected override resetHold(): void {
    this.#exchange.refresh();
  }

  protected override restored(): void {
    this.#exchange.refresh();
  }
}

/** The payload as bytes: the bank stores its words as the guest sees them. */
function payloadOf({ PAYLOAD }: Registers<typeof memoryDeviceRegisters>): Uint8Array {
  const { values } = PAYLOAD;
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

function* bytesOf(value: bigint): Generator<number> {
  for (let shift = 0n; shift < 64n; shift += 8n) yield Number((value >> shift) & 0xffn);
}

function missing(property: string): SouthbridgeError {
  return new SouthbridgeError(
    'ERR_PROPERTY_MISSING',
    `${property} property must be set`,
    `give ${property}= the id of an -object memory-backend-*`,
  );
}

function busy({ id }: MemoryBackend): SouthbridgeError {
  return new SouthbridgeError(
    'ERR_CXL',
    `can't use already busy memdev: ${id}`,
    'give each device a backend of its own',
  );
}

export const cxlType3 = deviceType({
  type: 'cxl-type3',
  summary: 'CXL PMEM Device (Type 3)',
  category: 'storage',
  properties,
  pci: {
    vendor: 0x8086,
    device: 0x0d93,
    revision: 1,
    class: 0x050210,
    express: 'endpoint',
    expressOnly: true,
    expressCapability: { version: 2, offset: 0x80 },
  },
  bars: {
    [COMPONENT_BAR]: { size: COMPONENT_BLOCK_SIZE, wide: true },
    [DEVICE_BAR]: { size: DEVICE_BLOCK_SIZE, wide: true, map: memoryDeviceRegisters },
  },
  create: CxlType3,
});
