import { IsaDevice } from '../core/bus/isa.ts';
import { deviceType } from '../core/device/device-type.ts';
import type { InputButton, InputEvent, InputHandler } from '../core/display/input.ts';
import { field } from '../core/state/fields.ts';
import type { Ps2Mouse } from './ps2-mouse.ts';
import type { VmPort, VmwareRegisters } from './vmport.ts';

/** Commands of {@link vmport} (Linux's vmmouse driver). */
const PORT_COMMAND = { DATA: 39, STATUS: 40, COMMAND: 41 } as const;
/** What is in EBX with COMMAND. */
const COMMAND = {
  DISABLE: 0xf5,
  READ_ID: 0x4541_4552,
  REQUEST_RELATIVE: 0x4c45_5252,
  REQUEST_ABSOLUTE: 0x5342_4152,
} as const;
const VERSION = 0x3442_554a;
const STATUS_DISABLED = 0xffff;

const QUEUE_WORDS = 1024;
const PACKET_WORDS = 4;
/** The registers that take words of the queue, in this order. */
const DATA_REGISTERS = ['eax', 'ebx', 'ecx', 'edx', 'esi', 'edi'] as const satisfies readonly (keyof VmwareRegisters)[];

const BUTTON_BITS: Readonly<Partial<Record<InputButton, number>>> = { left: 0x20, right: 0x10, middle: 0x08 };
const WHEEL_STEPS: Readonly<Partial<Record<InputButton, number>>> = {
  'wheel-up': -1,
  'wheel-down': 1,
  'wheel-right': -2,
  'wheel-left': 2,
};

/** Positions or movements of a pointer, for guests that know VMware's port; a PS/2 mouse tells them when to look. */
class VmMouse extends IsaDevice {
  readonly #s = this.state(1, {
    queue: field.words(QUEUE_WORDS),
    queued: field.u16(),
    status: field.u16(STATUS_DISABLED),
    absolute: field.bool(),
    buttons: field.u8(),
    x: field.number(),
    y: field.number(),
  });
  #ps2: Ps2Mouse | undefined;
  #unregister: (() => void) | undefined;

  /** Wires the mouse to the port, and to the mouse in whose place it is. */
  connect(port: VmPort, ps2: Ps2Mouse): void {
    this.#ps2 = ps2;
    port.command(PORT_COMMAND.STATUS, registers => {
      registers.eax = ((this.#s.status << 16) | this.#s.queued) >>> 0;
    });
    port.command(PORT_COMMAND.COMMAND, registers => this.#command(registers.ebx));
    port.command(PORT_COMMAND.DATA, registers => this.#data(registers));
  }

  protected override realize(): void {
    this.onUnrealize(() => this.#ignore());
  }

  protected override resetHold(): void {
    this.#s.queued = 0;
    this.#disable();
  }

  protected override restored(): void {
    this.#ignore();
    if (this.#s.status === 0) this.#listen(this.#s.absolute);
  }

  #command(command: number): void {
    const s = this.#s;
    switch (command) {
      case COMMAND.DISABLE:
        this.#disable();
        break;
      case COMMAND.READ_ID:
        if (s.queued === QUEUE_WORDS) break;
        this.#put(VERSION);
        s.status = 0;
        this.#listen(s.absolute);
        break;
      case COMMAND.REQUEST_RELATIVE:
        this.#listen(false);
        break;
      case COMMAND.REQUEST_ABSOLUTE:
        this.#listen(true);
        break;
      default:
        this.log.guestError(`mouse command 0x${command.toString(16)} is not known`);
    }
  }

  /** EBX says how many words the guest wants. */
  #data(registers: VmwareRegisters): void {
    const s = this.#s;
    const count = registers.ebx;
    if (count === 0 || count > DATA_REGISTERS.length || count > s.queued) {
      this.log.guestError(`the driver asks for ${count} words of ${s.queued}`);
      this.#disable();
      return;
    }
    for (const [index, name] of DATA_REGISTERS.slice(0, count).entries()) registers[name] = s.queue[index] ?? 0;
    s.queue.copyWithin(0, count, s.queued);
    s.queued -= count;
  }

  #put(word: number): void {
    this.#s.queue[this.#s.queued++] = word;
  }

  #disable(): void {
    this.#s.status = STATUS_DISABLED;
    this.#ignore();
  }

  #ignore(): void {
    this.#unregister?.();
    this.#unregister = undefined;
  }

  /** Takes what a person does with a pointer, from now on, before any other. */
  #listen(absolute: boolean): void {
    const s = this.#s;
    if (s.status !== 0) return;
    if (s.absolute !== absolute) this.#ignore();
    s.absolute = absolute;
    if (this.#unregister !== undefined) return;
    const { input } = this.services;
    const kind = absolute ? 'absolute' : 'relative';
    const handler: InputHandler = {
      name: 'vmmouse',
      kinds: new Set<InputEvent['kind']>(['button', kind]),
      input: event => this.#input(event),
      sync: () => this.#packet(0),
    };
    this.#unregister = input.register(handler);
    input.activate(handler);
  }

  #input(event: InputEvent): void {
    const s = this.#s;
    if (event.kind === 'button') {
      const bit = BUTTON_BITS[event.button] ?? 0;
      s.buttons = event.down ? s.buttons | bit : s.buttons & ~bit;
      const steps = WHEEL_STEPS[event.button];
      if (steps !== undefined && event.down) this.#packet(steps);
    } else if (event.kind === 'absolute') {
      if (event.axis === 'x') s.x = event.value;
      else s.y = event.value;
    } else if (event.kind === 'relative') {
      if (event.axis === 'x') s.x += event.value;
      else s.y += event.value;
    }
  }

  /** One packet; without room for it, it is lost. A position is of 16 bits here. */
  #packet(wheel: number): void {
    const s = this.#s;
    if (s.queued <= QUEUE_WORDS - PACKET_WORDS) {
      this.#put(s.buttons);
      this.#put(s.absolute ? s.x << 1 : s.x);
      this.#put(s.absolute ? s.y << 1 : s.y);
      this.#put(wheel);
      this.#ps2?.nudge();
    }
    if (s.absolute) return;
    s.x = 0;
    s.y = 0;
  }
}

export const vmmouse = deviceType({
  type: 'vmmouse',
  summary: "Pointer behind VMware's port",
  bus: 'ISA',
  category: 'input',
  parents: ['isa-device', 'device'],
  userCreatable: false,
  create: VmMouse,
});
