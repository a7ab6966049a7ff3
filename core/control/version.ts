/** The QEMU release whose interfaces this program speaks. */
export const QEMU_VERSION = { major: 7, minor: 2, micro: 0 } as const;

/** This program's own version. */
export const SOUTHBRIDGE_VERSION = '0.1.0';

/** As in the QMP greeting and `query-version`. */
export const VERSION_INFO = { qemu: QEMU_VERSION, package: `Southbridge ${SOUTHBRIDGE_VERSION}` } as const;

/** `-version`, in the form that clients parse. */
export const VERSION_TEXT = `QEMU emulator version ${QEMU_VERSION.major}.${QEMU_VERSION.minor}.${QEMU_VERSION.micro} (Southbridge ${SOUTHBRIDGE_VERSION})
Southbridge speaks the interfaces of QEMU 7.2; it is an independent program.
`;
