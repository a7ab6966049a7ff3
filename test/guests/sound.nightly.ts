import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import t from 'tap';
import { AudioBackend } from '../../core/audio/backend.ts';
import { GuestCache } from '../../core/firmware/guest-cache/guest-cache.ts';
import { kernelModules } from '../../core/firmware/guest-cache/kernel-modules.ts';
import { PciBus } from '../../core/pci/pci-bus.ts';
import { ac97 } from '../../devices/ac97/ac97.ts';
import { es1370 } from '../../devices/es1370/es1370.ts';
import { sb16 } from '../../devices/sb16/sb16.ts';
import { buildGuest } from './build.ts';
import { guestOrSkip } from './guest-or-skip.ts';
import { bootLinux } from './linux-machine.ts';

t.setTimeout(900_000);
const PATIENCE_MS = 600_000;
const RATE = 44_100;
/** The level of each card's sound, by which it is told from the others. */
const LEVELS = { ac97: 0x1000, es1370: 0x2000, sb16: 0x3000 } as const;

/** Two seconds of one level, as OSS takes them unless it is told otherwise: unsigned bytes, 8000 a second. */
const sound = (level: number): Uint8Array => new Uint8Array(16_000).fill(0x80 + (level >> 8));

/** snd_sb16 and what it needs, which the guest loads itself: an ISA card has to be said where it is. */
async function soundBlasterModules(): Promise<Record<string, Uint8Array | string>> {
  const { modules } = await new GuestCache().get('linux-i386');
  const needed = await kernelModules(modules, ['snd_sb16']);
  const files = Object.fromEntries(needed.map(({ path, bytes }) => [`sb16/${basename(path)}`, bytes]));
  return { ...files, 'sb16/order': needed.map(({ path }) => `/sb16/${basename(path)}\n`).join('') };
}

// Debian's drivers are the oracle: snd_intel8x0 with its AC'97 codec, snd_ens1370 and snd_sb16, through their OSS devices.
t.test('Linux plays on three sound cards', { timeout: 800_000 }, async t => {
  if ((await guestOrSkip(t, 'linux-i386')) === undefined) return;
  const cards = new Map<string, { readonly backend: AudioBackend; frames: number }>();
  for (const [name, level] of Object.entries(LEVELS)) {
    const card = { backend: new AudioBackend(name, 'none'), frames: 0 };
    card.backend.listen({
      format: { format: 's16', channels: 1, frequency: RATE },
      playing: () => {},
      samples: bytes => {
        const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
        // The mixers may attenuate by a step or two of rounding.
        for (let at = 0; at < bytes.length; at += 2)
          if (Math.abs(view.getInt16(at, true) - level) < level / 32) card.frames++;
      },
    });
    cards.set(name, card);
  }
  const linux = await bootLinux(t, {
    modules: ['snd_intel8x0', 'snd_ens1370', 'snd_pcm_oss', 'snd_mixer_oss'],
    config: { ramSize: 128 * 2 ** 20 },
    backend: (kind, id) => (kind === 'audiodev' ? cards.get(id)?.backend : undefined),
    files: {
      'sound/ac97': sound(LEVELS.ac97),
      'sound/es1370': sound(LEVELS.es1370),
      'sound/sb16': sound(LEVELS.sb16),
      ...(await soundBlasterModules()),
      volumes: readFileSync(await buildGuest('volumes')),
    },
    plug(machine) {
      const pci = machine.findBus('pci.0');
      if (!(pci instanceof PciBus)) throw new TypeError('the machine has no PCI bus');
      pci.plug(ac97, {}, { audiodev: 'ac97' });
      pci.plug(es1370, {}, { audiodev: 'es1370' });
      machine.findBus('isa.0')?.plug(sb16, {}, { audiodev: 'sb16' });
    },
    init: `
      for module in $(cat /sb16/order); do
        case $module in
          */snd-sb16.ko) insmod $module isapnp=0 port=0x220 irq=5 dma8=1 dma16=5 mpu_port=0 fm_port=0;;
          *) insmod $module 2>/dev/null;;
        esac
      done
      echo THE-BEGINNING; cat /proc/asound/cards
      for card in 0 1 2; do
        case $(cat /proc/asound/card$card/id) in
          ICH*|I82801*) file=ac97;; *1370*|AudioPCI) file=es1370;; *) file=sb16;;
        esac
        dsp=/dev/dsp; [ $card -gt 0 ] && dsp=/dev/dsp$card
        mixer=/dev/mixer; [ $card -gt 0 ] && mixer=/dev/mixer$card
        /volumes $mixer && /volumes $mixer && cat /sound/$file > $dsp && echo "played $file"
      done
      grep -c -e snd_intel8x0 -e snd_ens1370 -e 'SoundBlaster' /proc/interrupts
      echo THE-END`,
  });
  if (linux === undefined) return;
  const [listing] = await linux.terminal.until(/THE-BEGINNING[\s\S]*THE-END/, PATIENCE_MS);
  for (const [name, card] of cards) {
    t.match(listing, `played ${name}`);
    t.ok(card.frames > RATE, `${name}: a second and more was heard as it was written (${card.frames})`);
  }
});
