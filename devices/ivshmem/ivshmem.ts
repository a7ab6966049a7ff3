import type { Chardev } from '../../core/char/chardev.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { type PropSet, prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import type { GuestRam } from '../../core/memory/guest-ram.ts';
import type { MemoryBackend } from '../../core/memory/memory-backend.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { bits, type Registers, r32, registerMap } from '../../core/register/register.ts';
import type { SavedRecord } from '../../core/state/fields.ts';
import { ServerLink } from './server-link.ts';

/** QEMU docs/specs/ivshmem-spec, "PCI device registers". */
export const ivshmemRegisters = registerMap('ivshmem', {
  INTRMASK: r32(0x00, {}, { doc: 'of use to revision 0 only' }),
  INTRSTATUS: r32(0x04, {}, { doc: 'of use to revision 0 only; reading clears' }),
  IVPOSITION: r32(0x08, {}, { access: 'ro', doc: "the device's number among its peers" }),
  DOORBELL: r32(0x0c, { VECTOR: bits(0, 16), PEER: bits(16, 16) }, { access: 'wo' }),
});

const REGISTER_BAR = 0;
const VECTOR_BAR = 1;
const MEMORY_BAR = 2;
const REGISTERS_SIZE = 0x100;

const identity = { vendor: 0x1af4, device: 0x1110, revision: 1, class: 0x050000 } as const;
const bars = {
  [REGISTER_BAR]: { size: REGISTERS_SIZE, map: ivshmemRegisters, access: { impl: { min: 4, max: 4 } } },
} as const;

const master = prop.onOffAuto({ default: 'off', help: 'whether the shared memory migrates with this machine' });
const properties = {
  master,
  memdev: prop.backend<MemoryBackend>('memory-backend', { help: 'id of the memory backend to share' }),
} as const;
const doorbellProperties = {
  master,
  chardev: prop.backend<Chardev>('chardev', { help: 'id of a chardev that leads to an ivshmem server' }),
  vectors: prop.u32({ default: 1, help: 'interrupts that peers can raise' }),
  ioeventfd: prop.bit({ default: true }),
} as const;

const MAX_VECTORS = 2048;

function refused(message: string, hint?: string): SouthbridgeError {
  return new SouthbridgeError('ERR_IVSHMEM', message, hint);
}

/** Memory that several machines share. */
abstract class Ivshmem<S extends PropSet> extends PciDevice<S> {
  readonly #regs: Registers<typeof ivshmemRegisters> = this.bind(ivshmemRegisters, {
    INTRSTATUS: {
      read: status => {
        this.#regs.INTRSTATUS.value = 0;
        return status;
      },
    },
    IVPOSITION: { read: () => this.position },
    DOORBELL: { wrote: value => this.ring(value >>> 16, value & 0xffff) },
  });

  /** Whether the memory goes where the machine goes. */
  protected abstract readonly isMaster: boolean;

  protected get position(): number {
    return 0;
  }

  protected ring(_peer: number, _vector: number): void {}

  /** Shows the memory to the guest. */
  protected share(ram: GuestRam): void {
    if (ram.size < 16 || !Number.isInteger(Math.log2(ram.size)))
      throw refused(`shared memory of ${ram.size} bytes cannot be in a BAR`, 'a power of two can');
    this.bar(MEMORY_BAR, MemoryRegion.ram(ram), { size: ram.size, wide: true, prefetchable: true });
    this.onUnrealize(this.services.guestRam(ram));
  }

  /** Memory that others go on to use cannot be put back as it was. */
  override save(): SavedRecord {
    if (!this.isMaster)
      throw refused(
        "Migration is disabled when using feature 'peer mode' in device 'ivshmem'",
        'master=on where this machine is to take the memory along',
      );
    return super.save();
  }
}

/** Shared memory and nothing else. */
class IvshmemPlain extends Ivshmem<typeof properties> {
  protected override readonly isMaster = this.props.master !== 'off';

  protected override realize(): void {
    const { memdev } = this.props;
    if (memdev === undefined) throw refused("You must specify a 'memdev'");
    if (memdev.mapped) throw refused(`can't use already busy memdev: ${memdev.id}`);
    const [ram, more] = memdev.contents();
    if (ram === undefined || more !== undefined) throw refused(`'${memdev.id}' is too large to share`, 'at most 4 GiB');
    this.onUnrealize(memdev.claim());
    this.share(ram);
  }
}

/** Shared memory with interrupts from one machine to another, which a server introduces. */
class IvshmemDoorbell extends Ivshmem<typeof doorbellProperties> {
  #link: ServerLink | undefined;

  /** The first of the peers, where nobody says who. */
  protected override get isMaster(): boolean {
    const { master } = this.props;
    return master === 'on' || (master === 'auto' && this.position === 0);
  }

  protected override get position(): number {
    return this.#link?.id ?? 0;
  }

  protected override ring(peer: number, vector: number): void {
    this.#link?.ring(peer, vector & 0xff);
  }

  protected override realize(): void {
    const { chardev, vectors, master } = this.props;
    if (chardev === undefined) throw refused("You must specify a 'chardev'");
    if (vectors < 1 || vectors > MAX_VECTORS) throw refused(`${vectors} vectors are not 1 to ${MAX_VECTORS}`);
    const link = new ServerLink(chardev, {
      vectors,
      rung: vector => this.msix?.notify(vector),
      complain: what => this.log.guestError(what),
    });
    this.#link = link;
    this.onUnrealize(() => link.close());
    if (master === 'on' && link.id !== 0) throw refused('master must connect to the server before any peers');
    const declaration = { vectors, bar: VECTOR_BAR };
    const contents = this.addMsix(declaration).exclusiveBar(declaration);
    this.bar(VECTOR_BAR, contents, { size: contents.size });
    this.share(link.ram);
  }
}

export const ivshmemPlain = deviceType({
  type: 'ivshmem-plain',
  summary: 'Inter-VM shared memory',
  parents: ['ivshmem-common', 'pci-device', 'device'],
  properties,
  pci: identity,
  bars,
  create: IvshmemPlain,
});

export const ivshmemDoorbell = deviceType({
  type: 'ivshmem-doorbell',
  summary: 'Inter-VM shared memory',
  parents: ['ivshmem-common', 'pci-device', 'device'],
  properties: doorbellProperties,
  pci: identity,
  bars,
  create: IvshmemDoorbell,
});
