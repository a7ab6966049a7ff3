import { loadNative } from '../../../core/host/native.ts';

/** Why what needs the native addon is skipped; false where there is one. */
export const noAddon = ((): string | false => {
  try {
    loadNative();
    return false;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
})();
