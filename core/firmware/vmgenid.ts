/**
 * The virtual machine generation id (Microsoft, "Virtual Machine Generation ID"; QEMU docs/specs/vmgenid): a GUID in
 * guest memory that changes whenever a machine comes back from a snapshot.
 */
import { type AcpiBlob, type AcpiOem, DEFAULT_OEM } from './acpi-blob.ts';
import {
  add,
  block,
  device,
  dword,
  index,
  lEqual,
  local,
  method,
  name,
  notify,
  pkg,
  ret,
  scope,
  store,
  text,
  uuidBytes,
  when,
} from './aml.ts';

/** A page that the firmware places in guest memory. */
export const VMGENID_GUID_FILE = 'etc/vmgenid_guid';
/** Eight bytes in which the firmware tells us where. */
export const VMGENID_ADDR_FILE = 'etc/vmgenid_addr';

const FILE_SIZE = 4096;
/** The GUID keeps clear of the start, where firmware looks for a table header. */
export const VMGENID_GUID_OFFSET = 40;
/** Where the address lies in the SSDT: behind NameOp, the name and DWordPrefix. */
const VGIA_VALUE = 6;

/** The contents of {@link VMGENID_GUID_FILE}. */
export function vmGenIdPage(guid: string): Uint8Array {
  const page = new Uint8Array(FILE_SIZE);
  page.set(uuidBytes(guid), VMGENID_GUID_OFFSET);
  return page;
}

/** Lists the SSDT with the device VGEN, and has its files placed. */
export function vmGenId(blob: AcpiBlob, oem: AcpiOem = DEFAULT_OEM): void {
  const result = local(0);
  const body = block([
    name('VGIA', dword(0)),
    scope('\\_SB', [
      device('VGEN', [
        name('_HID', text('QEMUVGID')),
        name('_CID', text('VM_Gen_Counter')),
        name('_DDN', text('VM_Gen_Counter')),
        method('_STA', 0, [store(0xf, result), when(lEqual('VGIA', 0), [store(0, result)]), ret(result)]),
        method('ADDR', 0, [
          store(pkg([], 2), result),
          store(add('VGIA', VMGENID_GUID_OFFSET), index(result, 0)),
          store(0, index(result, 1)),
          ret(result),
        ]),
      ]),
    ]),
    method('\\_GPE._E05', 0, [notify('\\_SB.VGEN', 0x80)]),
  ]);
  blob.loader.allocate(VMGENID_GUID_FILE, 4096, 'high');
  blob.loader.writePointer(VMGENID_ADDR_FILE, 0, 8, VMGENID_GUID_FILE, VMGENID_GUID_OFFSET);
  blob.list(
    {
      signature: 'SSDT',
      revision: 1,
      body,
      pointers: [{ at: VGIA_VALUE, size: 4, target: 0, file: VMGENID_GUID_FILE }],
    },
    { id: oem.id, tableId: 'VMGENID' },
  );
}
