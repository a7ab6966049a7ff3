import { GROUPS } from '../../options/groups.ts';
import { parseKeyval, parseOpts } from '../../options/opts.ts';
import { QmpError } from '../../qapi/error.ts';
import type { HmpArguments } from '../arguments.ts';
import { type HmpCommand, hmp, viaQmp } from '../command.ts';

const device = (args: HmpArguments): { device: string } => ({ device: args.text('device') });
const mode = (args: HmpArguments): 'existing' | 'absolute-paths' =>
  args.flag('reuse') ? 'existing' : 'absolute-paths';

/** `localhost:10809`, `unix:/path`: where a server listens. */
function socketAddress(uri: string): Record<string, unknown> {
  const unix = /^unix:(.+)$/.exec(uri);
  if (unix !== null) return { type: 'unix', data: { path: unix[1] } };
  const inet = /^(.*):(\d+)$/.exec(uri);
  if (inet === null) throw new QmpError(`error parsing address '${uri}'`);
  return { type: 'inet', data: { host: inet[1], port: inet[2] } };
}

/** Disks, media, jobs, snapshots of disks, NBD. */
export const BLOCK_COMMANDS: readonly HmpCommand[] = [
  hmp('commit', 'device:B', 'device|all', 'write changes into backing files', async ({ program }, args) => {
    const { commitBacking } = await import('../../../block/jobs/chain.ts');
    const { graph } = await program.blocks();
    const name = args.text('device');
    const backends = [...graph.backends].filter(backend => name === 'all' || backend.name === name);
    if (backends.length === 0) throw new QmpError(`Device '${name}' not found`);
    for (const { root } of backends) {
      if (name === 'all' && root?.backing === undefined) continue;
      if (root === undefined) throw new QmpError(`'commit' error for '${name}': No medium found`);
      await commitBacking(graph, root);
    }
    return undefined;
  }),
  hmp(
    'block_resize',
    'device:B,size:o',
    'device size',
    'make a disk larger or smaller',
    viaQmp('block_resize', args => ({ ...device(args), size: args.integer('size') })),
  ),
  hmp(
    'block_stream',
    'device:B,speed:o?,base:s?',
    'device [speed [base]]',
    'copy what backing files have into a disk',
    viaQmp('block-stream', args => ({
      ...device(args),
      speed: args.optionalInteger('speed'),
      base: args.optional('base'),
      'on-error': 'report',
    })),
  ),
  hmp(
    'block_job_set_speed',
    'device:B,speed:o',
    'device speed',
    'limit how fast a job copies',
    viaQmp('block-job-set-speed', args => ({ ...device(args), speed: args.integer('speed') })),
  ),
  hmp(
    'block_job_cancel',
    'force:-f,device:B',
    '[-f] device',
    'end a job; with -f at once, in sync or not',
    viaQmp('block-job-cancel', args => ({ ...device(args), force: args.flag('force') })),
  ),
  hmp('block_job_complete', 'device:B', 'device', 'let a job finish', viaQmp('block-job-complete', device)),
  hmp('block_job_pause', 'device:B', 'device', 'hold a job', viaQmp('block-job-pause', device)),
  hmp('block_job_resume', 'device:B', 'device', 'let a held job go on', viaQmp('block-job-resume', device)),
  hmp(
    'eject',
    'force:-f,device:B',
    '[-f] device',
    'take a medium out; with -f even where the guest has locked it',
    viaQmp('eject', args => ({ ...device(args), force: args.flag('force') })),
  ),
  hmp(
    'change',
    'device:B,force:-f,target:F,arg:s?,read-only-mode:s?',
    'device [-f] filename [format [read-only-mode]]',
    'put another medium in; or another password of VNC',
    async (context, args) => {
      const name = args.text('device');
      const target = args.text('target');
      const format = args.optional('arg');
      if (name === 'vnc') {
        if (target !== 'passwd' && target !== 'password') throw new QmpError("Expected 'password' after 'vnc'");
        if (format === undefined) throw new QmpError('the monitor does not ask for passwords: name it');
        await context.qmp('change-vnc-password', { password: format });
        return undefined;
      }
      const mode = args.optional('read-only-mode');
      await context.qmp('blockdev-change-medium', {
        device: name,
        filename: target,
        ...(format !== undefined && { format }),
        ...(mode !== undefined && { 'read-only-mode': mode }),
        ...(args.flag('force') && { force: true }),
      });
      return undefined;
    },
  ),
  hmp(
    'drive_add',
    'node:-n,pci_addr:s,opts:s',
    '[-n] [[<domain>:]<bus>:]<slot> [file=file][,if=type][,...]',
    'add a drive that a device can then have',
    async ({ program }, args) => {
      const description = args.text('opts');
      if (args.flag('node')) {
        await (await program.blocks()).addNode(parseKeyval(description), true);
        return undefined;
      }
      const opts = parseOpts(GROUPS.drive, description);
      if (opts.string('if') !== 'none') throw new QmpError("Can't hot-add drive to type 0");
      await (await program.blocks()).addDrive(opts);
      return 'OK\n';
    },
  ),
  hmp('drive_del', 'id:B', 'device', 'take a drive away from its device', async ({ program }, args) => {
    try {
      await (await program.blocks()).removeDrive(args.text('id'));
    } catch (error) {
      return `${error instanceof Error ? error.message : String(error)}\n`;
    }
    return undefined;
  }),
  hmp(
    'drive_mirror',
    'reuse:-n,full:-f,device:B,target:s,format:s?',
    '[-n] [-f] device target [format]',
    'copy a disk to another image, and what is written meanwhile (-n: the image exists; -f: all of it)',
    viaQmp('drive-mirror', args => ({
      ...device(args),
      target: args.text('target'),
      format: args.optional('format'),
      mode: mode(args),
      sync: args.flag('full') ? 'full' : 'top',
    })),
  ),
  hmp(
    'drive_backup',
    'reuse:-n,full:-f,compress:-c,device:B,target:s,format:s?',
    '[-n] [-f] [-c] device target [format]',
    'copy a disk as it is now (-n: the image exists; -f: all of it; -c: compressed)',
    viaQmp('drive-backup', args => ({
      ...device(args),
      target: args.text('target'),
      format: args.optional('format'),
      mode: mode(args),
      sync: args.flag('full') ? 'full' : 'top',
      compress: args.flag('compress'),
    })),
  ),
  hmp(
    'snapshot_blkdev',
    'reuse:-n,device:B,snapshot-file:s?,format:s?',
    '[-n] device [new-image-file] [format]',
    'go on in a new image that has the present one behind it',
    viaQmp('blockdev-snapshot-sync', args => {
      const file = args.optional('snapshot-file');
      if (file === undefined) throw new QmpError("Parameter 'snapshot-file' is missing");
      return {
        ...device(args),
        'snapshot-file': file,
        format: args.optional('format'),
        mode: mode(args),
      };
    }),
  ),
  hmp(
    'snapshot_blkdev_internal',
    'device:B,name:s',
    'device name',
    'take a snapshot inside an image',
    viaQmp('blockdev-snapshot-internal-sync', args => ({ ...device(args), name: args.text('name') })),
  ),
  hmp(
    'snapshot_delete_blkdev_internal',
    'device:B,name:s,id:s?',
    'device name [id]',
    'delete a snapshot inside an image',
    viaQmp('blockdev-snapshot-delete-internal-sync', args => ({
      ...device(args),
      name: args.text('name'),
      id: args.optional('id'),
    })),
  ),
  hmp(
    'block_set_io_throttle',
    'device:B,bps:l,bps_rd:l,bps_wr:l,iops:l,iops_rd:l,iops_wr:l',
    'device bps bps_rd bps_wr iops iops_rd iops_wr',
    'limit how fast a disk may be',
    viaQmp('block_set_io_throttle', args => ({
      ...device(args),
      ...Object.fromEntries(
        ['bps', 'bps_rd', 'bps_wr', 'iops', 'iops_rd', 'iops_wr'].map(name => [name, args.integer(name)]),
      ),
    })),
  ),
  hmp(
    'nbd_server_start',
    'all:-a,writable:-w,uri:s',
    '[-a] [-w] host:port',
    'serve disks with the NBD protocol (-a: all of them; -w: for writing)',
    async (context, args) => {
      if (args.flag('writable') && !args.flag('all')) throw new QmpError('-w only valid together with -a');
      await context.qmp('nbd-server-start', { addr: socketAddress(args.text('uri')) });
      if (!args.flag('all')) return undefined;
      for (const { name, root } of (await context.program.blocks()).graph.backends) {
        if (root === undefined || name === '') continue;
        await context.qmp('nbd-server-add', { device: name, writable: args.flag('writable') });
      }
      return undefined;
    },
  ),
  hmp(
    'nbd_server_add',
    'writable:-w,device:B,name:s?',
    '[-w] device [name]',
    'serve one more disk',
    viaQmp('nbd-server-add', args => ({
      ...device(args),
      name: args.optional('name'),
      writable: args.flag('writable'),
    })),
  ),
  hmp(
    'nbd_server_remove',
    'force:-f,name:s',
    '[-f] name',
    'serve a disk no longer',
    viaQmp('nbd-server-remove', args => ({
      name: args.text('name'),
      ...(args.flag('force') && { mode: 'hard' }),
    })),
  ),
  hmp('nbd_server_stop', '', '', 'stop the NBD server', viaQmp('nbd-server-stop')),
  hmp(
    'qemu-io',
    'qdev:-d,device:B,command:s',
    '[-d] [device] "[command]"',
    "run a command of qemu-io's on a disk (-d: the id is a device's)",
    async ({ program }, args) => {
      const { qemuIo } = await import('../../../block/qemu-io/qemu-io.ts');
      const { graph } = await program.blocks();
      const print = (text: string): void => void process.stdout.write(text);
      return qemuIo(graph, args.text('device'), args.text('command'), print, args.flag('qdev'));
    },
  ),
];
