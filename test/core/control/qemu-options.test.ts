import { spawnSync } from 'node:child_process';
import t from 'tap';
import { parseCommandLine } from '../../../core/control/options/command-line.ts';
import { OPTIONS } from '../../../core/control/options/table.ts';
import { Reporter } from '../../../core/control/startup/report.ts';
import { refuseUnsupported } from '../../../core/control/startup/run.ts';
import { runToEnd } from './program.ts';

t.setTimeout(300_000);

/**
 * QEMU 7.2's options for x86_64, in the order of its `-help`, with an argument where they take one: those that have their effect
 * here, or as little as there; and those that are refused, with what stands in their place.
 */
const WITH_EFFECT = `
-version | -machine pc | -M pc | -cpu qemu64 | -accel tcg | -smp 2 | -numa node,nodeid=0 | -add-fd fd=3,set=1
-set device.a.b=c | -global e1000.mac=0 | -boot c | -m 64 | -mem-path a | -mem-prealloc | -k en-us | -audio-help
-audio none,model=ac97 | -audiodev none,id=a | -device e1000 | -name a | -uuid 1 | -fda a | -fdb a | -hda a | -hdb a
-hdc a | -hdd a | -cdrom a | -blockdev raw,node-name=a,file=b | -drive file=a | -mtdblock a | -sd a | -snapshot
-fsdev local,id=a,path=b | -virtfs local,path=a,mount_tag=b | -usb | -usbdevice mouse | -display none | -nographic
-portrait | -rotate 90 | -vga std | -full-screen | -vnc :1 | -no-fd-bootchk | -no-acpi | -no-hpet | -acpitable data=a
-smbios type=0 | -netdev user,id=a | -nic user | -net nic | -chardev null,id=a | -tpmdev emulator,id=a,chardev=b | -bios a
-pflash a | -kernel a | -append a | -initrd a | -dtb a | -compat deprecated-input=accept | -fw_cfg name=opt/a,string=b
-serial null | -parallel null | -monitor null | -qmp null | -qmp-pretty null | -mon a | -debugcon null | -pidfile a
-singlestep | --preconfig | -S | -overcommit mem-lock=off | -gdb tcp::1 | -s | -d int | -D a | -dfilter 0x0..0xff | -seed 1
-L a | -enable-kvm | -no-reboot | -no-shutdown | -action panic=none | -loadvm a | -daemonize | -option-rom a
-rtc base=utc | -icount auto | -watchdog-action none | -echr 1 | -incoming defer | -only-migratable | -nodefaults
-sandbox on | -readconfig /dev/null | -no-user-config | -trace a | -plugin a | -qtest null | -qtest-log a
-async-teardown | -msg timestamp=on | -enable-sync-profile | -object iothread,id=a | -help | -h`;
const REFUSED = `
-spice port=1 | -win2k-hack | -iscsi user=a | -chroot a | -runas a | -dump-vmstate a
-g 800x600 | -xen-domid 1 | -xen-attach | -xen-domid-restrict | -prom-env a=b | -semihosting | -semihosting-config on | -old-param`;

const split = (list: string): string[] =>
  list
    .trim()
    .split(/\n| \| /)
    .map(text => text.trim());
const words = (text: string): string[] => text.split(' ');

/** What is printed and thrown for one option, short of starting a machine. */
function accept(text: string): { error: string | undefined; hint: string | undefined } {
  try {
    const line = parseCommandLine('southbridge', words(text));
    refuseUnsupported(line, new Reporter('southbridge'));
    return { error: undefined, hint: undefined };
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return { error: error.message, hint: 'hint' in error ? String(error.hint ?? '') : '' };
  }
}

t.test('every option of QEMU has its effect here, or is refused by name', async t => {
  for (const option of split(WITH_EFFECT)) {
    const [name = ''] = words(option);
    if (name === '-set') continue;
    t.ok(OPTIONS.has(name.replace(/^--?/, '')), `${name} is in the table`);
    t.equal(accept(option).error, undefined, option);
  }
  for (const option of split(REFUSED)) {
    const { error, hint } = accept(option);
    t.match(error, /not supported|Option not supported for this target|there is no such description/, option);
    if (!/for this target/.test(error ?? '')) t.not(hint, '', `${option}: what to do`);
  }
  const known = new Set(
    [...split(WITH_EFFECT), ...split(REFUSED)].map(option => words(option)[0]?.replace(/^--?/, '')),
  );
  const ours = ['watch-plugin', 'trace-sink'];
  t.same(
    [...OPTIONS.keys()].filter(name => !known.has(name) && !ours.includes(name)),
    [],
    'none without a verdict',
  );
});

t.test("QEMU's own list has no option that is unknown here", async t => {
  const { stdout, error } = spawnSync('qemu-system-x86_64', ['-help'], { encoding: 'utf8' });
  if (error !== undefined) {
    t.pass('no QEMU here', { skip: 'qemu-system-x86_64 is not installed' });
    return;
  }
  const names = new Set([...stdout.matchAll(/^--?([a-zA-Z][\w-]*)/gm)].map(match => match[1] ?? ''));
  t.ok(names.size > 100, `${names.size} options`);
  t.same(
    [...names].filter(name => !OPTIONS.has(name)),
    [],
  );
});

t.test('what QEMU says of wrong values', async t => {
  for (const [option, message] of [
    ['-compat deprecated-input=foo', "Parameter 'deprecated-input' does not accept value 'foo'"],
    ['-compat foo=bar', "Parameter 'foo' is unexpected"],
    ['-compat deprecated-input=reject', "this program has no policy 'deprecated-input=reject'"],
    ['-dfilter foo', 'Bad range specifier'],
    ['-rotate 45', 'only 90, 180, 270 deg rotation is available'],
    ['-g foo', 'Option not supported for this target'],
    ['-nonsense', 'invalid option'],
    ['-smp', 'requires an argument'],
  ] as const)
    t.equal(parseError(option), message, option);
});

function parseError(option: string): string | undefined {
  try {
    refuseUnsupported(parseCommandLine('southbridge', words(option)), new Reporter('southbridge'));
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

t.test('and once the machine is made', async t => {
  for (const [args, message] of [
    [['-uuid', 'foo'], '-uuid foo: failed to parse UUID string: wrong format'],
    [['-m', 'size=128,slots=2'], 'slots specified but no max-size'],
    [['-watchdog-action', 'foo'], "-watchdog-action foo: Parameter 'watchdog' does not accept value 'foo'"],
    [['-accel', 'tcg,foo=bar'], "-accel tcg,foo=bar: Property 'tcg-accel.foo' not found"],
    [['-accel', 'tcg,thread=foo'], "-accel tcg,thread=foo: Invalid 'thread' setting foo"],
    [
      ['-pidfile', '/nowhere/pid'],
      "cannot create PID file: Could not create '/nowhere/pid': No such file or directory",
    ],
    [['-device', 'e1000,rombar=x'], "Parameter 'rombar' expects integer"],
    [['-device', 'e1000,rombar=99999999999'], "Parameter 'rombar' expects uint32_t"],
    [['-device', 'e1000,multifunction=x'], "Parameter 'multifunction' expects 'on' or 'off'"],
    [['-device', 'virtio-net-pci,disable-legacy=x'], "Parameter 'disable-legacy' does not accept value 'x'"],
    [['-device', 'e1000,mac=x'], "Property 'e1000.mac' doesn't take value 'x'"],
  ] as const) {
    const { code, errors } = await runToEnd('-machine', 'pc', '-nodefaults', ...args);
    t.equal(code, 1, args.join(' '));
    t.match(errors, message);
  }
});

t.test('-audio: a card with its backend', async t => {
  for (const [value, message] of [
    ['none', "Parameter 'model' is missing"],
    ['none,model=foo', "Unknown sound card name `foo'"],
    ['foo,model=ac97', "Parameter 'driver' does not accept value 'foo'"],
    ['none,model=ac97,out.frequency=abc', "Parameter 'out.frequency' expects integer"],
  ] as const) {
    const { code, errors } = await runToEnd('-machine', 'pc', '-audio', value);
    t.equal(code, 1);
    t.match(errors, `-audio ${value}: ${message}\n`);
  }
});
