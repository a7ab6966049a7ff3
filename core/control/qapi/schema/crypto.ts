import { array, bool, enumeration, int, opt, str, struct, union } from '../types.ts';

export const QCryptoSecretFormat = enumeration('QCryptoSecretFormat', ['raw', 'base64']);
export const SecretCommonProperties = struct('SecretCommonProperties', {
  loaded: opt(bool, 'deprecated'),
  format: opt(QCryptoSecretFormat),
  keyid: opt(str),
  iv: opt(str),
});
export const SecretProperties = struct(
  'SecretProperties',
  { data: opt(str), file: opt(str) },
  { base: SecretCommonProperties },
);
export const QCryptoBlockFormat = enumeration('QCryptoBlockFormat', ['qcow', 'luks']);
export const QCryptoBlockOptionsBase = struct('QCryptoBlockOptionsBase', { format: QCryptoBlockFormat });
export const QCryptoBlockOptionsQCow = struct('QCryptoBlockOptionsQCow', { 'key-secret': opt(str) });
export const QCryptoBlockOptionsLUKS = struct('QCryptoBlockOptionsLUKS', { 'key-secret': opt(str) });
export const QCryptoCipherAlgorithm = enumeration('QCryptoCipherAlgorithm', [
  'aes-128',
  'aes-192',
  'aes-256',
  'des',
  '3des',
  'cast5-128',
  'serpent-128',
  'serpent-192',
  'serpent-256',
  'twofish-128',
  'twofish-192',
  'twofish-256',
]);
export const QCryptoCipherMode = enumeration('QCryptoCipherMode', ['ecb', 'cbc', 'xts', 'ctr']);
export const QCryptoIVGenAlgorithm = enumeration('QCryptoIVGenAlgorithm', ['plain', 'plain64', 'essiv']);
export const QCryptoHashAlgorithm = enumeration('QCryptoHashAlgorithm', [
  'md5',
  'sha1',
  'sha224',
  'sha256',
  'sha384',
  'sha512',
  'ripemd160',
]);
export const QCryptoBlockCreateOptionsLUKS = struct(
  'QCryptoBlockCreateOptionsLUKS',
  {
    'cipher-alg': opt(QCryptoCipherAlgorithm),
    'cipher-mode': opt(QCryptoCipherMode),
    'ivgen-alg': opt(QCryptoIVGenAlgorithm),
    'ivgen-hash-alg': opt(QCryptoHashAlgorithm),
    'hash-alg': opt(QCryptoHashAlgorithm),
    'iter-time': opt(int),
  },
  { base: QCryptoBlockOptionsLUKS },
);
export const QCryptoBlockCreateOptions = union('QCryptoBlockCreateOptions', { format: QCryptoBlockFormat }, 'format', {
  qcow: QCryptoBlockOptionsQCow,
  luks: QCryptoBlockCreateOptionsLUKS,
});
export const QCryptoBlockLUKSKeyslotState = enumeration('QCryptoBlockLUKSKeyslotState', ['active', 'inactive']);
export const QCryptoBlockAmendOptionsLUKS = struct('QCryptoBlockAmendOptionsLUKS', {
  state: QCryptoBlockLUKSKeyslotState,
  'new-secret': opt(str),
  'old-secret': opt(str),
  keyslot: opt(int),
  'iter-time': opt(int),
  secret: opt(str),
});
export const QCryptoBlockAmendOptions = union('QCryptoBlockAmendOptions', { format: QCryptoBlockFormat }, 'format', {
  luks: QCryptoBlockAmendOptionsLUKS,
});
export const QCryptoBlockInfoLUKSSlot = struct('QCryptoBlockInfoLUKSSlot', {
  active: bool,
  iters: opt(int),
  stripes: opt(int),
  'key-offset': int,
});
export const QCryptoBlockInfoLUKS = struct('QCryptoBlockInfoLUKS', {
  'cipher-alg': QCryptoCipherAlgorithm,
  'cipher-mode': QCryptoCipherMode,
  'ivgen-alg': QCryptoIVGenAlgorithm,
  'ivgen-hash-alg': opt(QCryptoHashAlgorithm),
  'hash-alg': QCryptoHashAlgorithm,
  'payload-offset': int,
  'master-key-iters': int,
  uuid: str,
  slots: array(QCryptoBlockInfoLUKSSlot),
});
export const QCryptoTLSCredsEndpoint = enumeration('QCryptoTLSCredsEndpoint', ['client', 'server']);
export const TlsCredsProperties = struct('TlsCredsProperties', {
  'verify-peer': opt(bool),
  dir: opt(str),
  endpoint: opt(QCryptoTLSCredsEndpoint),
  priority: opt(str),
});
export const TlsCredsAnonProperties = struct(
  'TlsCredsAnonProperties',
  { loaded: opt(bool, 'deprecated') },
  { base: TlsCredsProperties },
);
export const TlsCredsPskProperties = struct(
  'TlsCredsPskProperties',
  { loaded: opt(bool, 'deprecated'), username: opt(str) },
  { base: TlsCredsProperties },
);
export const TlsCredsX509Properties = struct(
  'TlsCredsX509Properties',
  { loaded: opt(bool, 'deprecated'), 'sanity-check': opt(bool), passwordid: opt(str) },
  { base: TlsCredsProperties },
);
