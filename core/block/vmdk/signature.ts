export const HOSTED_MAGIC = Buffer.from('KDMV');
const ESX_MAGIC = Buffer.from('COWD');

export const isHosted = (head: Uint8Array): boolean => HOSTED_MAGIC.equals(head.subarray(0, 4));
export const isEsx = (head: Uint8Array): boolean => ESX_MAGIC.equals(head.subarray(0, 4));

/** Whether text begins as a descriptor does: comments, blank lines, and a version. */
export function isDescriptor(head: Uint8Array): boolean {
  const text = Buffer.from(head).toString('latin1');
  return /^(?:#[^\n]*\n|[ ]+\r?\n)*version=[123]\r?\n/.test(text);
}
