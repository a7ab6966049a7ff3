import { type PciPlace, RegisterScript } from '../register-script.ts';
import { VirtioRequests } from '../virtio-requests.ts';

const PLACE: PciPlace = { device: 4 };
const MIB = 2 ** 20;
const MEMORY = 0x1_0000_0000;
const PLUG = 0;
const UNPLUG = 1;
const UNPLUG_ALL = 2;
const STATE = 3;

const machine = (device: string, ...more: readonly string[]): string[] => [
  ...['-machine', 'pc', '-m', '128M,maxmem=2G', '-nodefaults', '-object', 'memory-backend-ram,id=m,size=512M'],
  ...['-device', `${device},addr=4`, ...more],
];

export function pmem(): RegisterScript {
  const script = new RegisterScript('virtio-pmem: configuration, memory', machine('virtio-pmem-pci,memdev=m'));
  for (let at = 0; at < 0x40; at += 4) script.about(`PCI ${at}`).pciRead(PLACE, at);
  new VirtioRequests(script, PLACE).config('at reset', 6).start(1).config('negotiated', 4);
  script
    .about('memory')
    .write32(MEMORY + 0x1000, 0x1234_5678)
    .read32(MEMORY + 0x1000)
    .read32(MEMORY + 512 * MIB);
  return script;
}

/** As most of a request: a type, an address, and a number of blocks. */
function request(type: number, address = 0, blocks = 0): Buffer {
  const bytes = Buffer.alloc(24);
  bytes.writeUInt16LE(type, 0);
  bytes.writeBigUInt64LE(BigInt(address), 8);
  bytes.writeUInt16LE(blocks, 16);
  return bytes;
}

export function mem(): RegisterScript {
  const options = 'virtio-mem-pci,memdev=m,requested-size=16M,block-size=4M';
  const script = new RegisterScript('virtio-mem: plug, unplug, state', machine(options));
  const driver = new VirtioRequests(script, PLACE).config('at reset', 14).start(1);
  const ask = (what: string, type: number, address?: number, blocks?: number): void => {
    driver.request(what, 0, request(type, address, blocks), 10);
  };
  const BLOCK = 4 * MIB;
  ask('nothing is plugged', STATE, MEMORY, 3);
  ask('plug two', PLUG, MEMORY + BLOCK, 2);
  driver.config('two are plugged', 14);
  ask('a mixture', STATE, MEMORY, 3);
  ask('both', STATE, MEMORY + BLOCK, 2);
  ask('plug one again', PLUG, MEMORY + 2 * BLOCK, 1);
  ask('unplug what is not there', UNPLUG, MEMORY, 2);
  ask('more than was asked for', PLUG, MEMORY + 4 * BLOCK, 3);
  ask('as much as was asked for', PLUG, MEMORY + 4 * BLOCK, 2);
  ask('one too many', PLUG, MEMORY + 8 * BLOCK, 1);
  for (const [what, address, blocks] of [
    ['not a block', MEMORY + MIB, 1],
    ['no blocks', MEMORY, 0],
    ['below', MEMORY - BLOCK, 1],
    ['the last usable', MEMORY + 272 * MIB - BLOCK, 1],
    ['behind the usable', MEMORY + 272 * MIB, 1],
    ['beyond the usable', MEMORY + 272 * MIB - BLOCK, 2],
    ['as many as there can be', MEMORY, 0xffff],
  ] as const) {
    ask(`state: ${what}`, STATE, address, blocks);
    ask(`plug: ${what}`, PLUG, address, blocks);
    ask(`unplug: ${what}`, UNPLUG, address, blocks);
  }
  script
    .about('memory')
    .write32(MEMORY + BLOCK, 0x1111_1111)
    .write32(MEMORY + 2 * BLOCK, 0x2222_2222);
  ask('unplug one', UNPLUG, MEMORY + BLOCK, 1);
  script
    .about('what was unplugged')
    .read32(MEMORY + BLOCK)
    .read32(MEMORY + 2 * BLOCK);
  ask('half of them', STATE, MEMORY + BLOCK, 2);
  driver.config('after an unplug', 14);
  ask('unplug all', UNPLUG_ALL);
  script.about('all are gone').read32(MEMORY + 2 * BLOCK);
  driver.config('all unplugged', 14);
  ask('plug one once more', PLUG, MEMORY, 1);
  driver.request('no room for an answer', 0, request(STATE, MEMORY, 1), 9).status('broken');
  return script;
}

export function memRefusals(): RegisterScript {
  const options = 'virtio-mem-pci,memdev=m,unplugged-inaccessible=on';
  const script = new RegisterScript('virtio-mem: nothing requested, an unknown request', machine(options));
  const driver = new VirtioRequests(script, PLACE).config('at reset', 14).start(1);
  driver.request('nothing is usable', 0, request(STATE, MEMORY, 1), 16);
  driver.request('an unknown type', 0, request(4), 16).status('broken');
  return script;
}

export function memShort(): RegisterScript {
  const script = new RegisterScript(
    'virtio-mem: a short request',
    machine('virtio-mem-pci,memdev=m,requested-size=4M'),
  );
  const driver = new VirtioRequests(script, PLACE).start(1);
  driver.request('a short one', 0, request(STATE, MEMORY, 1).subarray(0, 23), 16).status('broken');
  return script;
}
