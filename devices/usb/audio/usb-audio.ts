import type { AudioBackend } from '../../../core/audio/backend.ts';
import type { AudioFormat } from '../../../core/audio/format.ts';
import { attenuate } from '../../../core/audio/gain.ts';
import { PlayedVoice } from '../../../core/audio/voice.ts';
import { deviceType } from '../../../core/device/device-type.ts';
import { prop } from '../../../core/device/property.ts';
import { field } from '../../../core/state/fields.ts';
import { UsbDevice, usbProperties } from '../../../core/usb/device.ts';
import { PID, type UsbPacket } from '../../../core/usb/packet.ts';
import { classInterfaceIn, classInterfaceOut, STALL } from '../../../core/usb/request.ts';
import { ENDPOINT, FEATURE_UNIT, packetBytes, RATE, SETTINGS, STREAM, usbAudioDescription } from './description.ts';

/** Requests to a unit (Audio 1.0, section 5.2.1): wIndex is the unit and the interface, wValue the control and a channel. */
const REQUEST = {
  SET_CUR: classInterfaceOut(0x01),
  GET_CUR: classInterfaceIn(0x81),
  GET_MIN: classInterfaceIn(0x82),
  GET_MAX: classInterfaceIn(0x83),
  GET_RES: classInterfaceIn(0x84),
} as const;
const FEATURE_INDEX = FEATURE_UNIT << 8;

/** Control selectors (section A.10.2). */
const CONTROL = { MUTE: 1, VOLUME: 2 } as const;

/** Volumes in 1/256 dB, from -127.996 to +8, and by 0.53; 8000h is silence (section 5.2.2.4.3.2). */
const VOLUME = { SILENCE: 0x8000, MINIMUM: 0x8001, MAXIMUM: 0x0800, STEP: 0x0088, RANGE: 0x8800 } as const;
/** Steps of the volume as it is kept, and the one that is 0 dB. */
const STEPS = 255;
const FULL = 240;

const MAX_CHANNELS = 8;
/** Packets that wait at most, where the user has not said how many bytes. */
const PACKETS = 32;
const BUFFER_MAX = 2 ** 24;

const properties = {
  ...usbProperties,
  audiodev: prop.backend<AudioBackend>('audiodev'),
  debug: prop.u32({ default: 0 }),
  buffer: prop.u32({ default: 0, help: 'bytes that may wait to be played; 0 for 32 milliseconds' }),
  multi: prop.bool({ default: false, help: 'whether there are settings of six and of eight channels' }),
};

/** A loudspeaker on USB (Audio 1.0): 16 bits at 48 kHz. */
class UsbAudio extends UsbDevice<typeof properties> {
  readonly productName = 'QEMU USB Audio Interface';
  protected readonly description = usbAudioDescription(this.props.multi);
  readonly #s = this.state(
    1,
    {
      setting: field.u8(),
      mute: field.bool(),
      volumes: field.bytes(MAX_CHANNELS),
      /** A ring of whole packets: where those begin that wait, and how many bytes they are. */
      ring: field.buffer(BUFFER_MAX),
      begin: field.u32(),
      count: field.u32(),
    },
    { name: 'audio', onReset: 'keep' },
  );
  readonly #voice = new PlayedVoice(this.props.audiodev, this.clock, 'out', bytes => this.#play(bytes));

  get #channels(): number {
    return SETTINGS[this.#s.setting] ?? 0;
  }

  get #format(): AudioFormat {
    return { format: 's16', channels: this.#channels || 2, frequency: RATE };
  }

  /** Bytes of whole packets that may wait. */
  get #capacity(): number {
    const packet = packetBytes(this.#channels);
    const wanted = this.props.buffer === 0 ? PACKETS * packet : Math.min(this.props.buffer, BUFFER_MAX);
    return wanted - (wanted % packet);
  }

  protected override setUp(): void {
    this.#s.volumes.fill(FULL);
    this.onUnrealize(() => this.#voice.stop());
  }

  protected override busReset(): void {
    this.#set(0);
  }

  protected override interfaceChanged(number: number, _before: number, after: number): void {
    if (number === STREAM) this.#set(after);
  }

  protected override restored(): void {
    super.restored();
    this.#voice.resume(this.#format, this.#s.setting !== 0);
  }

  #set(setting: number): void {
    const s = this.#s;
    s.setting = setting;
    s.ring = new Uint8Array(setting === 0 ? 0 : this.#capacity);
    s.begin = 0;
    s.count = 0;
    this.#voice.stop();
    if (setting === 0) return;
    this.#voice.format = this.#format;
    this.#voice.start();
  }

  // Controls

  protected override controlRequest(
    request: number,
    value: number,
    index: number,
    _length: number,
    data: Uint8Array,
  ): number {
    if (index !== FEATURE_INDEX) return STALL;
    const control = value >> 8;
    if (control === CONTROL.MUTE) return this.#muteRequest(request, data);
    // Channel 0 is the master, which has no volume.
    const channel = (value & 0xff) - 1;
    const channels = this.props.multi ? MAX_CHANNELS : 2;
    if (control !== CONTROL.VOLUME || channel < 0 || channel >= channels) return STALL;
    return this.#volumeRequest(request, channel, data);
  }

  #muteRequest(request: number, data: Uint8Array): number {
    if (request === REQUEST.SET_CUR) {
      this.#s.mute = ((data[0] ?? 0) & 1) !== 0;
      return 0;
    }
    if (request !== REQUEST.GET_CUR) return STALL;
    data[0] = this.#s.mute ? 1 : 0;
    return 1;
  }

  #volumeRequest(request: number, channel: number, data: Uint8Array): number {
    const { volumes } = this.#s;
    const answer = (volume: number): number => {
      data[0] = volume & 0xff;
      data[1] = (volume >> 8) & 0xff;
      return 2;
    };
    switch (request) {
      case REQUEST.SET_CUR: {
        const above = ((data[0] ?? 0) + (data[1] ?? 0) * 256 - VOLUME.SILENCE) & 0xffff;
        volumes[channel] = Math.min(STEPS, Math.floor((above * STEPS + VOLUME.RANGE / 2) / VOLUME.RANGE));
        return 0;
      }
      case REQUEST.GET_CUR:
        return answer(Math.floor(((volumes[channel] ?? 0) * VOLUME.RANGE + 127) / STEPS) + VOLUME.SILENCE);
      case REQUEST.GET_MIN:
        return answer(VOLUME.MINIMUM);
      case REQUEST.GET_MAX:
        return answer(VOLUME.MAXIMUM);
      case REQUEST.GET_RES:
        return answer(VOLUME.STEP);
      default:
        return STALL;
    }
  }

  // Sound

  /** Nobody asks again for what there is no room for. */
  protected override handleData(packet: UsbPacket): void {
    const s = this.#s;
    if (packet.pid !== PID.OUT || packet.endpoint?.number !== ENDPOINT || s.setting === 0) {
      packet.status = 'stall';
      return;
    }
    const size = packetBytes(this.#channels);
    if (packet.size !== size || s.ring.length - s.count < size) return;
    packet.take(s.ring, (s.begin + s.count) % s.ring.length, size);
    s.count += size;
  }

  #play(bytes: Uint8Array): number {
    const s = this.#s;
    const length = Math.min(bytes.length, s.count);
    for (let done = 0; done < length; ) {
      const piece = Math.min(length - done, s.ring.length - s.begin);
      bytes.set(s.ring.subarray(s.begin, s.begin + piece), done);
      s.begin = (s.begin + piece) % s.ring.length;
      done += piece;
    }
    s.count -= length;
    const [left = 0, right = 0] = s.volumes;
    attenuate(bytes, this.#voice.format, s.mute ? 0 : left / STEPS, s.mute ? 0 : right / STEPS);
    return length;
  }
}

export const usbAudio = deviceType({
  type: 'usb-audio',
  summary: 'QEMU USB Audio Interface',
  bus: 'usb-bus',
  category: 'sound',
  parents: ['usb-device', 'device'],
  hotpluggable: true,
  properties,
  create: UsbAudio,
});
