import { didYouMean, SouthbridgeError } from '../errors.ts';
import type { Field } from './declare.ts';

/** The names and values of a choice field, both ways. */
export class Choices {
  readonly #names: ReadonlyMap<number, string>;
  readonly #values: ReadonlyMap<unknown, number>;
  readonly #field: string;

  constructor(name: string, field: Field) {
    const entries = Object.entries(field.choices ?? {});
    this.#field = name;
    this.#names = new Map(entries.map(([choice, value]) => [value, choice]));
    this.#values = new Map(entries);
  }

  /** The name of a value, or the value itself where it has none. */
  nameOf(value: number): string | number {
    return this.#names.get(value) ?? value;
  }

  /** @throws SouthbridgeError ERR_REGISTER_CHOICE where there is no such name, which the type checker has said before */
  valueOf(choice: string | number): number {
    if (typeof choice === 'number') return choice;
    const value = this.#values.get(choice);
    if (value === undefined) this.#refuse(choice);
    return value;
  }

  #refuse(choice: string): never {
    const names = [...this.#names.values()];
    throw new SouthbridgeError(
      'ERR_REGISTER_CHOICE',
      `field ${this.#field} has no choice '${choice}'`,
      didYouMean(choice, names),
    );
  }
}
