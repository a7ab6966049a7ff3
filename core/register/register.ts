/** Register maps: declared once as data, served, viewed and documented from it (docs/explanation). */

export { type AnyRegisterBank, RegisterBank, type RegisterObserver } from './bank.ts';
export { CoverageReport, RegisterCoverage, type Untouched } from './coverage.ts';
export {
  type Access,
  bit,
  bits,
  choice,
  type Field,
  type Fields,
  type Register,
  type RegisterOptions,
  r8,
  r16,
  r32,
  r64,
  type Tag,
  tag,
  type Width,
} from './declare.ts';
export { type DriverPort, driverView } from './driver-view.ts';
export { cHeader, markdownReference, rustConstants } from './generate.ts';
export { htmlReference } from './html.ts';
export { describeMap, type FieldInfo, type RegisterInfo } from './introspect.ts';
export { type LaidOut, type RegisterMap, registerMap, type WordMasks } from './map.ts';
export type { RegisterArray, RegisterHook, RegisterHooks, Registers, RegisterView, ValueOf } from './views.ts';
