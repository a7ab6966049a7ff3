import t from 'tap';
import { guestNote } from '../../core/control/dump/notes.ts';
import { GuestNoteSource } from '../../core/firmware/vmcoreinfo.ts';
import { vmcoreinfo } from '../../devices/vmcoreinfo.ts';
import { bootLinux } from './linux-machine.ts';

t.setTimeout(300_000);

t.test('Linux tells of its note, which says what it is', async t => {
  const linux = await bootLinux(t, {
    modules: ['qemu_fw_cfg'],
    plug: machine => machine.system.plug(vmcoreinfo),
    init: 'ls /sys/firmware/qemu_fw_cfg/by_name/etc\necho TOLD',
  });
  if (linux === undefined) return;
  const [said] = await linux.terminal.until(/[\s\S]*TOLD/, 200_000);
  t.match(said, /vmcoreinfo/, 'it sees the file');
  const source = [...linux.machine.devices()].find(device => device instanceof GuestNoteSource);
  const found = source?.note === undefined ? 'no note' : guestNote(source.note, linux.machine.memory);
  const text = typeof found === 'string' ? found : found.vmcoreinfo?.text.toString('latin1');
  t.match(text, /^OSRELEASE=6\.1/);
  t.match(text, /SYMBOL\(swapper_pg_dir\)=/);
});
