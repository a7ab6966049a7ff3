/** As much of JSON Schema (draft 2020-12) as the schema of machine files uses. */
type Schema = Readonly<Record<string, unknown>>;
type Entries = Readonly<Record<string, Schema>>;

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const typeOf = (value: unknown): string =>
  Array.isArray(value) ? 'array' : value === null ? 'null' : Number.isInteger(value) ? 'integer' : typeof value;

/** What is wrong with `value`, each with its path. */
export function violations(schema: Schema, value: unknown, root = schema, path = '$'): string[] {
  const wrong: string[] = [];
  const within = (inner: unknown, each = value, at = path): string[] => violations(inner as Schema, each, root, at);
  for (const [keyword, rule] of Object.entries(schema)) {
    switch (keyword) {
      case '$ref':
        wrong.push(...within((root['$defs'] as Entries)[String(rule).replace('#/$defs/', '')] ?? {}));
        break;
      case 'type': {
        const allowed = [rule].flat().map(String);
        const type = typeOf(value);
        if (!allowed.includes(type) && !(type === 'integer' && allowed.includes('number')))
          wrong.push(`${path}: ${type}`);
        break;
      }
      case 'enum':
        if (!(rule as unknown[]).includes(value)) wrong.push(`${path}: not one of the values`);
        break;
      case 'const':
        if (rule !== value) wrong.push(`${path}: not ${String(rule)}`);
        break;
      case 'minimum':
        if (typeof value === 'number' && value < Number(rule)) wrong.push(`${path}: too small`);
        break;
      case 'maximum':
        if (typeof value === 'number' && value > Number(rule)) wrong.push(`${path}: too large`);
        break;
      case 'pattern':
        if (typeof value === 'string' && !new RegExp(String(rule)).test(value)) wrong.push(`${path}: pattern`);
        break;
      case 'required':
        for (const name of rule as string[])
          if (isObject(value) && !(name in value)) wrong.push(`${path}.${name}: missing`);
        break;
      case 'properties':
        for (const [name, inner] of Object.entries(rule as Entries))
          if (isObject(value) && name in value) wrong.push(...within(inner, value[name], `${path}.${name}`));
        break;
      case 'additionalProperties':
        for (const [name, each] of Object.entries(isObject(value) ? value : {})) {
          if (name in ((schema['properties'] as Entries | undefined) ?? {})) continue;
          if (rule === false) wrong.push(`${path}.${name}: unknown`);
          else wrong.push(...within(rule, each, `${path}.${name}`));
        }
        break;
      case 'items':
        if (Array.isArray(value))
          value.forEach((each, index) => wrong.push(...within(rule, each, `${path}[${index}]`)));
        break;
      case 'anyOf':
        if ((rule as Schema[]).every(inner => within(inner).length > 0)) wrong.push(`${path}: none of the forms`);
        break;
      case 'allOf':
        for (const inner of rule as Schema[]) wrong.push(...within(inner));
        break;
      case 'if':
        if (within(rule).length === 0) wrong.push(...within(schema['then']));
        break;
      case 'then':
      case '$schema':
      case '$defs':
      case 'title':
      case 'description':
      case 'default':
        break;
      default:
        throw new Error(`the validator does not know '${keyword}'`);
    }
  }
  return wrong;
}
