import t from 'tap';
import { RunningProgram } from '../core/control/program.ts';

/** QEMU's docs/specs/acpi_mem_hotplug: the registers of the slot that was selected. */
const BASE = 0xa00;
const SELECTOR = BASE;
const FLAGS = BASE + 0x14;
const ENABLED = 1;
const INSERTED = 2;
const REMOVING = 4;
const EJECT = 8;
const GPE_STATUS = 0xafe0;
const MEMORY_EVENT = 1 << 3;
const FIRST = 0x1_0000_0000;
const SIZE = 64 * 2 ** 20;

const OPTIONS = ['-machine', 'pc', '-m', '128M,slots=2,maxmem=256M', '-nodefaults'];

async function read(program: RunningProgram, command: string): Promise<number> {
  return Number((await program.command(command)).split(' ')[1]);
}

async function backend(program: RunningProgram, id: string, size = SIZE): Promise<void> {
  await program.execute('object-add', { 'qom-type': 'memory-backend-ram', id, size });
}

t.test('a DIMM comes, is seen by the guest, and goes on its word', async t => {
  const program = await RunningProgram.start(...OPTIONS);
  t.teardown(() => program.stop());
  await program.execute('qmp_capabilities');
  await backend(program, 'm0');
  t.match(await program.execute('device_add', { driver: 'pc-dimm', id: 'd0', memdev: 'm0', slot: 1 }), { return: {} });
  t.match(await program.execute('query-memory-devices'), {
    return: [
      {
        type: 'dimm',
        data: { id: 'd0', addr: FIRST, size: SIZE, slot: 1, node: 0, memdev: '/objects/m0', hotplugged: true },
      },
    ],
  });
  t.equal(
    (await read(program, `inb 0x${GPE_STATUS.toString(16)}`)) & MEMORY_EVENT,
    MEMORY_EVENT,
    'the SCI has a cause',
  );

  await program.command(`outl 0x${SELECTOR.toString(16)} 0`);
  t.equal(await read(program, `inb 0x${FLAGS.toString(16)}`), 0, 'slot 0 is empty');
  await program.command(`outl 0x${SELECTOR.toString(16)} 1`);
  t.equal(await read(program, `inb 0x${FLAGS.toString(16)}`), ENABLED | INSERTED);
  t.equal(await read(program, `inl 0x${(BASE + 4).toString(16)}`), 1, 'address, high half');
  t.equal(await read(program, `inl 0x${(BASE + 8).toString(16)}`), SIZE);
  await program.command(`outb 0x${FLAGS.toString(16)} ${INSERTED}`);
  t.equal(await read(program, `inb 0x${FLAGS.toString(16)}`), ENABLED);

  await program.command(`writel 0x${FIRST.toString(16)} 0x12345678`);
  t.equal(await read(program, `readl 0x${FIRST.toString(16)}`), 0x12345678, 'there is memory');
  t.match(await program.execute('object-del', { id: 'm0' }), {
    error: { desc: "object 'm0' is in use, can not be deleted" },
  });

  await program.command(`outl 0x${(BASE + 4).toString(16)} 0x103`);
  await program.command(`outl 0x${(BASE + 8).toString(16)} 0x84`);
  t.match(await program.execute('query-acpi-ospm-status'), {
    return: [{ slot: '0' }, { slot: '1', device: 'd0', source: 0x103, status: 0x84 }],
  });
  t.match(
    program.events.map(({ event }) => event),
    ['ACPI_DEVICE_OST'],
  );

  t.match(await program.execute('device_del', { id: 'd0' }), { return: {} });
  t.equal(await read(program, `inb 0x${FLAGS.toString(16)}`), ENABLED | REMOVING);
  await program.command(`outb 0x${FLAGS.toString(16)} ${EJECT}`);
  t.match(await program.execute('query-memory-devices'), { return: [] });
  t.match(program.events.at(-1), { event: 'DEVICE_DELETED', data: { device: 'd0', path: '/machine/peripheral/d0' } });
  t.equal(await read(program, `readl 0x${FIRST.toString(16)}`), 0, 'the memory is gone');
  t.match(await program.execute('object-del', { id: 'm0' }), { return: {} });
});

t.test("what cannot be is refused in QEMU's words", async t => {
  const program = await RunningProgram.start(...OPTIONS);
  t.teardown(() => program.stop());
  await program.execute('qmp_capabilities');
  await backend(program, 'm0');
  await backend(program, 'm1');
  await backend(program, 'odd', 2 ** 20);
  const plug = async (properties: object): Promise<unknown> => {
    const reply = await program.execute('device_add', { driver: 'pc-dimm', ...properties });
    return Reflect.get(Object(reply['error']), 'desc');
  };
  t.equal(await plug({}), "'memdev' property is not set");
  t.equal(await plug({ memdev: 'pc.ram' }), "can't use already busy memdev: pc.ram");
  t.equal(
    await plug({ memdev: 'm0', node: 1 }),
    "'DIMM property node has value 1' which exceeds the number of numa nodes: 1",
  );
  t.equal(await plug({ memdev: 'm0', slot: 2 }), 'invalid slot number 2, valid range is [0-1]');
  t.equal(await plug({ memdev: 'm0', addr: FIRST + 4096 }), 'address must be aligned to 0x200000 bytes');
  t.equal(await plug({ memdev: 'odd' }), 'backend memory size must be multiple of 0x200000');
  t.equal(
    await plug({ memdev: 'm0', addr: 0x8000_0000 }),
    "can't add memory device [0x80000000:0x4000000], usable range for memory devices [0x100000000:0x88000000]",
  );
  t.equal(await plug({ memdev: 'm0', id: 'd0' }), undefined);
  t.equal(await plug({ memdev: 'm1', slot: 0 }), 'slot 0 is busy');
  t.equal(await plug({ memdev: 'm1', addr: FIRST }), "address range conflicts with memory device id='d0'");
  t.equal(await plug({ memdev: 'm1' }), undefined);
  t.equal(await plug({ memdev: 'odd' }), 'no free slots available');
  t.match(await program.execute('query-memory-size-summary'), { return: { 'plugged-memory': 2 * SIZE } });
});
