/** AML of CXL: what a host bridge of its own kind says, and the device by which systems find CXL at all (CXL 2.0, section 9.14). */
import {
  type Aml,
  and,
  arg,
  type Body,
  createDwordField,
  device,
  eisaId,
  lEqual,
  lNot,
  lOr,
  local,
  method,
  name,
  or,
  otherwise,
  pkg,
  ret,
  scope,
  store,
  text,
  uuid,
  when,
} from './aml.ts';
import { PCI_HOST_OSC } from './dsdt-pci.ts';

const CXL_HOST_OSC = '68F2D50B-C469-4D8A-BD3D-941A103FD3FC';
/** Native hotplug of PCI Express and standard, power management events, error reporting, the Express capability. */
const PCI_CONTROL = 0x1f;
/** 9.14.2.1.4, table 204: registers of ports and devices of 2.0. */
const CXL_REGISTER_ACCESS = 0x01;
/** ACPI 6.4, 6.2.11: bits of the first dword. */
const FAILURE = { UUID: 0x04, REVISION: 0x08, MASKED: 0x10 } as const;
/** `_STA` as QEMU 7.2.0 has it: present. From 7.2.10 on it is 0xb, enabled and working as well, which later systems ask for. */
const PRESENT = 0x1;

/** The identity of a CXL host bridge, which is one of PCI Express too, and its `_OSC`. */
export function cxlHost(number: number): Body {
  return [
    name('_HID', text('ACPI0016')),
    name('_CID', pkg([eisaId('PNP0A08'), eisaId('PNP0A03')])),
    name('_ADR', 0),
    name('_UID', number),
    name('SUPP', 0),
    name('CTRL', 0),
    name('SUPC', 0),
    name('CTRC', 0),
    cxlHostOsc(),
  ];
}

/** `_OSC` for both UUIDs; CXL's has two dwords more (9.14.2.1.4). */
function cxlHostOsc(): Aml {
  const granted = local(0);
  return method('_OSC', 4, [
    createDwordField(arg(3), 0, 'CDW1'),
    when(lOr(lEqual(arg(0), uuid(PCI_HOST_OSC)), lEqual(arg(0), uuid(CXL_HOST_OSC))), [
      createDwordField(arg(3), 4, 'CDW2'),
      createDwordField(arg(3), 8, 'CDW3'),
      store('CDW3', granted),
      and(granted, PCI_CONTROL, granted),
      when(lNot(lEqual(arg(1), 1)), [or('CDW1', FAILURE.REVISION, 'CDW1')]),
      when(lNot(lEqual('CDW3', granted)), [or('CDW1', FAILURE.MASKED, 'CDW1')]),
      store('CDW2', 'SUPP'),
      store('CDW3', 'CTRL'),
      store(granted, 'CDW3'),
      when(lEqual(arg(0), uuid(CXL_HOST_OSC)), [
        createDwordField(arg(3), 12, 'CDW4'),
        createDwordField(arg(3), 16, 'CDW5'),
        store('CDW4', 'SUPC'),
        store('CDW5', 'CTRC'),
        or('CDW5', CXL_REGISTER_ACCESS, 'CDW5'),
      ]),
      ret(arg(3)),
    ]),
    otherwise([or('CDW1', FAILURE.UUID, 'CDW1'), ret(arg(3))]),
  ]);
}

/** The root of CXL, one for all host bridges (9.14.1.1). */
export function cxlRoot(): Aml {
  return scope('_SB', [device('CXLM', [name('_HID', text('ACPI0017')), method('_STA', 0, [ret(PRESENT)])])]);
}
