import { array, bool, enumeration, opt, str, struct } from '../types.ts';

export const QAuthZListPolicy = enumeration('QAuthZListPolicy', ['deny', 'allow']);
export const QAuthZListFormat = enumeration('QAuthZListFormat', ['exact', 'glob']);
export const QAuthZListRule = struct('QAuthZListRule', {
  match: str,
  policy: QAuthZListPolicy,
  format: opt(QAuthZListFormat),
});
export const AuthZListProperties = struct('AuthZListProperties', {
  policy: opt(QAuthZListPolicy),
  rules: opt(array(QAuthZListRule)),
});
export const AuthZListFileProperties = struct('AuthZListFileProperties', { filename: str, refresh: opt(bool) });
export const AuthZSimpleProperties = struct('AuthZSimpleProperties', { identity: str });
