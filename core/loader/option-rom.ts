import { SouthbridgeError } from '../errors.ts';
import { Structure, slice } from './structure.ts';

// PCI Firmware Specification 3.0, section 5.1, and the Plug and Play BIOS specification 1.0A, appendix B.
const ROM_SIGNATURE = 0xaa55;
const PCIR = 0x5249_4350;
const BLOCK = 512;
const MAX_IMAGES = 16;
const LAST_IMAGE = 0x80;

const romHeader = new Structure('the option ROM header', { signature: 'u16', blocks: 'u8' });
const pciPointer = new Structure("the option ROM's pointers", { pci_data: 'u16', pnp: 'u16' });
const PCI_POINTER_OFFSET = 0x18;
const pciData = new Structure('the PCI data structure', {
  signature: 'u32',
  vendor_id: 'u16',
  device_id: 'u16',
  device_list: 'u16',
  length: 'u16',
  revision: 'u8',
  class_prog: 'u8',
  class_code: 'u16',
  image_length: 'u16',
  code_revision: 'u16',
  code_type: 'u8',
  indicator: 'u8',
});

/** One image of an option ROM file. */
export interface OptionRomImage {
  readonly bytes: Uint8Array;
  readonly pci:
    | {
        readonly vendor: number;
        readonly device: number;
        readonly codeType: 'pc-at' | 'open-firmware' | 'efi' | 'other';
      }
    | undefined;
}

/**
 * The images in an option ROM file: one for ISA ROMs, one for each kind of firmware in a PCI ROM.
 *
 * @throws SouthbridgeError ERR_IMAGE_FORMAT, ERR_IMAGE_TRUNCATED
 */
export function parseOptionRom(rom: Uint8Array): OptionRomImage[] {
  const images: OptionRomImage[] = [];
  let offset = 0;
  while (images.length < MAX_IMAGES) {
    const { signature, blocks } = romHeader.parse(rom, offset);
    if (signature !== ROM_SIGNATURE)
      throw bad(`an option ROM begins with 55 AA, not with ${signature.toString(16)}, at offset ${offset}`);
    const data = pciPart(rom, offset);
    const length = (data === undefined ? blocks : data.image_length) * BLOCK;
    if (length === 0) throw bad(`the option ROM image at offset ${offset} claims to be empty`);
    images.push({
      bytes: slice(rom, offset, length, 'an option ROM image'),
      pci:
        data === undefined
          ? undefined
          : { vendor: data.vendor_id, device: data.device_id, codeType: CODE_TYPES[data.code_type] ?? 'other' },
    });
    offset += length;
    if (data === undefined || data.indicator & LAST_IMAGE) return images;
  }
  throw bad(`the option ROM has more than ${MAX_IMAGES} images`);
}

/** A copy of a PCI option ROM that is for another device: vendor and device replaced, the checksum kept right. */
export function retargetOptionRom(rom: Uint8Array, vendor: number, device: number): Uint8Array {
  const copy = rom.slice();
  let offset = 0;
  for (const image of parseOptionRom(rom)) {
    const at = image.pci === undefined ? 0 : pciPointer.parse(rom, offset + PCI_POINTER_OFFSET).pci_data;
    if (at !== 0) {
      const view = new DataView(copy.buffer, offset, image.bytes.length);
      view.setUint16(at + 4, vendor, true);
      view.setUint16(at + 6, device, true);
      if (image.pci?.codeType === 'pc-at') fixChecksum(copy.subarray(offset, offset + image.bytes.length));
    }
    offset += image.bytes.length;
  }
  return copy;
}

/** Sets the last byte of an image so that all of its bytes add up to 0 modulo 256. */
export function fixChecksum(image: Uint8Array): void {
  let sum = 0;
  for (let index = 0; index < image.length - 1; index++) sum += image[index] ?? 0;
  image[image.length - 1] = -sum & 0xff;
}

const CODE_TYPES: Readonly<Record<number, 'pc-at' | 'open-firmware' | 'efi'>> = {
  0: 'pc-at',
  1: 'open-firmware',
  3: 'efi',
};

function pciPart(rom: Uint8Array, offset: number): ReturnType<typeof pciData.parse> | undefined {
  if (rom.length < offset + PCI_POINTER_OFFSET + pciPointer.size) return undefined;
  const { pci_data } = pciPointer.parse(rom, offset + PCI_POINTER_OFFSET);
  if (pci_data === 0 || pci_data % 4 !== 0 || offset + pci_data + pciData.size > rom.length) return undefined;
  const data = pciData.parse(rom, offset + pci_data);
  return data.signature === PCIR ? data : undefined;
}

function bad(message: string): SouthbridgeError {
  return new SouthbridgeError('ERR_IMAGE_FORMAT', message);
}
