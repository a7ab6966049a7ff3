import { didYouMean } from '../../errors.ts';
import { optsFromCompat, specFromOpts } from '../char/spec.ts';
import { GROUPS } from '../options/groups.ts';
import { parseSize } from '../options/numbers.ts';
import { Opts, parseKeyval, parseOpts } from '../options/opts.ts';
import { QmpError } from '../qapi/error.ts';
import type { CommandName } from '../qmp/catalog.ts';
import { addDevice, deviceRequest, requestUnplug } from '../startup/devices.ts';
import { UserObjects } from '../startup/objects.ts';
import { type HmpCommand, hmp, words } from './command.ts';
import { evaluate } from './expression.ts';
import { dumpMemory, formatValue, showTranslation, takeFormat } from './memory-dump.ts';

const onOff = (text: string | undefined): boolean => {
  if (text === 'on' || text === 'off') return text === 'on';
  throw new QmpError("Expected 'on' or 'off'");
};

/** A command that is QMP's of that name, without arguments and output. */
const plain =
  (name: CommandName): HmpCommand['run'] =>
  async context => {
    await context.qmp(name);
    return undefined;
  };

const PORT_SIZES: Readonly<Record<number, number>> = { 1: 1, 2: 2, 4: 4 };

/** The commands of the human monitor, in the order of its help. */
export const HMP_COMMANDS: readonly HmpCommand[] = [
  hmp(
    'commit',
    'device|all',
    'commit changes to the disk images (if -snapshot is used) or backing files',
    () => undefined,
  ),
  hmp('q|quit', '', 'quit the emulator', plain('quit')),
  hmp('block_resize', 'device size', 'resize a block image', async (context, text) => {
    const [device = '', size = ''] = words(text);
    await context.qmp('block_resize', { device, size: parseSize(size, 'M') ?? -1n });
    return undefined;
  }),
  hmp('eject', '[-f] device', 'eject a removable medium (use -f to force it)', async (context, text) => {
    const list = words(text);
    await context.qmp('eject', { device: list.at(-1) ?? '', force: list.includes('-f') });
    return undefined;
  }),
  hmp(
    'drive_add',
    '[-n] [[<domain>:]<bus>:]<slot> [file=file][,if=type][,...]',
    'add drive to PCI storage controller',
    async ({ program }, text) => {
      const list = words(text);
      const description = list.at(-1) ?? '';
      if (list.includes('-n')) {
        await (await program.blocks()).addNode(parseKeyval(description));
        return undefined;
      }
      const opts = parseOpts(GROUPS.drive, description);
      if (opts.string('if') !== 'none') throw new QmpError("Can't hot-add drive to type 0");
      await (await program.blocks()).addDrive(opts);
      return 'OK\n';
    },
  ),
  hmp('drive_del', 'device', 'remove host block device', async ({ program }, text) => {
    await (await program.blocks()).removeDrive(words(text)[0] ?? '');
    return undefined;
  }),
  hmp(
    'change',
    'device [-f] filename [format [read-only-mode]]',
    'change a removable medium, or the password of VNC',
    async (context, text) => {
      const [server, target, password] = words(text);
      if (server === 'vnc') {
        if (target !== 'passwd' && target !== 'password') throw new QmpError("Expected 'password' after 'vnc'");
        if (password === undefined) throw new QmpError('the monitor does not ask for passwords: name it');
        await context.qmp('change-vnc-password', { password });
        return undefined;
      }
      const [device = '', filename = '', format] = words(text).filter(word => word !== '-f');
      await context.qmp('blockdev-change-medium', { device, filename, ...(format !== undefined && { format }) });
      return undefined;
    },
  ),
  hmp('qemu-io', '[-d] [device] "[command]"', 'run a qemu-io command on a block device', async ({ program }, text) => {
    const [device = '', ...command] = words(text).filter(word => word !== '-d');
    const { qemuIo } = await import('../../block/qemu-io.ts');
    return qemuIo((await program.blocks()).graph, device, command.join(' '));
  }),
  hmp('trace-event', 'name on|off [vcpu]', 'changes status of a specific trace event', async (context, text) => {
    const [name = '', state] = words(text);
    await context.qmp('trace-event-set-state', { name, enable: onOff(state) });
    return undefined;
  }),
  hmp('log', 'item1[,...]', 'activate logging of the specified items', ({ program }, text) => {
    const { trace } = program.machine;
    for (const item of words(text)[0]?.split(',') ?? []) {
      if (item === 'none') for (const known of LOG_ITEMS) trace.log(known, false);
      else if (item === 'all') for (const known of LOG_ITEMS) trace.log(known);
      else if (item.startsWith('trace:')) trace.enable(item.slice('trace:'.length));
      else {
        const known = LOG_ITEMS.find(candidate => candidate === item);
        if (known === undefined) throw new QmpError(`unknown log item '${item}'${hintFor(item)}`);
        trace.log(known);
      }
    }
    return undefined;
  }),
  hmp(
    'savevm',
    '[tag]',
    'save a VM snapshot. If no tag is provided, a new snapshot is created',
    async ({ program }, text) => {
      const { saveVm } = await import('../migration/snapshots.ts');
      await saveVm(program, words(text)[0]);
      return undefined;
    },
  ),
  hmp('loadvm', 'tag', 'restore a VM snapshot from its tag', async ({ program }, text) => {
    const { loadVm } = await import('../migration/snapshots.ts');
    await loadVm(program, words(text)[0] ?? '');
    return undefined;
  }),
  hmp('delvm', 'tag', 'delete a VM snapshot from its tag', async ({ program }, text) => {
    const { deleteVm } = await import('../migration/snapshots.ts');
    await deleteVm(program, words(text)[0] ?? '');
    return undefined;
  }),
  hmp('migrate', '[-d] uri', 'migrate to URI', async (context, text) => {
    const uri = words(text).filter(word => !word.startsWith('-'))[0] ?? '';
    await context.qmp('migrate', { uri });
    return undefined;
  }),
  hmp('migrate_cancel', '', 'cancel the current VM migration', plain('migrate_cancel')),
  hmp('singlestep', '[on|off]', 'run emulation in singlestep mode or switch to normal mode', () => undefined),
  hmp('stop|s', '', 'stop emulation', plain('stop')),
  hmp('cont|c', '', 'resume emulation', plain('cont')),
  hmp('system_wakeup', '', 'wakeup guest from suspend', plain('system_wakeup')),
  hmp(
    'gdbserver',
    '[device]',
    "start gdbserver on given device (default 'tcp::1234'), stop with 'none'",
    async ({ program }, text) => {
      const device = words(text)[0] ?? 'tcp::1234';
      const { startGdb } = await import('../gdb/start.ts');
      await startGdb(program, device);
      return device === 'none' ? 'Disabled gdbserver\n' : `Waiting for gdb connection on device '${device}'\n`;
    },
  ),
  hmp('x', '/fmt addr', "virtual memory dump starting at 'addr'", (context, text) => dumpMemory(context, text, false)),
  hmp('xp', '/fmt addr', "physical memory dump starting at 'addr'", (context, text) => dumpMemory(context, text, true)),
  hmp('gva2gpa', 'addr', 'print the guest physical address corresponding to a guest virtual address', showTranslation),
  hmp('p|print', '/fmt expr', 'print expression value (use $reg for CPU register access)', (context, text) => {
    const { format, rest } = takeFormat(text);
    return `${formatValue(evaluate(rest, context.cpuState()).value, format.letter, 8)
      .replace(/^0x0+(?=.)/, '0x')
      .trim()}\n`;
  }),
  hmp('i', '/fmt addr', 'I/O port read', (context, text) => {
    const { format, rest } = takeFormat(text);
    const { value } = evaluate(rest, context.cpuState());
    const port = Number(value & 0xffffn);
    const size = PORT_SIZES[format.size] ?? 4;
    const read = context.program.machine.ports.read(port, size) >>> 0;
    const suffix = size === 1 ? 'b' : size === 2 ? 'w' : 'l';
    return `port${suffix}[0x${port.toString(16).padStart(4, '0')}] = 0x${read.toString(16).padStart(size * 2, '0')}\n`;
  }),
  hmp('o', '/fmt addr value', 'I/O port write', (context, text) => {
    const { format, rest } = takeFormat(text);
    const port = evaluate(rest, context.cpuState());
    const { value } = evaluate(port.rest, context.cpuState());
    const size = PORT_SIZES[format.size] ?? 4;
    context.program.machine.ports.write(Number(port.value & 0xffffn), size, Number(BigInt.asUintN(size * 8, value)));
    return undefined;
  }),
  hmp('system_reset', '', 'reset the system', plain('system_reset')),
  hmp('system_powerdown', '', 'send system power down event', plain('system_powerdown')),
  hmp('sum', 'addr size', 'compute the checksum of a memory region', (context, text) => {
    const address = evaluate(text, context.cpuState());
    const size = Number(evaluate(address.rest, context.cpuState()).value);
    let sum = 0;
    const bytes = new Uint8Array(Math.min(size, 2 ** 24));
    context.program.machine.memory.readBytes(Number(address.value), bytes, 0, bytes.length);
    for (const byte of bytes) sum = (((sum >>> 1) | (sum << 15)) + byte) & 0xffff;
    return `${String(sum).padStart(5, '0')}\n`;
  }),
  hmp(
    'device_add',
    'driver[,prop=value][,...]',
    'add device, like -device on the command line',
    async ({ program }, text) => {
      const opts = parseOpts(GROUPS.device, text.trim());
      const driver = opts.string('driver') ?? '';
      if (driver === 'help' || driver === '?') return 'see -device help\n';
      const values = { ...Object.fromEntries(opts.entries()), ...(opts.id !== undefined && { id: opts.id }) };
      await addDevice(program.machine, program.registry, deviceRequest(values), true);
      return undefined;
    },
  ),
  hmp('device_del', 'device', 'remove device', ({ program }, text) => {
    requestUnplug(program.machine, words(text)[0] ?? '');
    return undefined;
  }),
  hmp('cpu', 'index', 'set the default CPU', (context, text) => {
    const index = Number(words(text)[0]);
    if (context.program.machine.cpus.plugged[index] === undefined) throw new QmpError('invalid CPU index');
    context.cpu = index;
    return undefined;
  }),
  hmp(
    'memsave',
    'addr size file',
    "save to disk virtual memory dump starting at 'addr' of size 'size'",
    async (context, text) => {
      const [address = '', size = '', filename = ''] = words(text);
      await context.qmp('memsave', { val: Number(address), size: Number(size), filename, 'cpu-index': context.cpu });
      return undefined;
    },
  ),
  hmp(
    'pmemsave',
    'addr size file',
    "save to disk physical memory dump starting at 'addr' of size 'size'",
    async (context, text) => {
      const [address = '', size = '', filename = ''] = words(text);
      await context.qmp('pmemsave', { val: Number(address), size: Number(size), filename });
      return undefined;
    },
  ),
  hmp(
    'dump-guest-memory',
    '[-p] [-d] [-z] filename [begin length]',
    'dump guest memory into file: -p with paging, -d in the background, -z in kdump-compressed format',
    async (context, text) => {
      const given = words(text);
      const flags = given.filter(word => /^-[pdz]+$/.test(word)).join('');
      const [filename = '', begin, length] = given.filter(word => !word.startsWith('-'));
      await context.qmp('dump-guest-memory', {
        paging: flags.includes('p'),
        detach: flags.includes('d'),
        protocol: `file:${filename}`,
        format: flags.includes('z') ? 'kdump-zlib' : 'elf',
        ...(begin !== undefined && { begin: Number(begin) }),
        ...(length !== undefined && { length: Number(length) }),
      });
      return undefined;
    },
  ),
  hmp(
    'calc_dirty_rate',
    'second [sample_pages_per_GB]',
    'start a round of guest dirty rate measurement',
    async (context, text) => {
      const [seconds = '', samples] = words(text);
      const given = { 'calc-time': Number(seconds), ...(samples !== undefined && { 'sample-pages': Number(samples) }) };
      if (given['calc-time'] === 0) return 'Incorrect period length specified!\n';
      await context.qmp('calc-dirty-rate', given);
      return `Starting dirty rate measurement with period ${seconds} seconds\n[Please use 'info dirty_rate' to check results]\n`;
    },
  ),
  hmp('nmi', '', 'inject an NMI', plain('inject-nmi')),
  hmp('ringbuf_write', 'device data', 'Write to a ring buffer character device', async (context, text) => {
    const [device = '', data = ''] = words(text);
    await context.qmp('ringbuf-write', { device, data });
    return undefined;
  }),
  hmp('ringbuf_read', 'device size', 'Read from a ring buffer character device', async (context, text) => {
    const [device = '', size = '0'] = words(text);
    return `${String(await context.qmp('ringbuf-read', { device, size: Number(size) }))}\n`;
  }),
  hmp(
    'netdev_add',
    '[user|tap|socket|...],id=str[,prop=value][,...]',
    'add host network device',
    async ({ program }, text) => {
      await (await program.nets()).addText(text.trim());
      return undefined;
    },
  ),
  hmp(
    'hostfwd_add',
    '[netdev_id] [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport',
    'redirect TCP or UDP connections from host to guest (requires -net user)',
    async ({ program }, text) => {
      const [rule = '', id] = words(text).reverse();
      (await program.nets()).user(id).addHostForward(rule);
      return undefined;
    },
  ),
  hmp(
    'hostfwd_remove',
    '[netdev_id] [tcp|udp]:[hostaddr]:hostport',
    'remove host-to-guest TCP or UDP redirection',
    async ({ program }, text) => {
      const [rule = '', id] = words(text).reverse();
      const removed = (await program.nets()).user(id).removeHostForward(rule);
      return `host forwarding rule for ${rule} ${removed ? 'removed' : 'not found'}\n`;
    },
  ),
  hmp('netdev_del', 'id', 'remove host network device', async (context, text) => {
    await context.qmp('netdev_del', { id: words(text)[0] ?? '' });
    return undefined;
  }),
  hmp('object_add', '[qom-type=]type,id=str[,prop=value][,...]', 'create QOM object', async ({ program }, text) => {
    await (await program.objects()).add(UserObjects.parse(parseKeyval(text.trim(), 'qom-type'), true));
    return undefined;
  }),
  hmp('object_del', 'id', 'destroy QOM object', async (context, text) => {
    await context.qmp('object-del', { id: words(text)[0] ?? '' });
    return undefined;
  }),
  hmp('set_link', 'name on|off', 'change the link status of a network adapter', async (context, text) => {
    const [name = '', state] = words(text);
    await context.qmp('set_link', { name, up: onOff(state) });
    return undefined;
  }),
  hmp(
    'watchdog_action',
    '[reset|shutdown|poweroff|pause|debug|none]',
    'change watchdog action',
    async (context, text) => {
      await context.qmp('watchdog-set-action', { action: words(text)[0] ?? '' });
      return undefined;
    },
  ),
  hmp('chardev-add', 'args', 'add chardev', async ({ program }, text) => {
    await program.chars.addOpts(parseOpts(GROUPS.chardev, text.trim()));
    return undefined;
  }),
  hmp('chardev-change', 'id args', 'change chardev', async ({ program }, text) => {
    const [id = '', args = ''] = words(text);
    const opts =
      optsFromCompat(id, args) ?? new Opts(GROUPS.chardev, id).parse(args.includes('=') ? args : `backend=${args}`);
    await program.chars.change(id, specFromOpts(opts));
    return undefined;
  }),
  hmp('chardev-remove', 'id', 'remove chardev', ({ program }, text) => {
    program.chars.remove(words(text)[0] ?? '');
    return undefined;
  }),
  hmp('chardev-send-break', 'id', 'send a break on chardev', async (context, text) => {
    await context.qmp('chardev-send-break', { id: words(text)[0] ?? '' });
    return undefined;
  }),
  hmp('qom-list', 'path', 'list QOM properties', async (context, text) => {
    const path = words(text)[0];
    if (path === undefined) return '/\n';
    const list = (await context.qmp('qom-list', { path })) as readonly { name: string; type: string }[];
    return list.map(({ name, type }) => `${name} (${type})\n`).join('');
  }),
  hmp('qom-get', 'path property', 'print QOM property', async (context, text) => {
    const [path = '', property = ''] = words(text);
    const { writeJson } = await import('../json/writer.ts');
    return `${writeJson((await context.qmp('qom-get', { path, property })) as never, true)}\n`;
  }),
  hmp('qom-set', '[-j] path property value', 'set QOM property', async (context, text) => {
    const [path = '', property = '', value = ''] = words(text).filter(word => word !== '-j');
    await context.qmp('qom-set', { path, property, value });
    return undefined;
  }),
];

const LOG_ITEMS = ['guest_errors', 'unimp', 'int', 'cpu_reset', 'exec'] as const;
const hintFor = (item: string): string => {
  const hint = didYouMean(item, LOG_ITEMS);
  return hint === undefined ? '' : `, ${hint}`;
};
