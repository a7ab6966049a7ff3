/** A value that is not negative, in hexadecimal, with zeroes before it up to `digits`. */
export const hex = (value: number | bigint, digits: number): string => value.toString(16).padStart(digits, '0');
