/** Hardware tests without a CPU, for any test runner. */

export { Bench, type BenchOptions, bench, PciProbe, type SentMessage } from './bench.ts';
export { type ContractCheck, type ContractOptions, deviceContract } from './contract/contract.ts';
export { type MachineBenchOptions, machineOnBench } from './machine-bench.ts';
export { SeededRandom, StandIns } from './stand-ins.ts';
export { VirtioDriver } from './virtio-driver.ts';
export { type DriverBuffer, DriverQueue, type UsedBuffer } from './virtio-driver-queue.ts';
