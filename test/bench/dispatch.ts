/**
 * What finding the device costs, without KVM: accesses through the framework's own buses with 50 regions on each.
 *
 *   node dist/test/bench/dispatch.js
 */
import { performance } from 'node:perf_hooks';
import { benchBus, HPET, POST_PORT } from './bench-bus.ts';

const ACCESSES = 5_000_000;
const BAR_NS = 120;

const bus = benchBus();
/** Different devices in turn, so that no cache of the last one helps. */
const port = (index: number): number => POST_PORT + 16 * (index % 50);
const address = (index: number): number => HPET + 0x1000 * ((index % 50) - 25);
let sum = 0;

const ACCESSES_BY_NAME: Record<string, (index: number) => void> = {
  'port read': index => {
    sum += bus.portRead(port(index), 1);
  },
  'port write': index => bus.portWrite(port(index), 4, index),
  'memory read': index => {
    sum += bus.memoryRead(address(index), 4);
  },
  'memory write': index => bus.memoryWrite(address(index), 4, index),
};

for (const [name, access] of Object.entries(ACCESSES_BY_NAME)) {
  const times: number[] = [];
  for (let round = 0; round < 4; round++) {
    const start = performance.now();
    for (let index = 0; index < ACCESSES; index++) access(index);
    times.push(((performance.now() - start) * 1e6) / ACCESSES);
  }
  console.log(`${name.padEnd(12)}  ${Math.min(...times).toFixed(1)} ns, bar ${BAR_NS}`);
}
if (Number.isNaN(sum)) console.log(sum);
