import type { Access, Field } from './declare.ts';
import type { LaidOut, RegisterMap } from './map.ts';

/** A field as generators and tools see it. */
export interface FieldInfo {
  readonly name: string;
  readonly low: number;
  readonly width: number;
  readonly access: Access;
  /** False for a tag: named, and setting it is reported. */
  readonly implemented: boolean;
  /** Value by name; empty where values have no names. */
  readonly choices: Readonly<Record<string, number>>;
  readonly doc: string;
}

/** A register as generators and tools see it. */
export interface RegisterInfo {
  readonly name: string;
  /** Bytes from the start of the map; of the first element of an array. */
  readonly offset: number;
  /** Bits. */
  readonly width: 8 | 16 | 32 | 64;
  /** Of the fields that do not say otherwise, and of the whole where there are no fields. */
  readonly access: Access;
  readonly reset: bigint;
  readonly sticky: boolean;
  /** The condition as declared; empty where the register always answers. */
  readonly when: string;
  /** Elements; undefined where it is no array. */
  readonly count: number | undefined;
  /** Bytes from one element to the next. */
  readonly stride: number;
  readonly doc: string;
  /** From bit 0 on. */
  readonly fields: readonly FieldInfo[];
}

/** All that a map declares, in the order of offsets. */
export function describeMap(map: RegisterMap): readonly RegisterInfo[] {
  return map.layout.map(describeRegister).sort((a, b) => a.offset - b.offset);
}

export function describeRegister({ name, register, stride }: LaidOut): RegisterInfo {
  const { offset, width, options } = register;
  const { access = 'rw', reset = 0, sticky = false, when = '', count, doc = '' } = options;
  const fields = Object.entries(register.fields)
    .map(([fieldName, field]) => describeField(fieldName, field, access))
    .sort((a, b) => a.low - b.low);
  return { name, offset, width, access, reset: BigInt(reset), sticky, when, count, stride, doc, fields };
}

function describeField(name: string, field: Field, registerAccess: Access): FieldInfo {
  const { low, width, kind, access = registerAccess, choices = {}, doc = '' } = field;
  return { name, low, width, access, implemented: kind !== 'tag', choices, doc };
}
