import { command, event } from '../declare.ts';
import { array, bool, enumeration, int, opt, str, struct, union } from '../types.ts';
import { SocketAddressLegacy } from './sockets.ts';

export const ChardevInfo = struct('ChardevInfo', { label: str, filename: str, 'frontend-open': bool });
export const ChardevBackendInfo = struct('ChardevBackendInfo', { name: str });
export const DataFormat = enumeration('DataFormat', ['utf8', 'base64']);
export const ChardevBackendKind = enumeration('ChardevBackendKind', [
  'file',
  'serial',
  'parallel',
  'pipe',
  'socket',
  'udp',
  'pty',
  'null',
  'mux',
  'stdio',
  'vc',
  'ringbuf',
  'memory',
  'msmouse',
  'testdev',
]);
export const ChardevCommon = struct('ChardevCommon', { logfile: opt(str), logappend: opt(bool) });
export const ChardevFile = struct(
  'ChardevFile',
  { in: opt(str), out: str, append: opt(bool) },
  { base: ChardevCommon },
);
export const ChardevFileWrapper = struct('ChardevFileWrapper', { data: ChardevFile });
export const ChardevHostdev = struct('ChardevHostdev', { device: str }, { base: ChardevCommon });
export const ChardevHostdevWrapper = struct('ChardevHostdevWrapper', { data: ChardevHostdev });
export const ChardevSocket = struct(
  'ChardevSocket',
  {
    addr: SocketAddressLegacy,
    'tls-creds': opt(str),
    'tls-authz': opt(str),
    server: opt(bool),
    wait: opt(bool),
    nodelay: opt(bool),
    telnet: opt(bool),
    tn3270: opt(bool),
    websocket: opt(bool),
    reconnect: opt(int),
  },
  { base: ChardevCommon },
);
export const ChardevSocketWrapper = struct('ChardevSocketWrapper', { data: ChardevSocket });
export const ChardevUdp = struct(
  'ChardevUdp',
  { remote: SocketAddressLegacy, local: opt(SocketAddressLegacy) },
  { base: ChardevCommon },
);
export const ChardevUdpWrapper = struct('ChardevUdpWrapper', { data: ChardevUdp });
export const ChardevCommonWrapper = struct('ChardevCommonWrapper', { data: ChardevCommon });
export const ChardevMux = struct('ChardevMux', { chardev: str }, { base: ChardevCommon });
export const ChardevMuxWrapper = struct('ChardevMuxWrapper', { data: ChardevMux });
export const ChardevStdio = struct('ChardevStdio', { signal: opt(bool) }, { base: ChardevCommon });
export const ChardevStdioWrapper = struct('ChardevStdioWrapper', { data: ChardevStdio });
export const ChardevVC = struct(
  'ChardevVC',
  { width: opt(int), height: opt(int), cols: opt(int), rows: opt(int) },
  { base: ChardevCommon },
);
export const ChardevVCWrapper = struct('ChardevVCWrapper', { data: ChardevVC });
export const ChardevRingbuf = struct('ChardevRingbuf', { size: opt(int) }, { base: ChardevCommon });
export const ChardevRingbufWrapper = struct('ChardevRingbufWrapper', { data: ChardevRingbuf });
export const ChardevBackend = union('ChardevBackend', { type: ChardevBackendKind }, 'type', {
  file: ChardevFileWrapper,
  serial: ChardevHostdevWrapper,
  parallel: ChardevHostdevWrapper,
  pipe: ChardevHostdevWrapper,
  socket: ChardevSocketWrapper,
  udp: ChardevUdpWrapper,
  pty: ChardevCommonWrapper,
  null: ChardevCommonWrapper,
  mux: ChardevMuxWrapper,
  stdio: ChardevStdioWrapper,
  vc: ChardevVCWrapper,
  ringbuf: ChardevRingbufWrapper,
  memory: ChardevRingbufWrapper,
  msmouse: ChardevCommonWrapper,
  testdev: ChardevCommonWrapper,
});
export const ChardevReturn = struct('ChardevReturn', { pty: opt(str) });

export const commands = {
  'query-chardev': command('The character devices', { returns: array(ChardevInfo), preconfig: true }),
  'query-chardev-backends': command('Kinds of character devices', { returns: array(ChardevBackendInfo) }),
  'ringbuf-write': command('Writes into a ring buffer', { args: { device: str, data: str, format: opt(DataFormat) } }),
  'ringbuf-read': command('Reads from a ring buffer', {
    args: { device: str, size: int, format: opt(DataFormat) },
    returns: str,
  }),
  'chardev-add': command('Creates a character device', {
    args: { id: str, backend: ChardevBackend },
    returns: ChardevReturn,
  }),
  'chardev-change': command('Replaces a character device behind its user', {
    args: { id: str, backend: ChardevBackend },
    returns: ChardevReturn,
  }),
  'chardev-remove': command('Removes a character device', { args: { id: str } }),
  'chardev-send-break': command('Sends a break condition', { args: { id: str } }),
};

export const events = {
  VSERPORT_CHANGE: event({ id: str, open: bool }),
};
