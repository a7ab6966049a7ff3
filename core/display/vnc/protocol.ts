/** Numbers of the remote framebuffer protocol (RFC 6143, and the community's "RFB protocol" for what is newer). */

export const SECURITY = { INVALID: 0, NONE: 1, VNC: 2, VENCRYPT: 19 } as const;

export const CLIENT = {
  SET_PIXEL_FORMAT: 0,
  SET_ENCODINGS: 2,
  UPDATE_REQUEST: 3,
  KEY: 4,
  POINTER: 5,
  CUT_TEXT: 6,
  XVP: 250,
  SET_DESKTOP_SIZE: 251,
  QEMU: 255,
} as const;

/** Sub-types of {@link CLIENT.QEMU} and of {@link SERVER.QEMU}. */
export const QEMU_MESSAGE = { EXTENDED_KEY: 0, AUDIO: 1 } as const;
export const AUDIO_REQUEST = { ENABLE: 0, DISABLE: 1, SET_FORMAT: 2 } as const;
export const AUDIO_OPERATION = { END: 0, BEGIN: 1, DATA: 2 } as const;

export const SERVER = { UPDATE: 0, SET_COLOUR_MAP: 1, XVP: 250, QEMU: 255 } as const;

export const XVP = { FAIL: 0, INIT: 1, SHUTDOWN: 2, REBOOT: 3, RESET: 4 } as const;

export const ENCODING = {
  RAW: 0,
  HEXTILE: 5,
  ZLIB: 6,
  TIGHT: 7,
  ZRLE: 16,
  DESKTOP_SIZE: -223,
  RICH_CURSOR: -239,
  COMPRESS_LEVEL_0: -256,
  POINTER_TYPE_CHANGE: -257,
  EXTENDED_KEY: -258,
  AUDIO: -259,
  LED_STATE: -261,
  EXTENDED_DESKTOP_SIZE: -308,
  XVP: -309,
  ALPHA_CURSOR: -314,
} as const;

/** Why a client's wish for a size came to nothing, or 0. */
export const RESIZE = { OK: 0, INVALID_LAYOUT: 3, FORWARDED: 4 } as const;
