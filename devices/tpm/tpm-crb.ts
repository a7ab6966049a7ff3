/** TPM 2.0 behind a command and response buffer (TCG PC Client Platform TPM Profile for TPM 2.0 1.03, section 5.6). */

import { Device } from '../../core/device/device.ts';
import { type DeviceContext, deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { SystemBus } from '../../core/device/system-bus.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { bit, bits, type Registers, r32, registerMap } from '../../core/register/register.ts';
import { field, type SavedRecord } from '../../core/state/fields.ts';
import { messageSize, type TpmBackend } from '../../core/tpm/backend.ts';
import { AttachedTpm, TPM_BASE, tpmStateFields } from './attached-tpm.ts';
import { PPI_BASE, PresenceMemory, presenceFields } from './presence-memory.ts';
import { smallMemory } from './small-memory.ts';

const REGISTERS_SIZE = 0x80;
/** The rest of the page. */
const BUFFER_SIZE = 0x1000 - REGISTERS_SIZE;
const BUFFER_ADDRESS = TPM_BASE + REGISTERS_SIZE;
const LOCALITY_0 = 0;
const VENDOR_IBM = 0x1014;

const LOC_CTRL = { REQUEST_ACCESS: 1 << 0, RELINQUISH: 1 << 1 } as const;
const CTRL_REQ = { CMD_READY: 1 << 0, GO_IDLE: 1 << 1 } as const;
const INVOKE = 1;

/** Of the one locality that there is, 0. */
export const tpmCrbRegisters = registerMap('tpm-crb', {
  LOC_STATE: r32(
    0x00,
    { TPM_ESTABLISHED: bit(0), LOC_ASSIGNED: bit(1), ACTIVE_LOCALITY: bits(2, 3), TPM_REG_VALID_STS: bit(7) },
    { access: 'ro', reset: 0x80, doc: 'TPM_ESTABLISHED is low once there was a dynamic launch' },
  ),
  LOC_CTRL: r32(0x08, {}, { access: 'wo' }),
  LOC_STS: r32(0x0c, { GRANTED: bit(0), BEEN_SEIZED: bit(1) }, { access: 'ro' }),
  INTF_ID: r32(
    0x30,
    {
      INTERFACE_TYPE: bits(0, 4),
      INTERFACE_VERSION: bits(4, 4),
      CAP_LOCALITY: bit(8),
      CAP_CRB_IDLE_BYPASS: bit(9),
      CAP_DATA_XFER_SIZE_SUPPORT: bits(11, 2),
      CAP_FIFO: bit(13),
      CAP_CRB: bit(14),
      INTERFACE_SELECTOR: bits(17, 2),
      INTF_SEL_LOCK: bit(19),
      RID: bits(24, 8),
    },
    // CRB, version 1, active and the only one; one locality; transfers of 64 bytes.
    { access: 'ro', reset: 0x0002_5811 },
  ),
  INTF_ID2: r32(0x34, { VID: bits(0, 16), DID: bits(16, 16) }, { access: 'ro', reset: VENDOR_IBM }),
  CTRL_EXT: r32(0x38, {}, { access: 'ro' }),
  CTRL_REQ: r32(0x40, {}, { access: 'wo' }),
  CTRL_STS: r32(0x44, { TPM_STS: bit(0), TPM_IDLE: bit(1) }, { access: 'ro', reset: 0x2 }),
  CTRL_CANCEL: r32(0x48, {}, { access: 'wo' }),
  CTRL_START: r32(0x4c, { INVOKE: bit(0) }),
  INT_ENABLED: r32(0x50, {}, { access: 'ro' }),
  INT_STS: r32(0x54, {}, { access: 'ro' }),
  CTRL_CMD_SIZE: r32(0x58, {}, { access: 'ro', reset: BUFFER_SIZE }),
  CTRL_CMD_LADDR: r32(0x5c, {}, { access: 'ro', reset: BUFFER_ADDRESS }),
  CTRL_CMD_HADDR: r32(0x60, {}, { access: 'ro' }),
  CTRL_RSP_SIZE: r32(0x64, {}, { access: 'ro', reset: BUFFER_SIZE }),
  CTRL_RSP_ADDR: r32(0x68, {}, { access: 'ro', reset: BUFFER_ADDRESS }),
});

const properties = {
  tpmdev: prop.backend<TpmBackend>('tpmdev'),
  ppi: prop.bool({ default: true }),
} as const;

export class TpmCrb extends Device<typeof properties> {
  readonly model = 'tpm-crb';
  readonly #bank = this.bank(tpmCrbRegisters, {
    LOC_STATE: { read: stored => (stored | (this.props.tpmdev?.established === true ? 0 : 1)) >>> 0 },
    LOC_CTRL: { wrote: value => this.#control(value) },
    CTRL_REQ: { wrote: value => this.#request(value) },
    CTRL_CANCEL: { wrote: value => this.#cancel(value) },
    CTRL_START: {
      write: (value, previous) => previous | (value & INVOKE),
      wrote: (_, previous) => this.#start(previous),
    },
  });
  readonly #regs: Registers<typeof tpmCrbRegisters> = this.#bank.regs;
  /** Holds the command, and then the answer. */
  readonly #state = this.state(1, { buffer: field.bytes(BUFFER_SIZE) }, { onReset: 'keep' });
  readonly #presence = new PresenceMemory(this.state(1, presenceFields, { name: 'ppi', onReset: 'keep' }));
  readonly #tpm: AttachedTpm;
  readonly #bus: SystemBus;
  readonly #exchange = new Uint8Array(BUFFER_SIZE);
  /** Bytes of a command or an answer. */
  #messageMax = 0;
  /** Counts starts of the TPM: an answer to what was asked before one is nobody's. */
  #era = 0;

  constructor(context: DeviceContext<typeof properties>) {
    super(context);
    if (!(context.bus instanceof SystemBus)) {
      throw new SouthbridgeError('ERR_DEVICE_TYPE', `'${context.type.type}' goes onto the system bus`);
    }
    this.#bus = context.bus;
    const tpmState = this.state(1, tpmStateFields, { name: 'tpm' });
    this.#tpm = new AttachedTpm(this.props.tpmdev, this.services, tpmState);
  }

  protected override realize(): void {
    const { memory } = this.#bus;
    this.onUnrealize(this.#tpm.claim(this));
    const place = (base: number, region: MemoryRegion): void => {
      memory.add(region, base, 1);
      this.onUnrealize(() => memory.remove(region));
    };
    place(TPM_BASE, MemoryRegion.io('tpm-crb-mmio', REGISTERS_SIZE, this.#bank));
    place(
      BUFFER_ADDRESS,
      smallMemory('tpm-crb-cmd', BUFFER_SIZE, () => this.#state.buffer),
    );
    if (this.props.ppi) place(PPI_BASE, this.#presence.region);
  }

  protected override resetHold(): void {
    this.#era++;
    if (this.props.ppi) this.#presence.reset(this.#bus.dmaSpace);
    this.#messageMax = this.#tpm.startUp(BUFFER_SIZE);
  }

  override save(): SavedRecord {
    return this.#tpm.saving(() => super.save());
  }

  protected override restored(): void {
    this.#era++;
    this.#tpm.restored();
  }

  #control(value: number): void {
    const { LOC_STATE, LOC_STS } = this.#regs;
    if (value === LOC_CTRL.REQUEST_ACCESS) {
      LOC_STS.GRANTED = true;
      LOC_STS.BEEN_SEIZED = false;
      LOC_STATE.LOC_ASSIGNED = true;
    } else if (value === LOC_CTRL.RELINQUISH) {
      LOC_STS.GRANTED = false;
      LOC_STATE.LOC_ASSIGNED = false;
    }
  }

  #request(value: number): void {
    if (value === CTRL_REQ.CMD_READY) this.#regs.CTRL_STS.TPM_IDLE = false;
    else if (value === CTRL_REQ.GO_IDLE) this.#regs.CTRL_STS.TPM_IDLE = true;
  }

  #cancel(value: number): void {
    if (value === INVOKE && this.#regs.CTRL_START.INVOKE) this.props.tpmdev?.cancel();
  }

  #start(previous: number): void {
    const { CTRL_START, CTRL_STS, LOC_STATE } = this.#regs;
    if ((previous & INVOKE) !== 0 || !CTRL_START.INVOKE) return;
    if (!LOC_STATE.LOC_ASSIGNED || LOC_STATE.ACTIVE_LOCALITY !== LOCALITY_0) {
      CTRL_START.INVOKE = false;
      return;
    }
    const era = this.#era;
    this.#exchange.set(this.#state.buffer);
    const room = this.#exchange.subarray(0, this.#messageMax);
    const length = Math.min(messageSize(room), room.length);
    this.props.tpmdev?.deliver(LOCALITY_0, room, length, answered => {
      if (era !== this.#era) return;
      this.#state.buffer.set(room);
      CTRL_START.INVOKE = false;
      if (!answered) CTRL_STS.TPM_STS = true;
    });
  }
}

export const tpmCrb = deviceType({
  type: 'tpm-crb',
  summary: 'TPM 2.0 with a command and response buffer',
  category: 'misc',
  properties,
  hotpluggable: false,
  create: TpmCrb,
});
