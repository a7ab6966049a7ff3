/** Hardware tests without a CPU, for any test runner. */

export { Bench, type BenchOptions, bench, PciProbe, type SentMessage } from './bench.ts';
export { type ContractCheck, type ContractOptions, deviceContract } from './contract/contract.ts';
export { type AhciCommand, AhciDriver, type AhciRegion } from './drivers/ahci-driver.ts';
export { DescriptorRing, type DescriptorRingParts } from './drivers/descriptor-ring.ts';
export { Fault, type Occasions } from './faults/fault.ts';
export { type DmaMatch, Faults, type IoMatch } from './faults/faults.ts';
export { ScriptedConsole } from './guest/console.ts';
export { Guest, type GuestDevice, type GuestOptions, type GuestSnapshot } from './guest/guest.ts';
export type { InputLog } from './guest/inputs.ts';
export { junit, tapLine } from './guest/reports.ts';
export { type GuestSuite, type GuestTest, guestSuite, runSuite, type TestResult } from './guest/suite.ts';
export { TimeMachine } from './guest/time-machine.ts';
export { type MachineBenchOptions, machineOnBench } from './machine-bench.ts';
export { type Asserter, type HardwareAssertions, hardware } from './matchers.ts';
export { type Edge, IrqProbe } from './probes.ts';
export { SeededRandom, StandIns } from './stand-ins.ts';
export { QtestClient } from './traffic/qtest-port.ts';
export { TrafficRecorder } from './traffic/recorder.ts';
export { type Difference, type ReplayOptions, type ReplayPort, replay } from './traffic/replay.ts';
export { type Access, formatTraffic, parseMmiotrace, parseTraffic, type Traffic } from './traffic/traffic.ts';
export { VirtioDriver } from './virtio-driver.ts';
export { type DriverBuffer, DriverQueue, type UsedBuffer } from './virtio-driver-queue.ts';
