export const FILE_SIGNATURE = Buffer.from('vhdxfile');

export const isVhdx = (head: Uint8Array): boolean => FILE_SIGNATURE.equals(head.subarray(0, 8));
