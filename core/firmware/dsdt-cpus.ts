/** AML of CPU hotplug: the controller PRES, the container CPUS with a processor for each possible CPU, and its GPE. */
import type { AcpiCpu } from './acpi-tables.ts';
import { localApic } from './acpi-tables.ts';
import {
  type Aml,
  acquire,
  arg,
  block,
  breakLoop,
  buffer,
  call,
  debug,
  derefOf,
  device,
  eisaId,
  field,
  increment,
  index,
  lAnd,
  lEqual,
  lGreater,
  lLess,
  local,
  method,
  mutex,
  name,
  notify,
  otherwise,
  pkg,
  processor,
  region,
  release,
  ret,
  scope,
  store,
  text,
  when,
  whileLoop,
} from './aml.ts';
import { io, resourceTemplate } from './aml-resources.ts';

export interface CpuHotplugFacts {
  readonly cpus: readonly AcpiCpu[];
  /** Base of the controller's ports. */
  readonly base: number;
  /** The firmware negotiated an SMI for CPUs that appear, and perhaps for CPUs that go (ICH9 only). */
  readonly smi?: { readonly unplug: boolean };
}

const REGISTERS = 12;
/** PackageOp holds no more elements than this. */
const CPUS_PER_PASS = 255;
const XAPIC_MAX_ID = 254;

const PRES = '\\_SB.PCI0.PRES';
const LOCK = `${PRES}.CPLK`;
const SELECTOR = `${PRES}.CSEL`;
const ENABLED = `${PRES}.CPEN`;
const COMMAND = `${PRES}.CCMD`;
const DATA = `${PRES}.CDAT`;
const INSERTED = `${PRES}.CINS`;
const REMOVING = `${PRES}.CRMV`;
const EJECT = `${PRES}.CEJ0`;
const FIRMWARE_EJECT = `${PRES}.CEJF`;
const SMI_COMMAND = '\\_SB.PCI0.SMI0.SMIC';

/** Values of the command register. */
const NEXT_WITH_EVENT = 0;
const OST_EVENT = 1;
const OST_STATUS = 2;
/** What the firmware's SMI handler takes as "look at the CPUs". */
const SMI_CPU_HOTPLUG = 4;

const DEVICE_CHECK = 1;
const EJECT_REQUEST = 3;

function cpuName(uid: number): string {
  return `C${uid.toString(16).toUpperCase().padStart(3, '0')}`;
}

function controller(base: number): Aml {
  return device(PRES, [
    name('_HID', eisaId('PNP0A06')),
    name('_UID', text('CPU Hotplug resources')),
    mutex('CPLK'),
    name('_CRS', resourceTemplate([io(base, REGISTERS)])),
    region('PRST', 'systemIO', base, REGISTERS),
    field('PRST', { access: 'byte', update: 'writeAsZeros' }, [
      ['', 32],
      ['CPEN', 1],
      ['CINS', 1],
      ['CRMV', 1],
      ['CEJ0', 1],
      ['CEJF', 1],
      ['', 3],
      ['CCMD', 8],
    ]),
    field('PRST', { access: 'dword', update: 'preserve' }, [
      ['CSEL', 32],
      ['', 32],
      ['CDAT', 32],
    ]),
    // A write to the selector switches the controller from its legacy bitmap to these registers.
    method('_INI', 0, [store(0, 'CSEL')], 'serialized'),
  ]);
}

function scan(facts: CpuHotplugFacts): Aml {
  const hasEvent = local(0);
  const added = local(1);
  const position = local(2);
  const uid = local(3);
  const hasJob = local(4);
  const findCpus = whileLoop(lAnd(lEqual(hasEvent, 1), lLess(uid, facts.cpus.length)), [
    store(0, hasEvent),
    store(uid, SELECTOR),
    store(NEXT_WITH_EVENT, COMMAND),
    when(lLess(DATA, uid), [breakLoop]),
    when(lEqual(added, CPUS_PER_PASS), [store(1, hasJob), breakLoop]),
    store(DATA, uid),
    when(lEqual(INSERTED, 1), [store(uid, index('CNEW', added)), increment(added), store(1, hasEvent)]),
    otherwise([when(lEqual(REMOVING, 1), [call('CTFY', uid, EJECT_REQUEST), store(1, REMOVING), store(1, hasEvent)])]),
    increment(uid),
  ]);
  const announceCpus = whileLoop(lLess(position, added), [
    store(derefOf(index('CNEW', position)), uid),
    call('CTFY', uid, DEVICE_CHECK),
    store(uid, debug),
    store(uid, SELECTOR),
    store(1, INSERTED),
    increment(position),
  ]);
  return method(
    'CSCN',
    0,
    [
      acquire(LOCK),
      name('CNEW', pkg([], CPUS_PER_PASS)),
      store(0, uid),
      store(1, hasJob),
      whileLoop(lEqual(hasJob, 1), [
        store(0, hasJob),
        store(1, hasEvent),
        store(0, added),
        findCpus,
        facts.smi !== undefined && when(lGreater(added, 0), [store(SMI_CPU_HOTPLUG, SMI_COMMAND)]),
        store(0, position),
        announceCpus,
      ]),
      release(LOCK),
    ],
    'serialized',
  );
}

function cpuObject(cpu: AcpiCpu, uid: number): Aml {
  const body = [
    method('_STA', 0, [ret(call('CSTA', uid))], 'serialized'),
    name('_MAT', buffer(localApic(uid, cpu.apicId, true))),
    uid !== 0 && method('_EJ0', 1, [call('CEJ0', uid)]),
    method('_OST', 3, [call('COST', uid, arg(0), arg(1), arg(2))], 'serialized'),
    cpu.node !== undefined && name('_PXM', cpu.node),
  ];
  if (cpu.apicId <= XAPIC_MAX_ID) return processor(cpuName(uid), uid & 0xff, 0, 0, body);
  return device(cpuName(uid), [name('_HID', text('ACPI0007')), name('_UID', uid), ...body]);
}

/** The terms at the root of the DSDT. */
export function cpuHotplug(facts: CpuHotplugFacts): Aml {
  const status = local(0);
  return block([
    scope('_SB', [
      controller(facts.base),
      device('\\_SB.CPUS', [
        name('_HID', text('ACPI0010')),
        name('_CID', eisaId('PNP0A05')),
        method(
          'CTFY',
          2,
          facts.cpus.map((_, uid) => when(lEqual(arg(0), uid), [notify(cpuName(uid), arg(1))])),
        ),
        method(
          'CSTA',
          1,
          [
            acquire(LOCK),
            store(arg(0), SELECTOR),
            store(0, status),
            when(lEqual(ENABLED, 1), [store(0xf, status)]),
            release(LOCK),
            ret(status),
          ],
          'serialized',
        ),
        method(
          'CEJ0',
          1,
          [
            acquire(LOCK),
            store(arg(0), SELECTOR),
            facts.smi?.unplug === true
              ? [store(1, FIRMWARE_EJECT), store(SMI_CPU_HOTPLUG, SMI_COMMAND)]
              : store(1, EJECT),
            release(LOCK),
          ],
          'serialized',
        ),
        scan(facts),
        method(
          'COST',
          4,
          [
            acquire(LOCK),
            store(arg(0), SELECTOR),
            store(OST_EVENT, COMMAND),
            store(arg(1), DATA),
            store(OST_STATUS, COMMAND),
            store(arg(2), DATA),
            release(LOCK),
          ],
          'serialized',
        ),
        facts.cpus.map(cpuObject),
      ]),
    ]),
    method('\\_GPE._E02', 0, [call('\\_SB.CPUS.CSCN')]),
  ]);
}
