/** What the firmware is told of a TPM: its table, its device in the DSDT, and the Physical Presence Interface. */
import type { TableContent } from './acpi-blob.ts';
import {
  type Aml,
  add,
  and,
  arg,
  type Body,
  buffer,
  call,
  concat,
  derefOf,
  device,
  eisaId,
  field,
  index,
  lEqual,
  lGreaterEqual,
  local,
  method,
  name,
  pkg,
  region,
  ret,
  store,
  text,
  u16,
  u32,
  u64,
  uuid,
  when,
} from './aml.ts';
import { memory32Fixed, resourceTemplate } from './aml-resources.ts';

/** The firmware's event log: its place is in the table, its contents are the firmware's. */
export const TPM_LOG_FILE = 'etc/tpm/log';
export const TPM_LOG_SIZE = 0x1_0000;
/** Tells the firmware of the memory of the Physical Presence Interface. */
export const TPM_CONFIG_FILE = 'etc/tpm/config';

/** The memory in which system and firmware leave each other word (QEMU docs/specs/tpm). */
export const PPI_BASE = 0xfed4_5000;
export const PPI_SIZE = 0x400;
const PPI_REGISTERS = 0x100;
const PPI_REGISTERS_SIZE = 0x5a;
/** Memory overwrite variable: bit 0 asks for memory to be cleared. */
export const PPI_MOVV = 0x15a;
const PPI_VERSION_1_30 = 1;

const BASE = 0xfed4_0000;
const TIS_SIZE = 0x5000;
const CRB_SIZE = 0x1000;
const CRB_CONTROL_AREA = 0x40;
const WORKING = 0xf;

export interface TpmFacts {
  readonly model: 'tpm-tis' | 'tpm-crb';
  readonly version: '1.2' | '2.0';
  /** Whether it has the memory of the Physical Presence Interface. */
  readonly ppi: boolean;
}

/** Contents of {@link TPM_CONFIG_FILE}. */
export const tpmConfig = ({ version }: TpmFacts): Uint8Array =>
  concat(u32(PPI_BASE), [version === '2.0' ? 2 : 1, PPI_VERSION_1_30]);

/** Start methods of a TPM 2.0 (TCG ACPI Specification 1.2, table 8): a FIFO, or a command and response buffer. */
const START_METHOD = { 'tpm-tis': 6, 'tpm-crb': 7 } as const;
const CLIENT = 0;

/** TPM2, or TCPA for a TPM 1.2 (TCG ACPI Specification 1.2, sections 7 and 8). */
export function tpmTable({ model, version }: TpmFacts): TableContent {
  const log = { size: 8, target: 0, file: TPM_LOG_FILE } as const;
  if (version === '1.2') {
    const body = concat(u16(CLIENT), u32(TPM_LOG_SIZE), u64(0));
    return { signature: 'TCPA', revision: 2, body, pointers: [{ at: 6, ...log }] };
  }
  const body = concat(
    u16(CLIENT),
    u16(0),
    u64(model === 'tpm-crb' ? BASE + CRB_CONTROL_AREA : 0),
    u32(START_METHOD[model]),
    new Uint8Array(12),
    u32(TPM_LOG_SIZE),
    u64(0),
  );
  return { signature: 'TPM2', revision: 4, body, pointers: [{ at: 32, ...log }] };
}

/** What of the host bridge's resources belongs to a TPM. */
export const tpmWindow = (facts: TpmFacts): readonly Aml[] =>
  facts.model === 'tpm-tis' ? [memory32Fixed(BASE, TIS_SIZE, 'readWrite')] : [];

/** The device TPM. */
export function tpmDevice(facts: TpmFacts): Aml {
  const size = facts.model === 'tpm-tis' ? TIS_SIZE : CRB_SIZE;
  const identity =
    facts.version === '2.0'
      ? [name('_HID', text('MSFT0101')), name('_STR', text('TPM 2.0 Device'))]
      : [name('_HID', eisaId('PNP0C31'))];
  const resources = name('_CRS', resourceTemplate([memory32Fixed(BASE, size, 'readWrite')]));
  const state = name('_STA', WORKING);
  const number = name('_UID', 1);
  const rest = facts.model === 'tpm-tis' ? [number, state, resources] : [resources, state, number];
  return device('TPM', [...identity, ...rest, ...(facts.ppi ? presenceInterface() : [])]);
}

// Physical Presence Interface Specification 1.30, section 2: _DSM

const PPI_UUID = '3DDDFAA6-361B-4EB4-A424-8D10089D1653';
/** Platform Reset Attack Mitigation Specification 1.10, section 6. */
const MEMORY_CLEAR_UUID = '376054ED-CC13-4675-901C-4756D7F2D45D';
/** What the firmware says of an operation, in three bits; it has a byte for each. */
const FUNCTIONS = 0x100;
const FUNCTION_MASK = 7;
const NOT_IMPLEMENTED = 0;
const BLOCKED = 2;
const RESULT = { SUCCESS: 0, UNSUPPORTED: 1, BLOCKED: 3, NO_LANGUAGES: 3 } as const;
const TRANSITION_REBOOT = 2;

function presenceInterface(): Body {
  return [
    region('TPP2', 'systemMemory', PPI_BASE + PPI_REGISTERS, PPI_REGISTERS_SIZE),
    field('TPP2', { access: 'any', update: 'preserve' }, [
      ['PPIN', 8],
      ['PPIP', 32],
      ['PPRP', 32],
      ['PPRQ', 32],
      ['PPRM', 32],
      ['LPPR', 32],
    ]),
    region('TPP3', 'systemMemory', PPI_BASE + PPI_MOVV, 1),
    field('TPP3', { access: 'byte', update: 'preserve' }, [['MOVV', 8]]),
    functionMethod(),
    // Windows wants packages that are returned to have names.
    name('TPM2', pkg([0, 0])),
    name('TPM3', pkg([0, 0, 0])),
    method(
      '_DSM',
      4,
      [
        when(lEqual(arg(0), uuid(PPI_UUID)), presenceFunctions()),
        when(lEqual(arg(0), uuid(MEMORY_CLEAR_UUID)), memoryClearFunctions()),
      ],
      'serialized',
    ),
  ];
}

/** TPFN: what the firmware says of an operation. The region is made for each, as Windows cannot index into one. */
function functionMethod(): Aml {
  const operation = arg(0);
  return method(
    'TPFN',
    1,
    [
      when(lGreaterEqual(operation, FUNCTIONS), [ret(0)]),
      region('TPP1', 'systemMemory', add(PPI_BASE, operation), 1),
      field('TPP1', { access: 'byte', update: 'preserve' }, [['TPPF', 8]]),
      ret('TPPF'),
    ],
    'serialized',
  );
}

const [REVISION, FUNCTION, ARGUMENTS] = [arg(1), arg(2), arg(3)];
const [OPERATION, FLAGS] = [local(0), local(1)];
const argument = (position: number): Aml => derefOf(index(ARGUMENTS, position));
const onFunction = (number: number, body: Body): Aml => when(lEqual(FUNCTION, number), body);
/** Reads which operation it is about, and what the firmware says of it. */
const takeOperation: Body = [store(argument(0), OPERATION), store(call('TPFN', OPERATION), FLAGS)];
const ifAllowed = (kind: number, body: Body): Aml => when(lEqual(and(FLAGS, FUNCTION_MASK), kind), body);
const request = (operation: Aml, parameter: Aml | number): Body => [store(operation, 'PPRQ'), store(parameter, 'PPRM')];

/** 2.1 and 2.2: functions by number. */
function presenceFunctions(): Body {
  return [
    // Which functions there are: 0 to 8.
    onFunction(0, [ret(buffer([0xff, 0x01]))]),
    // Version of the interface.
    onFunction(1, [ret(text('1.3'))]),
    // Submit an operation to the pre-OS environment.
    onFunction(2, [
      takeOperation,
      ifAllowed(NOT_IMPLEMENTED, [ret(RESULT.UNSUPPORTED)]),
      request(OPERATION, 0),
      ret(RESULT.SUCCESS),
    ]),
    // The operation that is pending.
    onFunction(3, [
      when(lEqual(REVISION, 1), [store('PPRQ', index('TPM2', 1)), ret('TPM2')]),
      when(lEqual(REVISION, 2), [store('PPRQ', index('TPM3', 1)), store('PPRM', index('TPM3', 2)), ret('TPM3')]),
    ]),
    // How to get to the pre-OS environment.
    onFunction(4, [ret(TRANSITION_REBOOT)]),
    // The response to the last operation.
    onFunction(5, [store('LPPR', index('TPM3', 1)), store('PPRP', index('TPM3', 2)), ret('TPM3')]),
    // The user's language.
    onFunction(6, [ret(RESULT.NO_LANGUAGES)]),
    // Submit an operation with an argument.
    onFunction(7, [
      takeOperation,
      ifAllowed(NOT_IMPLEMENTED, [ret(RESULT.UNSUPPORTED)]),
      ifAllowed(BLOCKED, [ret(RESULT.BLOCKED)]),
      when(lEqual(REVISION, 1), request(OPERATION, 0)),
      when(lEqual(REVISION, 2), request(OPERATION, argument(1))),
      ret(RESULT.SUCCESS),
    ]),
    // Whether the user has to confirm an operation.
    onFunction(8, [takeOperation, ret(and(FLAGS, FUNCTION_MASK))]),
    ret(buffer([0])),
  ];
}

function memoryClearFunctions(): Body {
  return [
    onFunction(0, [ret(buffer([0x03]))]),
    onFunction(1, [store(argument(0), OPERATION), store(OPERATION, 'MOVV'), ret(RESULT.SUCCESS)]),
  ];
}
