import { readFileSync } from 'node:fs';
import t from 'tap';
import type { CryptoBackend } from '../../core/crypto/cryptodev.ts';
import { virtioCryptoPci } from '../../devices/virtio-crypto/virtio-crypto.ts';
import { buildGuest } from './build.ts';
import { bootLinux } from './linux-machine.ts';

t.setTimeout(400_000);

t.test('Linux enciphers through virtio-crypto', async t => {
  const backend: CryptoBackend = { id: 'c', used: false, claim: () => () => {} };
  const linux = await bootLinux(t, {
    modules: ['virtio_pci', 'virtio_crypto', 'algif_skcipher'],
    files: { cipher: readFileSync(await buildGuest('cipher')) },
    backend: kind => (kind === 'cryptodev' ? backend : undefined),
    plug: machine => machine.findBus('pci.0')?.plug(virtioCryptoPci, {}, { cryptodev: 'c' }),
    init: 'grep -A3 virtio_crypto_aes_cbc /proc/crypto\n/cipher\necho DONE',
  });
  if (linux === undefined) return;
  const [said] = await linux.terminal.until(/[\s\S]*DONE/, 300_000);
  t.match(said, /driver +: virtio_crypto_aes_cbc/);
  t.match(said, '7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2', 'NIST SP 800-38A, F.2.1');
});
