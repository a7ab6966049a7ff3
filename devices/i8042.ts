import { IsaDevice } from '../core/bus/isa.ts';
import { ms } from '../core/clock/units.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { field } from '../core/state/fields.ts';
import { keyboardState, Ps2Keyboard } from './ps2-keyboard.ts';
import { mouseState, Ps2Mouse } from './ps2-mouse.ts';

/** Controller commands (8042 as in the IBM PS/2 technical reference). */
const CMD = {
  READ_MODE: 0x20,
  WRITE_MODE: 0x60,
  MOUSE_DISABLE: 0xa7,
  MOUSE_ENABLE: 0xa8,
  TEST_MOUSE: 0xa9,
  SELF_TEST: 0xaa,
  KBD_TEST: 0xab,
  KBD_DISABLE: 0xad,
  KBD_ENABLE: 0xae,
  READ_INPORT: 0xc0,
  READ_OUTPORT: 0xd0,
  WRITE_OUTPORT: 0xd1,
  WRITE_KBD_OBUF: 0xd2,
  WRITE_AUX_OBUF: 0xd3,
  WRITE_MOUSE: 0xd4,
  DISABLE_A20: 0xdd,
  ENABLE_A20: 0xdf,
  PULSE_BITS_3_0: 0xf0,
  RESET: 0xfe,
  NO_OP: 0xff,
} as const;
const STATUS = { OBF: 0x01, SELF_TEST: 0x04, COMMAND: 0x08, UNLOCKED: 0x10, MOUSE_OBF: 0x20 } as const;
const MODE = {
  KBD_INT: 0x01,
  MOUSE_INT: 0x02,
  SYSTEM: 0x04,
  DISABLE_KBD: 0x10,
  DISABLE_MOUSE: 0x20,
  TRANSLATE: 0x40,
} as const;
const OUT = { RESET: 0x01, A20: 0x02, OBF: 0x10, MOUSE_OBF: 0x20, ONES: 0xcc } as const;
/** Where the next byte read comes from. */
const PENDING = { KBD: 1, AUX: 2, CTRL_KBD: 4, CTRL_AUX: 8 } as const;
const OBSRC = { KBD: 1, MOUSE: 2, CTRL: 4 } as const;
const KBD_IRQ = 1;
const MOUSE_IRQ = 12;
/** A keyboard's least time between two bytes, where the guest needs one. */
const THROTTLE = ms(1);

const properties = {
  'extended-state': prop.bool({ default: true }),
  'kbd-throttle': prop.bool({ default: false }),
  'kbd-irq': prop.u8({ default: KBD_IRQ }),
  'mouse-irq': prop.u8({ default: MOUSE_IRQ }),
};

/** The keyboard controller of a PC, with a keyboard and a mouse on its ports. */
class I8042 extends IsaDevice<typeof properties> {
  readonly a20 = this.output('a20', 'a20');
  readonly #keyboardIrq = this.output('kbd-irq');
  readonly #mouseIrq = this.output('mouse-irq');
  readonly #s = this.state(1, {
    command: field.u8(),
    status: field.u8(STATUS.COMMAND | STATUS.UNLOCKED),
    mode: field.u8(MODE.KBD_INT | MODE.MOUSE_INT),
    outport: field.u8(OUT.RESET | OUT.A20 | OUT.ONES),
    pending: field.u8(),
    source: field.u8(),
    controllerByte: field.u8(),
    data: field.u8(),
  });
  readonly #throttle = this.clock.timer('throttle', () => this.#fill());
  readonly keyboard = new Ps2Keyboard(
    this.state(1, keyboardState, { name: 'keyboard', onReset: 'keep' }),
    hasData => this.#portChanged(PENDING.KBD, hasData),
    leds => {
      this.services.input.leds = leds;
    },
  );
  readonly mouse = new Ps2Mouse(this.state(1, mouseState, { name: 'mouse', onReset: 'keep' }), hasData =>
    this.#portChanged(PENDING.AUX, hasData),
  );

  protected override realize(): void {
    this.connectIrq(this.#keyboardIrq, this.props['kbd-irq']);
    this.connectIrq(this.#mouseIrq, this.props['mouse-irq']);
    const io = { impl: { min: 1, max: 1 } };
    this.ports(
      0x60,
      1,
      { read: () => this.#readData(), write: (_offset, _size, value) => this.#writeData(value) },
      io,
      'i8042-data',
    );
    this.ports(
      0x64,
      1,
      { read: () => this.#s.status, write: (_offset, _size, value) => this.#writeCommand(value) },
      io,
      'i8042-cmd',
    );
    this.onUnrealize(this.services.input.register(this.keyboard));
    this.onUnrealize(this.services.input.register(this.mouse));
  }

  protected override resetHold(): void {
    this.keyboard.reset();
    this.mouse.reset();
    this.keyboard.setTranslation((this.#s.mode & MODE.TRANSLATE) !== 0);
    this.#s.pending = 0;
    this.#throttle.cancel();
    this.#empty();
  }

  #portChanged(port: number, hasData: boolean): void {
    const s = this.#s;
    s.pending = hasData ? s.pending | port : s.pending & ~port;
    this.#fill();
  }

  /** What may go into the output buffer: the bytes of a port that is disabled wait unseen. */
  #ready(): number {
    const { pending, mode } = this.#s;
    if (!this.props['extended-state']) return pending;
    return (
      pending &
      ~((mode & MODE.DISABLE_KBD) !== 0 ? PENDING.KBD : 0) &
      ~((mode & MODE.DISABLE_MOUSE) !== 0 ? PENDING.AUX : 0)
    );
  }

  /** Fills the output buffer if it is empty: what a guest has been shown stays until it is read. */
  #fill(): void {
    const s = this.#s;
    if ((s.status & STATUS.OBF) !== 0 || this.#throttle.pending) return;
    const ready = this.#ready();
    if (ready === 0) return;
    s.status |= STATUS.OBF;
    s.outport |= OUT.OBF;
    if ((ready & PENDING.CTRL_KBD) !== 0) s.source = OBSRC.CTRL;
    else if ((ready & PENDING.CTRL_AUX) !== 0) s.source = OBSRC.CTRL | OBSRC.MOUSE;
    else s.source = (ready & PENDING.KBD) !== 0 ? OBSRC.KBD : OBSRC.MOUSE;
    if ((s.source & OBSRC.MOUSE) !== 0) {
      s.status |= STATUS.MOUSE_OBF;
      s.outport |= OUT.MOUSE_OBF;
    }
    this.#interrupt();
  }

  #empty(): void {
    this.#s.status &= ~(STATUS.OBF | STATUS.MOUSE_OBF);
    this.#s.outport &= ~(OUT.OBF | OUT.MOUSE_OBF);
    this.#interrupt();
  }

  #interrupt(): void {
    const { status, mode } = this.#s;
    const full = (status & STATUS.OBF) !== 0;
    const fromMouse = (status & STATUS.MOUSE_OBF) !== 0;
    this.#mouseIrq.set(full && fromMouse && (mode & MODE.MOUSE_INT) !== 0);
    this.#keyboardIrq.set(full && !fromMouse && (mode & MODE.KBD_INT) !== 0 && (mode & MODE.DISABLE_KBD) === 0);
  }

  #readData(): number {
    const s = this.#s;
    if ((s.status & STATUS.OBF) === 0) return s.data;
    this.#empty();
    const { source } = s;
    if ((source & OBSRC.CTRL) !== 0) {
      s.pending &= ~(PENDING.CTRL_KBD | PENDING.CTRL_AUX);
      s.data = s.controllerByte;
      this.#fill();
    } else if (source === OBSRC.KBD) {
      if (this.props['kbd-throttle']) this.#throttle.arm(THROTTLE);
      s.data = this.keyboard.read();
    } else {
      s.data = this.mouse.read();
    }
    return s.data;
  }

  #queueController(value: number, aux = false): void {
    this.#s.controllerByte = value;
    this.#s.pending =
      (this.#s.pending & ~(PENDING.CTRL_KBD | PENDING.CTRL_AUX)) | (aux ? PENDING.CTRL_AUX : PENDING.CTRL_KBD);
    this.#fill();
  }

  #writeCommand(written: number): void {
    const s = this.#s;
    // F0 to FF pulse output lines that are 0 in the low bits; only the reset line is connected (bit 0).
    const command =
      (written & CMD.PULSE_BITS_3_0) === CMD.PULSE_BITS_3_0 ? ((written & 1) === 0 ? CMD.RESET : CMD.NO_OP) : written;
    switch (command) {
      case CMD.READ_MODE:
        this.#queueController(s.mode);
        break;
      case CMD.WRITE_MODE:
      case CMD.WRITE_KBD_OBUF:
      case CMD.WRITE_AUX_OBUF:
      case CMD.WRITE_MOUSE:
      case CMD.WRITE_OUTPORT:
        s.command = command;
        break;
      case CMD.MOUSE_DISABLE:
        s.mode |= MODE.DISABLE_MOUSE;
        break;
      case CMD.MOUSE_ENABLE:
        s.mode &= ~MODE.DISABLE_MOUSE;
        this.#fill();
        break;
      case CMD.TEST_MOUSE:
        this.#queueController(0x00);
        break;
      case CMD.SELF_TEST:
        s.status |= STATUS.SELF_TEST;
        this.#queueController(0x55);
        break;
      case CMD.KBD_TEST:
        this.#queueController(0x00);
        break;
      case CMD.KBD_DISABLE:
        s.mode |= MODE.DISABLE_KBD;
        break;
      case CMD.KBD_ENABLE:
        s.mode &= ~MODE.DISABLE_KBD;
        this.#fill();
        break;
      case CMD.READ_INPORT:
        this.#queueController(0x80);
        break;
      case CMD.READ_OUTPORT:
        this.#queueController(s.outport);
        break;
      case CMD.ENABLE_A20:
        this.#setA20(true);
        break;
      case CMD.DISABLE_A20:
        this.#setA20(false);
        break;
      case CMD.RESET:
        this.services.system.requestReset('guest-reset');
        break;
      case CMD.NO_OP:
        break;
      default:
        this.log.guestError(`keyboard controller command 0x${written.toString(16)} is not known`);
    }
  }

  #writeData(value: number): void {
    const s = this.#s;
    const { command } = s;
    s.command = 0;
    switch (command) {
      case 0:
        this.keyboard.write(value);
        // Sending to the keyboard enables its port.
        s.mode &= ~MODE.DISABLE_KBD;
        this.#fill();
        break;
      case CMD.WRITE_MODE:
        s.mode = value;
        this.keyboard.setTranslation((value & MODE.TRANSLATE) !== 0);
        // A byte that was ready while the interrupt was off interrupts now; one of a disabled port may be shown now.
        this.#interrupt();
        this.#fill();
        break;
      case CMD.WRITE_KBD_OBUF:
        this.#queueController(value);
        break;
      case CMD.WRITE_AUX_OBUF:
        this.#queueController(value, true);
        break;
      case CMD.WRITE_OUTPORT:
        s.outport = value;
        this.#setA20((value & OUT.A20) !== 0);
        if ((value & OUT.RESET) === 0) this.services.system.requestReset('guest-reset');
        break;
      case CMD.WRITE_MOUSE:
        this.mouse.write(value);
        s.mode &= ~MODE.DISABLE_MOUSE;
        this.#fill();
        break;
      default:
        break;
    }
  }

  #setA20(on: boolean): void {
    this.#s.outport = on ? this.#s.outport | OUT.A20 : this.#s.outport & ~OUT.A20;
    this.a20.set(on);
  }
}

export const i8042 = deviceType({
  type: 'i8042',
  summary: 'Keyboard controller with a PS/2 keyboard and mouse',
  bus: 'ISA',
  category: 'input',
  parents: ['isa-device', 'device'],
  userCreatable: false,
  properties,
  create: I8042,
});
