import t from 'tap';
import { EventFd } from '../../../core/host/event-fd.ts';
import { code } from '../../machine-code.ts';
import { at, lab, noKvm, setVector } from './kvm-lab.ts';

const HANDLER = 0x1100;
const MARK_AND_EOI = [0xe6, 0x99, 0xb0, 0x20, 0xe6, 0x20, 0xcf];
const PIC_SETUP = [
  [0x20, 0x11],
  [0x21, 8],
  [0x21, 4],
  [0x21, 1],
  [0x21, 0],
].flatMap(([port = 0, value = 0]) => [0xb0, value, 0xe6, port]);
const SLEEP = [0xfb, 0xf4, 0xeb, 0xfd];

t.test('an ioeventfd takes the writes that match, and only those', { skip: noKvm }, async t => {
  const guest = lab(code`
    b0 01 e6 60     ; out 60h, 1: a doorbell
    b0 02 e6 60     ; another value: an exit
    e6 62           ; out 62h, al
    f4 eb fd        ; hlt; jmp $-1
  `);
  const doorbell = new EventFd();
  t.teardown(() => {
    doorbell.close();
    guest.vm.dispose();
  });
  const release = guest.vm.ioeventfd?.(doorbell.fd, { space: 'pio', address: 0x60, size: 1, value: 1 });
  const rung = new Promise(resolve => doorbell.onSignal(resolve));
  guest.vm.start();
  await guest.seen(at(0x62));
  t.equal(await rung, 1);
  t.same(
    guest.bus.accesses.map(access => [access.address, access.value]),
    [
      [0x60, 2],
      [0x62, 2],
    ],
  );
  release?.();
  guest.vm.reset();
  await guest.seen(access => access.address === 0x60 && access.value === 1);
});

t.test('an irqfd interrupts a guest', { skip: noKvm }, async t => {
  const guest = lab([...PIC_SETUP, 0xe6, 0x90, ...SLEEP], { pit: false });
  const line = new EventFd();
  t.teardown(() => {
    line.close();
    guest.vm.dispose();
  });
  setVector(guest.ram, 0x0d, HANDLER);
  guest.ram.bytes.set(MARK_AND_EOI, HANDLER);
  guest.vm.start();
  await guest.seen(at(0x90));
  const release = guest.vm.irqfd?.(line.fd, 5);
  for (let round = 0; round < 3; round++) {
    const marked = guest.seen(at(0x99));
    line.signal();
    await marked;
  }
  release?.();
  line.signal();
  await new Promise(done => setTimeout(done, 20));
  t.equal(guest.bus.accesses.filter(at(0x99)).length, 3);
});

t.test('messages arrive directly and through an irqfd', { skip: noKvm }, async t => {
  // x2APIC on, then its software-enable bit (SVR, MSR 80Fh); the handler's end of interrupt is MSR 80Bh.
  const enable = [
    0x66, 0xb9, 0x1b, 0, 0, 0, 0x66, 0xb8, 0x00, 0x0d, 0xe0, 0xfe, 0x66, 0x31, 0xd2, 0x0f, 0x30, 0x66, 0xb9, 0x0f, 0x08,
    0, 0, 0x66, 0xb8, 0xff, 0x01, 0, 0, 0x0f, 0x30,
  ];
  const guest = lab([...enable, 0xe6, 0x90, ...SLEEP], { pit: false });
  const message = new EventFd();
  t.teardown(() => {
    message.close();
    guest.vm.dispose();
  });
  for (const vector of [0x51, 0x52]) setVector(guest.ram, vector, vector === 0x51 ? HANDLER : HANDLER + 0x20);
  const endOfInterrupt = [0x66, 0xb9, 0x0b, 0x08, 0, 0, 0x66, 0x31, 0xc0, 0x66, 0x31, 0xd2, 0x0f, 0x30, 0xcf];
  guest.ram.bytes.set([0xe6, 0x98, ...endOfInterrupt], HANDLER);
  guest.ram.bytes.set([0xe6, 0x99, ...endOfInterrupt], HANDLER + 0x20);
  guest.vm.start();
  await guest.seen(at(0x90));
  let marked = guest.seen(at(0x98));
  guest.vm.injectMsi(0xfee0_0000, 0x51);
  await marked;
  const route = guest.vm.msiRoute?.(0xfee0_0000, 0x51);
  guest.vm.irqfd?.(message.fd, route?.gsi ?? -1);
  route?.update(0xfee0_0000, 0x52);
  marked = guest.seen(at(0x99));
  message.signal();
  await marked;
  route?.release();
  t.equal(guest.bus.accesses.filter(at(0x98)).length, 1);
});

t.test('coalesced writes reach the bus in order, before the next exit', { skip: noKvm }, async t => {
  const guest = lab(code`
    b0 01 e6 70 fe c0 e6 70 fe c0 e6 70  ; out 70h with 1, 2, 3
    e6 71 f4 eb fd
  `);
  t.teardown(() => guest.vm.dispose());
  guest.vm.coalesce?.('pio', 0x70, 1);
  guest.vm.start();
  await guest.seen(at(0x71));
  t.same(
    guest.bus.accesses.map(access => [access.address, access.value]),
    [
      [0x70, 1],
      [0x70, 2],
      [0x70, 3],
      [0x71, 3],
    ],
  );
});

t.test('the dirty log knows each page that the guest wrote, once', { skip: noKvm }, async t => {
  const guest = lab(code`
    b8 00 80 8e d8           ; mov ax, 8000h; mov ds, ax
    a2 00 00 a2 00 30        ; mov [0], al; mov [3000h], al
    e6 90 e4 91              ; out 90h, al; in al, 91h
    a2 00 50 e6 92 f4 eb fd
  `);
  t.teardown(() => guest.vm.dispose());
  guest.vm.logDirty?.(0, true);
  const pages = (): number[] => {
    const bitmap = guest.vm.readDirty?.(0) ?? new Uint8Array(0);
    return Array.from({ length: bitmap.length * 8 }, (_, page) => page).filter(
      page => (bitmap[page >> 3] ?? 0) & (1 << (page & 7)),
    );
  };
  let first: number[] = [];
  const done = guest.seen(access => {
    if (access.address === 0x90) first = pages();
    return access.address === 0x92;
  });
  guest.vm.start();
  await done;
  t.same(first, [0x80, 0x83]);
  t.same(pages(), [0x85]);
  t.same(pages(), []);
  guest.vm.logDirty?.(0, false);
  t.throws(() => pages(), { code: 'ERR_DIRTY_LOG' });
});

t.test('a write to read-only memory exits and changes nothing', { skip: noKvm }, async t => {
  const guest = lab(code`
    b8 00 f0 8e d8           ; mov ax, f000h; mov ds, ax
    b0 77 a2 34 12           ; mov al, 77h; mov [1234h], al
    a0 34 12 e6 90 f4 eb fd  ; mov al, [1234h]; out 90h, al
  `);
  t.teardown(() => guest.vm.dispose());
  guest.vm.start();
  await guest.seen(at(0x90));
  t.same(guest.bus.accesses, [
    { kind: 'write', address: 0xf_1234, size: 1, value: 0x77 },
    { kind: 'out', address: 0x90, size: 1, value: 0 },
  ]);
});

t.test('string instructions move whole blocks, with and without help of the bus', { skip: noKvm }, async t => {
  const copy = code`
    fc 31 c0 8e c0 bf 00 30 b9 40 00 ba f0 01 f3 6d  ; rep insw: 64 words to 3000h
    8e d8 be 00 30 b9 40 00 ba f2 01 f3 6f        ; rep outsw
    e6 90 f4 eb fd
  `;
  for (const helped of [false, true]) {
    const guest = lab(copy);
    t.teardown(() => guest.vm.dispose());
    let next = 0;
    const seenBlocks: number[] = [];
    const { bus } = guest;
    bus.portRead = () => next++ * 0x0101;
    if (helped) {
      Object.assign(bus, {
        portReadString(_port: number, size: number, data: Uint8Array, offset: number, count: number): boolean {
          seenBlocks.push(count);
          const view = new DataView(data.buffer, data.byteOffset);
          for (let index = 0; index < count; index++) view.setUint16(offset + size * index, next++ * 0x0101, true);
          return true;
        },
      });
    }
    guest.vm.start();
    await guest.seen(at(0x90));
    const expected = Array.from({ length: 64 }, (_, index) => index * 0x0101);
    t.same(
      Array.from({ length: 64 }, (_, index) => guest.ram.view.getUint16(0x3000 + 2 * index, true)),
      expected,
    );
    t.same(
      bus.accesses.filter(at(0x1f2)).map(access => access.value),
      expected,
    );
    if (helped)
      t.equal(
        seenBlocks.reduce((sum, count) => sum + count, 0),
        64,
      );
  }
});

t.test('accesses to memory beyond RAM exit with every width', { skip: noKvm }, async t => {
  const guest = lab(code`
    b8 ff ff 8e d8           ; ds = ffffh: ds:10h is 100000h, beyond the RAM
    a0 10 00                 ; mov al, [10h]
    a3 12 00                 ; mov [12h], ax
    66 a1 14 00 66 a3 18 00  ; mov eax, [14h]; mov [18h], eax
    e6 90 f4 eb fd
  `);
  t.teardown(() => guest.vm.dispose());
  guest.bus.reads.set(0x10_0000, 0xab);
  guest.bus.reads.set(0x10_0004, 0xdead_beef);
  guest.vm.start();
  await guest.seen(at(0x90));
  t.same(guest.bus.accesses.slice(0, 4), [
    { kind: 'read', address: 0x10_0000, size: 1, value: 0xab },
    { kind: 'write', address: 0x10_0002, size: 2, value: 0xffab },
    { kind: 'read', address: 0x10_0004, size: 4, value: 0xdead_beef },
    { kind: 'write', address: 0x10_0008, size: 4, value: 0xdead_beef },
  ]);
});
