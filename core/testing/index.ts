/** Hardware tests without a CPU, for any test runner. */

export { Bench, type BenchOptions, bench, PciProbe, type SentMessage } from './bench.ts';
export { VirtioDriver } from './virtio-driver.ts';
export { type DriverBuffer, DriverQueue, type UsedBuffer } from './virtio-driver-queue.ts';
