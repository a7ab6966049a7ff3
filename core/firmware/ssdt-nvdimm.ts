/**
 * AML of persistent memory: the root device NVDR with a device for each slot (ACPI 6.4 section 9.19). Their methods pass what they
 * are asked to the machine through a page of memory and a port (QEMU docs/specs/acpi_nvdimm).
 */
import type { AcpiBlob, AcpiOem } from './acpi-blob.ts';
import {
  type Aml,
  add,
  arg,
  block,
  buffer,
  call,
  concatenate,
  createDwordField,
  createField,
  derefOf,
  device,
  dword,
  field,
  increment,
  index,
  lAnd,
  lEqual,
  lLess,
  lNot,
  lOr,
  local,
  method,
  name,
  objectType,
  otherwise,
  pkg,
  region,
  ret,
  scope,
  shiftLeft,
  sizeOf,
  store,
  subtract,
  type Term,
  text,
  toBuffer,
  uuid,
  when,
  whileLoop,
} from './aml.ts';
import { nvdimmHandle } from './nfit.ts';

/** The page through which methods and machine talk; the firmware places it. */
export const NVDIMM_PAGE_FILE = 'etc/acpi/nvdimm-mem';
export const NVDIMM_PAGE_SIZE = 4096;
/** A write of the page's address has the machine answer what is in it. */
export const NVDIMM_PORT = 0xa18;
export const NVDIMM_PORT_SIZE = 4;

/** Where the page's parts are: what is asked, and over it the answer. */
export const NVDIMM_CALL = { HANDLE: 0, REVISION: 4, FUNCTION: 8, ARGUMENT: 12 } as const;
export const NVDIMM_ANSWER = { LENGTH: 0, DATA: 4 } as const;
/** Status at the start of an answer (Intel, "NVDIMM DSM Interface", 2.1; the last one is QEMU's). */
export const NVDIMM_STATUS = {
  SUCCESS: 0,
  NOT_SUPPORTED: 1,
  NON_EXISTING_MEMORY_DEVICE: 2,
  INVALID_INPUT: 3,
  FIT_CHANGED: 0x100,
} as const;
/** Asks for what `_FIT` returns. */
export const READ_FIT = { HANDLE: 0x1_0000, FUNCTION: 1 } as const;
/** Functions of a module (Intel, "NVDIMM DSM Interface" 1.2, chapter 3). */
export const LABEL_FUNCTION = { SIZE: 4, READ: 5, WRITE: 6 } as const;

const ROOT_UUID = '2F10E7A4-9E91-11E4-89D3-123B93F75CBA';
const MODULE_UUID = '4309AC30-0D11-11E4-9191-0800200C9A66';
const READ_FIT_UUID = '648B9CF2-CDA1-4312-8AD9-49C4AF32BD62';
const REVISION = 1;
const PACKAGE = 4;
/** A field of no more bits than an integer has is one, and cannot be taken apart; integers have 64 at most. */
const INTEGER_BYTES = 8;
/** The value of MEMA, at the end of the table: the page's address. */
const ADDRESS_SIZE = 4;

const bytes = (count: number): Aml => buffer(new Uint8Array(count));

/** NCAL(UUID, revision, function, argument, handle): what every `_DSM` comes to. */
function callMethod(): Aml {
  const [wanted, length, position, argument, page, answer] = [
    local(0),
    local(1),
    local(2),
    local(3),
    local(6),
    local(7),
  ];
  const element = position;
  const [id, revision, requested, parameters, handle] = [arg(0), arg(1), arg(2), arg(3), arg(4)];
  const rules = { access: 'dword', update: 'preserve' } as const;
  return method(
    'NCAL',
    5,
    [
      store('MEMA', page),
      region('NPIO', 'systemIO', NVDIMM_PORT, NVDIMM_PORT_SIZE),
      region('NRAM', 'systemMemory', page, NVDIMM_PAGE_SIZE),
      field('NPIO', rules, [['NTFI', 8 * NVDIMM_PORT_SIZE]]),
      field('NRAM', rules, [
        ['HDLE', 32],
        ['REVS', 32],
        ['FUNC', 32],
        ['FARG', 8 * (NVDIMM_PAGE_SIZE - NVDIMM_CALL.ARGUMENT)],
      ]),
      field('NRAM', rules, [
        ['RLEN', 32],
        ['ODAT', 8 * (NVDIMM_PAGE_SIZE - NVDIMM_ANSWER.DATA)],
      ]),
      when(lEqual(handle, 0), [store(uuid(ROOT_UUID), wanted)]),
      otherwise([
        when(lEqual(handle, READ_FIT.HANDLE), [store(uuid(READ_FIT_UUID), wanted)]),
        otherwise([store(uuid(MODULE_UUID), wanted)]),
      ]),
      // Nothing can be asked before the firmware has placed the page.
      when(lOr(lEqual(page, 0), lNot(lEqual(id, wanted))), [
        when(lEqual(requested, 0), [ret(buffer([0]))]),
        ret(buffer([NVDIMM_STATUS.NOT_SUPPORTED])),
      ]),
      store(handle, 'HDLE'),
      store(revision, 'REVS'),
      store(requested, 'FUNC'),
      when(lAnd(lEqual(objectType(parameters), PACKAGE), lEqual(sizeOf(parameters), 1)), [
        store(index(parameters, 0), element),
        store(derefOf(element), argument),
        store(argument, 'FARG'),
      ]),
      store(page, 'NTFI'),
      subtract('RLEN', NVDIMM_ANSWER.DATA, length),
      when(lLess(length, INTEGER_BYTES), [
        store(0, position),
        name('TBUF', bytes(1)),
        store(bytes(0), answer),
        whileLoop(lLess(position, length), [
          store(derefOf(index('ODAT', position)), index('TBUF', 0)),
          concatenate(answer, 'TBUF', answer),
          increment(position),
        ]),
        ret(answer),
      ]),
      store(shiftLeft(length, 3), length),
      createField('ODAT', 0, length, 'OBUF'),
      ret('OBUF'),
    ],
    'serialized',
  );
}

function dsmMethod(handle: number): Aml {
  return method('_DSM', 4, [ret(call('NCAL', arg(0), arg(1), arg(2), arg(3), handle))]);
}

/** RFIT(offset): a piece of the table, RSTA its status; nothing behind the end. */
function readFitMethod(): Aml {
  const [answer, length] = [local(0), local(1)];
  const STATUS_SIZE = 4;
  return method(
    'RFIT',
    1,
    [
      name('OFST', 0),
      store(arg(0), 'OFST'),
      store(call('NCAL', uuid(READ_FIT_UUID), REVISION, READ_FIT.FUNCTION, pkg(['OFST']), READ_FIT.HANDLE), answer),
      createDwordField(answer, 0, 'STAU'),
      store('STAU', 'RSTA'),
      when(lNot(lEqual(NVDIMM_STATUS.SUCCESS, 'STAU')), [ret(bytes(0))]),
      store(sizeOf(answer), length),
      subtract(length, STATUS_SIZE, length),
      when(lEqual(length, 0), [ret(bytes(0))]),
      createField(answer, 8 * STATUS_SIZE, shiftLeft(length, 3), 'BUFF'),
      ret('BUFF'),
    ],
    'serialized',
  );
}

/** _FIT (6.5.9): the pieces, from the start again where the table changed meanwhile. */
function fitMethod(): Aml {
  const [piece, length, whole, offset] = [local(0), local(1), local(2), local(3)];
  return method(
    '_FIT',
    0,
    [
      store(bytes(0), whole),
      store(0, offset),
      whileLoop(1, [
        store(call('RFIT', offset), piece),
        store(sizeOf(piece), length),
        when(lEqual('RSTA', NVDIMM_STATUS.FIT_CHANGED), [store(bytes(0), whole), store(0, offset)]),
        otherwise([
          when(lEqual(length, 0), [ret(whole)]),
          add(offset, length, offset),
          concatenate(whole, piece, whole),
        ]),
      ]),
    ],
    'serialized',
  );
}

function labelCall(operation: number, argument: Term, handle: number): Aml {
  return call('NCAL', uuid(MODULE_UUID), REVISION, operation, argument, handle);
}

/** The module of a slot, there or not, with its label methods (6.5.10). */
function moduleDevice(slot: number): Aml {
  const handle = nvdimmHandle(slot);
  const [argument, result, data, answer] = [local(0), local(1), local(2), local(3)];
  return device(`NV${slot.toString(16).toUpperCase().padStart(2, '0')}`, [
    name('_ADR', handle),
    method(
      '_LSI',
      0,
      [
        store(labelCall(LABEL_FUNCTION.SIZE, 0, handle), argument),
        createDwordField(argument, 0, 'STTS'),
        createDwordField(argument, 4, 'SLSA'),
        createDwordField(argument, 8, 'MAXT'),
        store(pkg(['STTS', 'SLSA', 'MAXT']), result),
        ret(result),
      ],
      'serialized',
    ),
    method(
      '_LSR',
      2,
      [
        name('INPT', bytes(8)),
        createDwordField('INPT', 0, 'OFST'),
        createDwordField('INPT', 4, 'LEN'),
        store(arg(0), 'OFST'),
        store(arg(1), 'LEN'),
        store(pkg(['INPT']), argument),
        store(labelCall(LABEL_FUNCTION.READ, argument, handle), answer),
        createDwordField(answer, 0, 'STTS'),
        createField(answer, 32, shiftLeft('LEN', 3), 'LDAT'),
        name('LSA', bytes(0)),
        toBuffer('LDAT', 'LSA'),
        store(pkg(['STTS', 'LSA']), result),
        ret(result),
      ],
      'serialized',
    ),
    method(
      '_LSW',
      3,
      [
        store(arg(2), data),
        name('INPT', bytes(8)),
        createDwordField('INPT', 0, 'OFST'),
        createDwordField('INPT', 4, 'TLEN'),
        store(arg(0), 'OFST'),
        store(arg(1), 'TLEN'),
        concatenate('INPT', data, 'INPT'),
        store(pkg(['INPT']), argument),
        store(labelCall(LABEL_FUNCTION.WRITE, argument, handle), answer),
        createDwordField(answer, 0, 'STTS'),
        ret('STTS'),
      ],
      'serialized',
    ),
    dsmMethod(handle),
  ]);
}

/** Lists the SSDT, and has the page placed. */
export function ssdtNvdimm(blob: AcpiBlob, oem: AcpiOem, slotCount: number): void {
  const slots = Array.from({ length: slotCount }, (_, slot) => slot);
  const body = block([
    scope('\\_SB', [
      device('NVDR', [
        name('_HID', text('ACPI0012')),
        callMethod(),
        dsmMethod(0),
        name('RSTA', 0),
        readFitMethod(),
        fitMethod(),
        slots.map(moduleDevice),
      ]),
    ]),
    name('MEMA', dword(0)),
  ]);
  blob.loader.allocate(NVDIMM_PAGE_FILE, NVDIMM_PAGE_SIZE, 'high');
  blob.list(
    {
      signature: 'SSDT',
      revision: 1,
      body,
      pointers: [{ at: body.length - ADDRESS_SIZE, size: ADDRESS_SIZE, target: 0, file: NVDIMM_PAGE_FILE }],
    },
    { id: oem.id, tableId: 'NVDIMM' },
  );
}
