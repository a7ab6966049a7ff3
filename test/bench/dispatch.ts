/**
 * What an exit costs in TypeScript, without KVM: from its kvm_run page through the buses to a device and back, over 50 regions and over
 * 5,000. Both buses are warm and take turns: what is left between them is the number of regions.
 */
import { RUN_UNION } from '../../core/accel/kvm/abi.ts';
import { ExitServer } from '../../core/accel/kvm/exits.ts';
import { benchBus, pageOf, portOf } from './bench-bus.ts';
import { median } from './median.ts';

const EXITS = 2_000_000;
/** Exits to one device before the next has its turn, as drivers do: a register here, one there. */
const BURST = 64;
const ROUNDS = 9;
const FEW = 50;
const MANY = 5000;
/** No divisor of either number: each round meets every device. */
const STRIDE = 17;
const RUN_PAGE = 0x1000;
const BAR_NS = 120;
const BAR_GROWTH = 1.2;

const IO_IN = 0;
const MMIO_LENGTH = RUN_UNION + 4;

type Rounds = () => void;

/** Reads of four bytes, as the kernel describes them in `struct kvm_run`. */
function memory(regions: number): Rounds {
  const server = new ExitServer(new ArrayBuffer(RUN_PAGE), benchBus(regions));
  const { words } = server;
  words[MMIO_LENGTH] = 4;
  return () =>
    walk(regions, (index, register) => {
      words[RUN_UNION] = pageOf(index, regions) + register * 4;
      server.mmio();
    });
}

/** Reads of one port. */
function ports(regions: number): Rounds {
  const server = new ExitServer(new ArrayBuffer(RUN_PAGE), benchBus(regions));
  const { words } = server;
  words[RUN_UNION + 1] = 1;
  return () =>
    walk(regions, (index, register) => {
      words[RUN_UNION] = ((portOf(index) + (register & 3)) << 16) | (1 << 8) | IO_IN;
      server.io();
    });
}

function walk(regions: number, exit: (index: number, register: number) => void): void {
  for (let exits = 0, index = 0; exits < EXITS; exits += BURST) {
    for (let register = 0; register < BURST; register++) exit(index, register);
    index = (index + STRIDE) % regions;
  }
}

/** Nanoseconds of CPU time an exit. */
function measure(run: Rounds): number {
  const before = process.cpuUsage();
  run();
  const { user, system } = process.cpuUsage(before);
  return ((user + system) * 1000) / EXITS;
}

for (const [name, make] of [
  ['memory', memory],
  ['ports', ports],
] as const) {
  const few = make(FEW);
  const many = make(MANY);
  few();
  many();
  const times = Array.from({ length: ROUNDS }, () => ({ few: measure(few), many: measure(many) }));
  const fewNs = median(times.map(each => each.few));
  const manyNs = median(times.map(each => each.many));
  const ratio = median(times.map(each => each.many / each.few));
  console.log(
    `${name.padEnd(7)} ${FEW} regions ${fewNs.toFixed(1)} ns   ${MANY} regions ${manyNs.toFixed(1)} ns   ratio ${ratio.toFixed(2)}   (bars ${BAR_NS} ns, ${BAR_GROWTH})`,
  );
}
