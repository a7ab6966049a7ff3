import { type CommandLine, located } from '../options/command-line.ts';
import { OptionError } from '../options/opts.ts';

/** Display adapters by their names in `-vga`, and what QEMU says where one is not there. */
const VGA_NAMES: ReadonlyMap<string, string | undefined> = new Map([
  ['none', undefined],
  ['std', undefined],
  ['cirrus', undefined],
  ['virtio', undefined],
  ['vmware', 'VMWare SVGA'],
  ['qxl', 'QXL VGA'],
  ['xenfb', 'Xen paravirtualized framebuffer'],
]);

/**
 * The adapter that `-vga` names; undefined where it is the machine's choice.
 * @throws LocatedError with QEMU's words
 */
export function vgaAdapter(line: CommandLine): string | undefined {
  const given = line.all('vga').at(-1);
  if (given === undefined) return undefined;
  return located(given.location, () => {
    if (!VGA_NAMES.has(given.value)) throw new OptionError(`unknown vga type: ${given.value}`);
    const missing = VGA_NAMES.get(given.value);
    if (missing !== undefined) throw new OptionError(`${missing} not available`);
    return given.value;
  });
}

/**
 * `-display`: there are no windows here, only VNC.
 * @throws LocatedError with the words of a QEMU that was built without windows
 */
export function checkDisplay(line: CommandLine): void {
  for (const { value, location } of line.all('display')) {
    located(location, () => {
      const type = value.split(/[,=]/)[0] ?? '';
      if (type === 'none' || type === 'default') return;
      if (type !== 'vnc') throw new OptionError(`Parameter 'type' does not accept value '${type}'`);
      if (!value.startsWith('vnc=')) throw new OptionError('VNC requires a display argument vnc=<display>');
    });
  }
  // Nothing but a VNC server has keys to translate.
  const vnc = line.opts('vnc').length > 0 || line.all('display').some(({ value }) => value.startsWith('vnc='));
  for (const { value, location } of vnc ? line.all('k') : []) {
    located(location, () => {
      if (value !== 'en-us') throw new OptionError(`could not read keymap file: '${value}'`, "there is 'en-us'");
    });
  }
}
