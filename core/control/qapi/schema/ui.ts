import { command, event } from '../declare.ts';
import { array, bool, enumeration, int, opt, str, struct, union } from '../types.ts';
import { NetworkAddressFamily, SocketAddress } from './sockets.ts';

export const ImageFormat = enumeration('ImageFormat', ['ppm', 'png']);
export const MouseInfo = struct('MouseInfo', { name: str, index: int, current: bool, absolute: bool });
export const KeyValueKind = enumeration('KeyValueKind', ['number', 'qcode']);
export const IntWrapper = struct('IntWrapper', { data: int });
export const QKeyCode = enumeration('QKeyCode', [
  'unmapped',
  'shift',
  'shift_r',
  'alt',
  'alt_r',
  'ctrl',
  'ctrl_r',
  'menu',
  'esc',
  '1',
  '2',
  '3',
  '4',
  '5',
  '6',
  '7',
  '8',
  '9',
  '0',
  'minus',
  'equal',
  'backspace',
  'tab',
  'q',
  'w',
  'e',
  'r',
  't',
  'y',
  'u',
  'i',
  'o',
  'p',
  'bracket_left',
  'bracket_right',
  'ret',
  'a',
  's',
  'd',
  'f',
  'g',
  'h',
  'j',
  'k',
  'l',
  'semicolon',
  'apostrophe',
  'grave_accent',
  'backslash',
  'z',
  'x',
  'c',
  'v',
  'b',
  'n',
  'm',
  'comma',
  'dot',
  'slash',
  'asterisk',
  'spc',
  'caps_lock',
  'f1',
  'f2',
  'f3',
  'f4',
  'f5',
  'f6',
  'f7',
  'f8',
  'f9',
  'f10',
  'num_lock',
  'scroll_lock',
  'kp_divide',
  'kp_multiply',
  'kp_subtract',
  'kp_add',
  'kp_enter',
  'kp_decimal',
  'sysrq',
  'kp_0',
  'kp_1',
  'kp_2',
  'kp_3',
  'kp_4',
  'kp_5',
  'kp_6',
  'kp_7',
  'kp_8',
  'kp_9',
  'less',
  'f11',
  'f12',
  'print',
  'home',
  'pgup',
  'pgdn',
  'end',
  'left',
  'up',
  'down',
  'right',
  'insert',
  'delete',
  'stop',
  'again',
  'props',
  'undo',
  'front',
  'copy',
  'open',
  'paste',
  'find',
  'cut',
  'lf',
  'help',
  'meta_l',
  'meta_r',
  'compose',
  'pause',
  'ro',
  'hiragana',
  'henkan',
  'yen',
  'muhenkan',
  'katakanahiragana',
  'kp_comma',
  'kp_equals',
  'power',
  'sleep',
  'wake',
  'audionext',
  'audioprev',
  'audiostop',
  'audioplay',
  'audiomute',
  'volumeup',
  'volumedown',
  'mediaselect',
  'mail',
  'calculator',
  'computer',
  'ac_home',
  'ac_back',
  'ac_forward',
  'ac_refresh',
  'ac_bookmarks',
  'lang1',
  'lang2',
]);
export const QKeyCodeWrapper = struct('QKeyCodeWrapper', { data: QKeyCode });
export const KeyValue = union('KeyValue', { type: KeyValueKind }, 'type', {
  number: IntWrapper,
  qcode: QKeyCodeWrapper,
});
export const InputEventKind = enumeration('InputEventKind', ['key', 'btn', 'rel', 'abs']);
export const InputKeyEvent = struct('InputKeyEvent', { key: KeyValue, down: bool });
export const InputKeyEventWrapper = struct('InputKeyEventWrapper', { data: InputKeyEvent });
export const InputButton = enumeration('InputButton', [
  'left',
  'middle',
  'right',
  'wheel-up',
  'wheel-down',
  'side',
  'extra',
  'wheel-left',
  'wheel-right',
]);
export const InputBtnEvent = struct('InputBtnEvent', { button: InputButton, down: bool });
export const InputBtnEventWrapper = struct('InputBtnEventWrapper', { data: InputBtnEvent });
export const InputAxis = enumeration('InputAxis', ['x', 'y']);
export const InputMoveEvent = struct('InputMoveEvent', { axis: InputAxis, value: int });
export const InputMoveEventWrapper = struct('InputMoveEventWrapper', { data: InputMoveEvent });
export const InputEvent = union('InputEvent', { type: InputEventKind }, 'type', {
  key: InputKeyEventWrapper,
  btn: InputBtnEventWrapper,
  rel: InputMoveEventWrapper,
  abs: InputMoveEventWrapper,
});
export const DisplayType = enumeration('DisplayType', ['default', 'none']);
export const DisplayGLMode = enumeration('DisplayGLMode', ['off', 'on', 'core', 'es']);
export const DisplayOptions = union(
  'DisplayOptions',
  {
    type: DisplayType,
    'full-screen': opt(bool),
    'window-close': opt(bool),
    'show-cursor': opt(bool),
    gl: opt(DisplayGLMode),
  },
  'type',
  {},
);
export const DisplayProtocol = enumeration('DisplayProtocol', ['vnc']);
export const SetPasswordAction = enumeration('SetPasswordAction', ['keep', 'fail', 'disconnect']);
export const SetPasswordOptionsVnc = struct('SetPasswordOptionsVnc', { display: opt(str) });
export const SetPasswordOptions = union(
  'SetPasswordOptions',
  { protocol: DisplayProtocol, password: str, connected: opt(SetPasswordAction) },
  'protocol',
  { vnc: SetPasswordOptionsVnc },
);
export const ExpirePasswordOptionsVnc = struct('ExpirePasswordOptionsVnc', { display: opt(str) });
export const ExpirePasswordOptions = union(
  'ExpirePasswordOptions',
  { protocol: DisplayProtocol, time: str },
  'protocol',
  { vnc: ExpirePasswordOptionsVnc },
);
export const VncBasicInfo = struct('VncBasicInfo', {
  host: str,
  service: str,
  family: NetworkAddressFamily,
  websocket: bool,
});
export const VncClientInfo = struct(
  'VncClientInfo',
  { x509_dname: opt(str), sasl_username: opt(str) },
  { base: VncBasicInfo },
);
export const VncInfo = struct('VncInfo', {
  enabled: bool,
  host: opt(str),
  family: opt(NetworkAddressFamily),
  service: opt(str),
  auth: opt(str),
  clients: opt(array(VncClientInfo)),
});
export const VncPrimaryAuth = enumeration('VncPrimaryAuth', [
  'none',
  'vnc',
  'ra2',
  'ra2ne',
  'tight',
  'ultra',
  'tls',
  'vencrypt',
  'sasl',
]);
export const VncVencryptSubAuth = enumeration('VncVencryptSubAuth', [
  'plain',
  'tls-none',
  'x509-none',
  'tls-vnc',
  'x509-vnc',
  'tls-plain',
  'x509-plain',
  'tls-sasl',
  'x509-sasl',
]);
export const VncServerInfo2 = struct(
  'VncServerInfo2',
  { auth: VncPrimaryAuth, vencrypt: opt(VncVencryptSubAuth) },
  { base: VncBasicInfo },
);
export const VncInfo2 = struct('VncInfo2', {
  id: str,
  server: array(VncServerInfo2),
  clients: array(VncClientInfo),
  auth: VncPrimaryAuth,
  vencrypt: opt(VncVencryptSubAuth),
  display: opt(str),
});
export const VncServerInfo = struct('VncServerInfo', { auth: opt(str) }, { base: VncBasicInfo });
export const DisplayReloadType = enumeration('DisplayReloadType', ['vnc']);
export const DisplayReloadOptionsVNC = struct('DisplayReloadOptionsVNC', { 'tls-certs': opt(bool) });
export const DisplayReloadOptions = union('DisplayReloadOptions', { type: DisplayReloadType }, 'type', {
  vnc: DisplayReloadOptionsVNC,
});
export const DisplayUpdateType = enumeration('DisplayUpdateType', ['vnc']);
export const DisplayUpdateOptionsVNC = struct('DisplayUpdateOptionsVNC', { addresses: opt(array(SocketAddress)) });
export const DisplayUpdateOptions = union('DisplayUpdateOptions', { type: DisplayUpdateType }, 'type', {
  vnc: DisplayUpdateOptionsVNC,
});

export const commands = {
  screendump: command('Writes the screen to a file', {
    args: { filename: str, device: opt(str), head: opt(int), format: opt(ImageFormat) },
  }),
  'query-mice': command('The pointing devices', { returns: array(MouseInfo) }),
  'send-key': command('Presses keys together', { args: { keys: array(KeyValue), 'hold-time': opt(int) } }),
  'input-send-event': command('Sends input events', {
    args: { device: opt(str), head: opt(int), events: array(InputEvent) },
  }),
  'query-display-options': command('The display options', { returns: DisplayOptions }),
  set_password: command('Sets a password of a display protocol', { args: SetPasswordOptions }),
  expire_password: command('When a display password ends', { args: ExpirePasswordOptions }),
  'change-vnc-password': command('Sets the password of the VNC server', { args: { password: str } }),
  'display-reload': command('Loads credentials of a display server again', { args: DisplayReloadOptions }),
  'display-update': command('Moves a display server', { args: DisplayUpdateOptions }),
  'query-vnc': command('The VNC server', { returns: VncInfo }),
  'query-vnc-servers': command('All VNC servers', { returns: array(VncInfo2) }),
};

export const events = {
  VNC_CONNECTED: event({ server: VncServerInfo, client: VncBasicInfo }),
  VNC_INITIALIZED: event({ server: VncServerInfo, client: VncClientInfo }),
  VNC_DISCONNECTED: event({ server: VncServerInfo, client: VncClientInfo }),
};
