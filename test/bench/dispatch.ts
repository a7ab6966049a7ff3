/** What the memory and port spaces cost an access, without a CPU: over 50 regions, and over 5,000. */
import { AddressSpace } from '../../core/memory/address-space.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { PORT_COUNT, PortSpace } from '../../core/memory/port-space.ts';

const ACCESSES = 4_000_000;
const ROUNDS = 7;
const REGION = 0x1000;
const BASE = 0xe000_0000;
const BAR_NS = 120;
const BAR_GROWTH = 1.2;

function memory(regions: number): (round: number) => void {
  const root = MemoryRegion.container('system', 2 ** 40);
  const handler = { read: (offset: number) => offset, write: () => {} };
  for (let index = 0; index < regions; index++)
    root.add(MemoryRegion.io(`device${index}`, REGION, handler), BASE + index * REGION);
  const space = new AddressSpace('bench', root);
  // One device is busy at a time, as drivers are: a register here, one there.
  return round => {
    const address = BASE + ((round * 17) % regions) * REGION;
    let sum = 0;
    for (let access = 0; access < ACCESSES; access++) sum += space.read(address + ((access & 63) << 2), 4);
    if (sum < 0) throw new Error('the handler was not called');
  };
}

function ports(regions: number): (round: number) => void {
  const root = MemoryRegion.container('io', PORT_COUNT);
  const handler = { read: () => 1, write: () => {} };
  for (let index = 0; index < regions; index++) root.add(MemoryRegion.io(`device${index}`, 8, handler), index * 8);
  const space = new PortSpace('bench', root);
  return round => {
    const port = ((round * 17) % regions) * 8;
    let sum = 0;
    for (let access = 0; access < ACCESSES; access++) sum += space.read(port + (access & 7), 1);
    if (sum !== ACCESSES) throw new Error('the handler was not called');
  };
}

/** Median nanoseconds of CPU time an access. */
function measure(run: (round: number) => void): number {
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const before = process.cpuUsage();
    run(round);
    const { user, system } = process.cpuUsage(before);
    times.push(((user + system) * 1000) / ACCESSES);
  }
  return times.sort((a, b) => a - b)[ROUNDS >> 1] ?? Number.NaN;
}

for (const [name, make, many] of [
  ['memory', memory, 5000],
  ['ports', ports, 5000],
] as const) {
  const few = measure(make(50));
  const lots = measure(make(many));
  console.log(
    `${name.padEnd(7)} 50 regions ${few.toFixed(1)} ns   ${many} regions ${lots.toFixed(1)} ns   ratio ${(lots / few).toFixed(2)}   (bars ${BAR_NS} ns, ${BAR_GROWTH})`,
  );
}
