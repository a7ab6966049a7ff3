/** AML of memory hotplug: the controller MHPD, the container MHPC with a device for each DIMM slot, and its GPE. */
import {
  type Aml,
  acquire,
  add,
  arg,
  block,
  call,
  createDwordField,
  device,
  eisaId,
  field,
  lEqual,
  lLess,
  local,
  method,
  mutex,
  name,
  notify,
  otherwise,
  region,
  release,
  ret,
  store,
  subtract,
  text,
  toInteger,
  when,
  whileLoop,
} from './aml.ts';
import { dwordMemory, io, qwordMemory, resourceTemplate } from './aml-resources.ts';

const REGISTERS = 0x18;
const DEVICE_CHECK = 1;
const EJECT_REQUEST = 3;
const CONTROLLER = '\\_SB.PCI0.MHPD';

/** Where the low halves of _MIN, _MAX and _LEN lie in a template of one QWordMemory descriptor (6.4.3.5.1). */
const QWORD_MIN = 14;
const QWORD_MAX = 22;
const QWORD_LENGTH = 38;
/** The same in a template of one DWordMemory descriptor (6.4.3.5.2). */
const DWORD_MIN = 10;
const DWORD_MAX = 14;
const DWORD_LENGTH = 22;

const CACHEABLE = { cacheable: true, write: 'readWrite' } as const;

function slotName(slot: number): string {
  return `MP${slot.toString(16).toUpperCase().padStart(2, '0')}`;
}

function selectSlot(): Aml {
  return store(toInteger(arg(0)), 'MSEL');
}

/** MSCN: ask each slot whether something was plugged in or is to be taken out. */
function scanMethod(): Aml {
  const slot = local(0);
  return method('MSCN', 0, [
    when(lEqual('MDNR', 0), [ret(0)]),
    store(0, slot),
    acquire('MLCK'),
    whileLoop(lLess(slot, 'MDNR'), [
      store(slot, 'MSEL'),
      when(lEqual('MINS', 1), [call('MTFY', slot, DEVICE_CHECK), store(1, 'MINS')]),
      otherwise([when(lEqual('MRMV', 1), [call('MTFY', slot, EJECT_REQUEST), store(1, 'MRMV')])]),
      add(slot, 1, slot),
    ]),
    release('MLCK'),
    ret(1),
  ]);
}

/** MCRS: the range of a DIMM, as a 32-bit descriptor where it ends below 4 GiB, for systems that know no other. */
function resourcesMethod(): Aml {
  return method(
    'MCRS',
    1,
    [
      acquire('MLCK'),
      selectSlot(),
      name('MR64', resourceTemplate([qwordMemory(0, 0xffff_ffff_ffff_fffen, CACHEABLE, 0xffff_ffff_ffff_ffffn)])),
      createDwordField('MR64', QWORD_MIN, 'MINL'),
      createDwordField('MR64', QWORD_MIN + 4, 'MINH'),
      createDwordField('MR64', QWORD_LENGTH, 'LENL'),
      createDwordField('MR64', QWORD_LENGTH + 4, 'LENH'),
      createDwordField('MR64', QWORD_MAX, 'MAXL'),
      createDwordField('MR64', QWORD_MAX + 4, 'MAXH'),
      store('MRBH', 'MINH'),
      store('MRBL', 'MINL'),
      store('MRLH', 'LENH'),
      store('MRLL', 'LENL'),
      // 64-bit arithmetic in halves: integers are 32 bits wide in a table of revision 1.
      add('MINL', 'LENL', 'MAXL'),
      add('MINH', 'LENH', 'MAXH'),
      when(lLess('MAXL', 'MINL'), [add('MAXH', 1, 'MAXH')]),
      when(lLess('MAXL', 1), [subtract('MAXH', 1, 'MAXH')]),
      subtract('MAXL', 1, 'MAXL'),
      when(lEqual('MAXH', 0), [
        name('MR32', resourceTemplate([dwordMemory(0, 0xffff_fffe, CACHEABLE)])),
        createDwordField('MR32', DWORD_MIN, 'MIN'),
        createDwordField('MR32', DWORD_MAX, 'MAX'),
        createDwordField('MR32', DWORD_LENGTH, 'LEN'),
        store('MINL', 'MIN'),
        store('MAXL', 'MAX'),
        store('LENL', 'LEN'),
        release('MLCK'),
        ret('MR32'),
      ]),
      release('MLCK'),
      ret('MR64'),
    ],
    'serialized',
  );
}

function dimm(slot: number): Aml {
  return device(slotName(slot), [
    name('_UID', text(`0x${slot.toString(16).toUpperCase().padStart(2, '0')}`)),
    name('_HID', eisaId('PNP0C80')),
    method('_CRS', 0, [ret(call('MCRS', '_UID'))]),
    method('_STA', 0, [ret(call('MRST', '_UID'))]),
    method('_PXM', 0, [ret(call('MPXM', '_UID'))]),
    method('_OST', 3, [call('MOST', '_UID', arg(0), arg(1), arg(2))]),
    method('_EJ0', 1, [call('MEJ0', '_UID', arg(0))]),
  ]);
}

/**
 * The terms at the root of the DSDT.
 *
 * @param base the controller's first port
 * @param slotCount how many DIMM slots the machine has
 */
export function memoryHotplug(base: number, slotCount: number): Aml {
  const slots = Array.from({ length: slotCount }, (_, slot) => slot);
  const registers = `${CONTROLLER}.HPMR`;
  const status = local(0);
  return block([
    device(CONTROLLER, [
      name('_HID', text('PNP0A06')),
      name('_UID', text('Memory hotplug resources')),
      name('_CRS', resourceTemplate([io(base, REGISTERS, 0)])),
      region('HPMR', 'systemIO', base, REGISTERS),
    ]),
    device('\\_SB.MHPC', [
      name('_HID', text('PNP0A06')),
      name('_UID', text('DIMM devices')),
      name('MDNR', slotCount),
      field(registers, { access: 'dword', update: 'preserve' }, [
        ['MRBL', 32],
        ['MRBH', 32],
        ['MRLL', 32],
        ['MRLH', 32],
        ['MPX', 32],
      ]),
      field(registers, { access: 'byte', update: 'writeAsZeros' }, [
        ['', 0x14 * 8],
        ['MES', 1],
        ['MINS', 1],
        ['MRMV', 1],
        ['MEJ', 1],
      ]),
      field(registers, { access: 'dword', update: 'preserve' }, [
        ['MSEL', 32],
        ['MOEV', 32],
        ['MOSC', 32],
      ]),
      method('_STA', 0, [when(lEqual('MDNR', 0), [ret(0)]), ret(0xb)]),
      mutex('MLCK'),
      scanMethod(),
      method('MRST', 1, [
        store(0, status),
        acquire('MLCK'),
        selectSlot(),
        when(lEqual('MES', 1), [store(0xf, status)]),
        release('MLCK'),
        ret(status),
      ]),
      resourcesMethod(),
      method('MPXM', 1, [acquire('MLCK'), selectSlot(), store('MPX', status), release('MLCK'), ret(status)]),
      method('MOST', 4, [acquire('MLCK'), selectSlot(), store(arg(1), 'MOEV'), store(arg(2), 'MOSC'), release('MLCK')]),
      method('MEJ0', 2, [acquire('MLCK'), selectSlot(), store(1, 'MEJ'), release('MLCK')]),
      slots.map(dimm),
      method(
        'MTFY',
        2,
        slots.map(slot => when(lEqual(arg(0), slot), [notify(slotName(slot), arg(1))])),
      ),
    ]),
    method('\\_GPE._E03', 0, [call('\\_SB.MHPC.MSCN')]),
  ]);
}
