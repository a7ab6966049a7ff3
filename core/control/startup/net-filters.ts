import type { Chardev } from '../../char/chardev.ts';
import { SouthbridgeError } from '../../errors.ts';
import type { NetFilter } from '../../net/filter.ts';
import { BufferFilter } from '../../net/filter-buffer.ts';
import { DumpFilter } from '../../net/filter-dump.ts';
import { MirrorFilter, RedirectorFilter } from '../../net/filter-redirect.ts';
import type { NetClient } from '../../net/net-client.ts';
import type { Program } from '../program.ts';
import { QmpError } from '../qapi/error.ts';
import type { UserObject, UserObjects } from './objects.ts';

/** Puts a filter on its backend's wire, as creating its object does; deleting the object takes it off. */
export async function addFilter(program: Program, objects: UserObjects, object: UserObject): Promise<void> {
  const { spec } = object;
  if (!('netdev' in spec)) return;
  const nets = await program.nets();
  const backend = nets.get(spec.netdev);
  if (backend === undefined) throw new QmpError("Parameter 'netdev' expects a network backend id");
  if (backend.queues !== undefined && backend.queues.length > 1) throw new QmpError('multiqueue is not supported');
  const { client } = backend;
  const place = placeFor(spec.position ?? 'tail', spec.insert ?? 'behind', client, objects);
  const filter = makeFilter(program, object, client);
  client.filters.splice(place, 0, filter);
  object.defineProperty({
    name: 'status',
    type: 'string',
    get: () => (filter.on ? 'on' : 'off'),
    set: value => filter.setStatus(String(value)),
  });
  for (const [name, value] of Object.entries({ queue: filter.queue, position: 'tail', insert: 'behind' })) {
    if (object.property(name) === undefined) object.defineProperty({ name, type: 'string', get: () => value });
  }
  object.onDelete = () => {
    filter.dispose();
    const index = client.filters.indexOf(filter);
    if (index >= 0) client.filters.splice(index, 1);
  };
}

/** Where the new filter goes: `head`, `tail`, or beside the filter `id=...`. */
function placeFor(position: string, insert: string, client: NetClient, objects: UserObjects): number {
  if (position === 'head') return 0;
  if (position === 'tail') return client.filters.length;
  if (!position.startsWith('id=')) {
    throw new QmpError("Parameter 'position' expects 'head', 'tail' or 'id=<id>'");
  }
  const id = position.slice('id='.length);
  if (objects.get(id) === undefined) throw new QmpError(`filter '${id}' not found`);
  const index = client.filters.findIndex(filter => filter.id === id);
  if (index < 0) throw new QmpError(`filter '${id}' belongs to a different netdev`);
  return insert === 'before' ? index : index + 1;
}

function makeFilter(program: Program, object: UserObject, client: NetClient): NetFilter {
  const { id, spec } = object;
  const device = (name: string, missing: string): Chardev => {
    if (program.chars.get(name) === undefined) throw new QmpError(`${missing} '${name}' not found`, 'DeviceNotFound');
    return program.chars.claim(name);
  };
  switch (spec['qom-type']) {
    case 'filter-buffer':
      return new BufferFilter(id, client, spec);
    case 'filter-dump':
      return new DumpFilter(id, client, spec);
    case 'filter-mirror':
      return new MirrorFilter(id, client, spec, device(spec.outdev, 'Device'));
    case 'filter-redirector': {
      const { indev, outdev } = spec;
      if (indev !== undefined && indev === outdev) {
        throw new QmpError("'indev' and 'outdev' could not be same for filter redirector");
      }
      const input = indev === undefined ? undefined : device(indev, 'IN Device');
      const output = outdev === undefined ? undefined : device(outdev, 'OUT Device');
      return new RedirectorFilter(id, client, spec, { in: input, out: output });
    }
    default:
      throw new SouthbridgeError('ERR_NETFILTER', `'${spec['qom-type']}' is no network filter`);
  }
}
