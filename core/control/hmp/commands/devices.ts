import { optsFromCompat, specFromOpts } from '../../char/spec.ts';
import { GROUPS } from '../../options/groups.ts';
import { Opts, parseKeyval, parseOpts } from '../../options/opts.ts';
import { QmpError } from '../../qapi/error.ts';
import { addDevice, deviceRequest, requestUnplug } from '../../startup/devices.ts';
import { deviceHelp, deviceList } from '../../startup/listings.ts';
import { UserObjects } from '../../startup/objects.ts';
import type { HmpArguments } from '../arguments.ts';
import { type HmpCommand, hmp, viaQmp } from '../command.ts';

const id = (args: HmpArguments): { id: string } => ({ id: args.text('id') });

/** Devices, back ends, objects, character devices, file descriptors. */
export const DEVICE_COMMANDS: readonly HmpCommand[] = [
  hmp(
    'device_add',
    'device:O',
    'driver[,prop=value][,...]',
    'plug a device in, as -device does',
    async ({ program }, args) => {
      const text = args.text('device').replace(/^"(.*)"$/, '$1');
      const asked = /^(?:([^,]+),)?(?:help|\?)$/.exec(text);
      if (asked !== null)
        return asked[1] === undefined ? deviceList(program.registry) : deviceHelp(program.registry, asked[1]);
      const opts = parseOpts(GROUPS.device, text);
      const values = { ...Object.fromEntries(opts.entries()), ...(opts.id !== undefined && { id: opts.id }) };
      await addDevice(program.machine, program.registry, deviceRequest(values), true);
      return undefined;
    },
  ),
  hmp('device_del', 'id:s', 'device', 'take a device out', ({ program }, args) => {
    requestUnplug(program.machine, args.text('id'));
    return undefined;
  }),
  hmp(
    'netdev_add',
    'netdev:O',
    '[user|tap|socket|stream|dgram|hubport],id=str[,prop=value][,...]',
    "add the host's end of a network card",
    async ({ program }, args) => {
      await (await program.nets()).addText(args.text('netdev'));
      return undefined;
    },
  ),
  hmp('netdev_del', 'id:s', 'id', "remove the host's end of a network card", viaQmp('netdev_del', id)),
  hmp(
    'hostfwd_add',
    'arg1:s,arg2:s?',
    '[netdev_id] [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport',
    "forward a port of the host to the guest's user-mode network",
    async ({ program }, args) => {
      const [rule = '', backend] = [args.optional('arg2'), args.text('arg1')].filter(word => word !== undefined);
      (await program.nets()).user(backend).addHostForward(rule);
      return undefined;
    },
  ),
  hmp(
    'hostfwd_remove',
    'arg1:s,arg2:s?',
    '[netdev_id] [tcp|udp]:[hostaddr]:hostport',
    'forward a port no longer',
    async ({ program }, args) => {
      const [rule = '', backend] = [args.optional('arg2'), args.text('arg1')].filter(word => word !== undefined);
      const removed = (await program.nets()).user(backend).removeHostForward(rule);
      return `host forwarding rule for ${rule} ${removed ? 'removed' : 'not found'}\n`;
    },
  ),
  hmp(
    'set_link',
    'name:s,up:b',
    'name on|off',
    "pull a network card's cable, or put it back",
    viaQmp('set_link', args => ({ name: args.text('name'), up: args.flag('up') })),
  ),
  hmp(
    'balloon',
    'value:M',
    'target',
    'ask the guest to have that many MiB',
    viaQmp('balloon', args => ({ value: args.integer('value') })),
  ),
  hmp(
    'object_add',
    'object:S',
    '[qom-type=]type,id=str[,prop=value][,...]',
    'make an object',
    async ({ program }, args) => {
      await (await program.objects()).add(UserObjects.parse(parseKeyval(args.text('object'), 'qom-type'), true));
      return undefined;
    },
  ),
  hmp('object_del', 'id:s', 'id', 'destroy an object', viaQmp('object-del', id)),
  hmp('chardev-add', 'args:s', 'args', 'add a character device', async ({ program }, args) => {
    await program.chars.addOpts(parseOpts(GROUPS.chardev, args.text('args')));
    return undefined;
  }),
  hmp(
    'chardev-change',
    'id:s,args:s',
    'id args',
    'put another character device in the place of one',
    async ({ program }, args) => {
      const { id: name } = id(args);
      const text = args.text('args');
      const opts =
        optsFromCompat(name, text) ??
        new Opts(GROUPS.chardev, name).parse(text.includes('=') ? text : `backend=${text}`);
      await program.chars.change(name, specFromOpts(opts));
      return undefined;
    },
  ),
  hmp('chardev-remove', 'id:s', 'id', 'remove a character device', viaQmp('chardev-remove', id)),
  hmp('chardev-send-break', 'id:s', 'id', 'send a break', viaQmp('chardev-send-break', id)),
  hmp(
    'ringbuf_write',
    'device:s,data:s',
    'device data',
    'write to a ring buffer',
    viaQmp('ringbuf-write', args => ({ device: args.text('device'), data: args.text('data') })),
  ),
  hmp('ringbuf_read', 'device:s,size:i', 'device size', 'read from a ring buffer', async (context, args) => {
    const read = await context.qmp('ringbuf-read', { device: args.text('device'), size: args.integer('size') });
    return `${String(read)}\n`;
  }),
  hmp('getfd', 'fdname:s', 'name', 'take the file descriptor that comes along', () => {
    throw new QmpError('No file descriptor supplied via SCM_RIGHTS');
  }),
  hmp(
    'closefd',
    'fdname:s',
    'name',
    'close a named file descriptor',
    viaQmp('closefd', args => ({ fdname: args.text('fdname') })),
  ),
  hmp('qom-list', 'path:s?', 'path', 'the properties of an object', async (context, args) => {
    const path = args.optional('path');
    if (path === undefined) return '/\n';
    const list = (await context.qmp('qom-list', { path })) as readonly { name: string; type: string }[];
    return list.map(({ name, type }) => `${name} (${type})\n`).join('');
  }),
  hmp('qom-get', 'path:s,property:s', 'path property', "an object's property", async (context, args) => {
    const { writeJson } = await import('../../json/writer.ts');
    const value = await context.qmp('qom-get', { path: args.text('path'), property: args.text('property') });
    return `${writeJson(value as never, true)}\n`;
  }),
  hmp(
    'qom-set',
    'json:-j,path:s,property:s,value:S',
    '[-j] path property value',
    "set an object's property (-j: to JSON)",
    async (context, args) => {
      const text = args.text('value');
      const { parseJson } = await import('../../json/stream.ts');
      const value = args.flag('json') ? parseJson(text) : text;
      await context.qmp('qom-set', { path: args.text('path'), property: args.text('property'), value });
      return undefined;
    },
  ),
];
