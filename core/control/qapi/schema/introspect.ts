import { command } from '../declare.ts';
import { any, array, bool, enumeration, featured, opt, str, struct, union } from '../types.ts';

export const SchemaMetaType = enumeration('SchemaMetaType', [
  'builtin',
  'enum',
  'array',
  'object',
  'alternate',
  'command',
  'event',
]);
export const JSONType = enumeration('JSONType', [
  'string',
  'number',
  'int',
  'boolean',
  'null',
  'object',
  'array',
  'value',
]);
export const SchemaInfoBuiltin = struct('SchemaInfoBuiltin', { 'json-type': JSONType });
export const SchemaInfoEnumMember = struct('SchemaInfoEnumMember', { name: str, features: opt(array(str)) });
export const SchemaInfoEnum = struct('SchemaInfoEnum', {
  members: array(SchemaInfoEnumMember),
  values: featured(array(str), 'deprecated'),
});
export const SchemaInfoArray = struct('SchemaInfoArray', { 'element-type': str });
export const SchemaInfoObjectMember = struct('SchemaInfoObjectMember', {
  name: str,
  type: str,
  default: opt(any),
  features: opt(array(str)),
});
export const SchemaInfoObjectVariant = struct('SchemaInfoObjectVariant', { case: str, type: str });
export const SchemaInfoObject = struct('SchemaInfoObject', {
  members: array(SchemaInfoObjectMember),
  tag: opt(str),
  variants: opt(array(SchemaInfoObjectVariant)),
});
export const SchemaInfoAlternateMember = struct('SchemaInfoAlternateMember', { type: str });
export const SchemaInfoAlternate = struct('SchemaInfoAlternate', { members: array(SchemaInfoAlternateMember) });
export const SchemaInfoCommand = struct('SchemaInfoCommand', {
  'arg-type': str,
  'ret-type': str,
  'allow-oob': opt(bool),
});
export const SchemaInfoEvent = struct('SchemaInfoEvent', { 'arg-type': str });
export const SchemaInfo = union(
  'SchemaInfo',
  { name: str, 'meta-type': SchemaMetaType, features: opt(array(str)) },
  'meta-type',
  {
    builtin: SchemaInfoBuiltin,
    enum: SchemaInfoEnum,
    array: SchemaInfoArray,
    object: SchemaInfoObject,
    alternate: SchemaInfoAlternate,
    command: SchemaInfoCommand,
    event: SchemaInfoEvent,
  },
);

export const commands = {
  'query-qmp-schema': command('The types of all commands and events', { returns: array(SchemaInfo), preconfig: true }),
};
