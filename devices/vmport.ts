import type { AccessRegisters } from '../core/accel/accelerator.ts';
import { IsaDevice } from '../core/bus/isa.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';

/** Facts are those of open-vm-tools (backdoor_def.h) and of QEMU's device. */
const PORT = 0x5658;
const MAGIC = 0x564d_5868;
const RAM_SIZE_MAGIC = 0x1177;
const UNSUPPORTED = 0xffff_ffff;
const VCPU_INFO_LEGACY_X2APIC = 1 << 3;

const COMMAND = {
  GET_VERSION: 10,
  GET_BIOS_UUID: 19,
  GET_RAM_SIZE: 20,
  GET_HZ: 45,
  GET_VCPU_INFO: 68,
} as const;

/** What a command finds in the CPU's registers, and leaves there. */
export interface VmwareRegisters {
  eax: number;
  ebx: number;
  ecx: number;
  edx: number;
  esi: number;
  edi: number;
}

const NAMES = ['eax', 'ebx', 'ecx', 'edx', 'esi', 'edi'] as const satisfies readonly (keyof VmwareRegisters)[];

/** Where each is among the general registers. */
const ENCODING = { eax: 0, ecx: 1, edx: 2, ebx: 3, esi: 6, edi: 7 } as const satisfies Readonly<
  Record<keyof VmwareRegisters, number>
>;
const GENERAL_REGISTERS = 8;

/** Does one command. What is in EAX afterwards is the answer. */
type Command = (registers: VmwareRegisters) => void;

const properties = {
  'x-read-set-eax': prop.bool({ default: true }),
  'x-signal-unsupported-cmd': prop.bool({ default: true, help: 'answer unknown commands with ones' }),
  'x-report-vmx-type': prop.bool({ default: true }),
  'x-cmds-v2': prop.bool({ default: true, help: 'whether there are the commands for UUID, frequency and CPU' }),
  'vmware-vmx-version': prop.u32({ default: 6 }),
  'vmware-vmx-type': prop.u8({ default: 2, help: 'product that the guest is told of: 2 for ESX Server' }),
};

/** What the machine tells of itself through the port. */
interface VmwareHost {
  /** 16 bytes, as in SMBIOS. */
  readonly uuid: Uint8Array;
  readonly hasX2apic: () => boolean;
}

/** VMware's port: a guest puts a command into its registers, reads the port, and finds the answer in its registers. */
class VmPort extends IsaDevice<typeof properties> {
  /** Wired by the machine. */
  host: VmwareHost = { uuid: new Uint8Array(16), hasX2apic: () => false };
  readonly #commands = new Map<number, Command>();
  readonly #general = new Uint32Array(GENERAL_REGISTERS);
  readonly #registers: VmwareRegisters = { eax: 0, ebx: 0, ecx: 0, edx: 0, esi: 0, edi: 0 };

  protected override realize(): void {
    this.ports(PORT, 1, { read: () => this.#read(), write: () => this.#write() }, { impl: { min: 4, max: 4 } });
    this.command(COMMAND.GET_VERSION, registers => this.#version(registers));
    this.command(COMMAND.GET_RAM_SIZE, registers => {
      registers.ebx = RAM_SIZE_MAGIC;
      registers.eax = this.services.ramSize >>> 0;
    });
    if (!this.props['x-cmds-v2']) return;
    this.command(COMMAND.GET_BIOS_UUID, registers => this.#uuid(registers));
    // The frequencies are not known for certain; EBX says so.
    this.command(COMMAND.GET_HZ, registers => {
      registers.ebx = UNSUPPORTED;
    });
    this.command(COMMAND.GET_VCPU_INFO, registers => {
      registers.eax = this.host.hasX2apic() ? VCPU_INFO_LEGACY_X2APIC : 0;
    });
  }

  /** What `number` in CX does from now on. */
  command(number: number, action: Command): void {
    this.#commands.set(number, action);
  }

  #read(): number {
    const access = this.services.accessRegisters?.();
    return access === undefined ? UNSUPPORTED : this.#answer(access);
  }

  #write(): void {
    const access = this.services.accessRegisters?.();
    if (access === undefined) return;
    const eax = this.#answer(access);
    access.read(this.#general);
    this.#general[ENCODING.eax] = eax;
    access.write(this.#general);
  }

  /** @returns what a read of the port gives, which the CPU puts into EAX */
  #answer(access: AccessRegisters): number {
    const general = this.#general;
    const registers = this.#registers;
    access.read(general);
    for (const name of NAMES) registers[name] = general[ENCODING[name]] ?? 0;
    const unsupported = this.props['x-signal-unsupported-cmd'] ? UNSUPPORTED : registers.eax;
    if (registers.eax !== MAGIC) return unsupported;
    const command = this.#commands.get(registers.ecx & 0xff);
    if (command === undefined) {
      this.log.unimplemented(`command ${registers.ecx & 0xff} is not known`);
      return unsupported;
    }
    command(registers);
    for (const name of NAMES) general[ENCODING[name]] = registers[name];
    access.write(general);
    return registers.eax;
  }

  #version(registers: VmwareRegisters): void {
    registers.ebx = MAGIC;
    if (this.props['x-report-vmx-type']) registers.ecx = this.props['vmware-vmx-type'];
    registers.eax = this.props['vmware-vmx-version'];
  }

  #uuid(registers: VmwareRegisters): void {
    const { buffer, byteOffset } = this.host.uuid;
    const words = new DataView(buffer, byteOffset, 16);
    registers.eax = words.getUint32(0, true);
    registers.ebx = words.getUint32(4, true);
    registers.ecx = words.getUint32(8, true);
    registers.edx = words.getUint32(12, true);
  }
}

export type { VmPort };

export const vmport = deviceType({
  type: 'vmport',
  summary: "VMware's port, by which guests ask the hypervisor",
  bus: 'ISA',
  parents: ['isa-device', 'device'],
  userCreatable: false,
  properties,
  create: VmPort,
});
