/** Register maps: declared once as data, served, viewed and documented from it (docs/explanation). */
export { type Access, bit, bits, choice, type Field, type Fields, r8, r16, r32, r64, type Register, type RegisterOptions, type Tag, tag, type Width } from './declare.ts';
export { type LaidOut, type RegisterMap, registerMap, type WordMasks } from './map.ts';
export { type AnyRegisterBank, RegisterBank, type RegisterObserver } from './bank.ts';
export { type DriverPort, driverView } from './compile.ts';
export type { RegisterArray, RegisterHook, RegisterHooks, Registers, RegisterView, ValueOf } from './views.ts';
