import { SouthbridgeError } from '../errors.ts';
import type { Machine } from '../machine/machine.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import { type BootImage, hex, type Segment } from './image.ts';

const ZEROES = new Uint8Array(0x1_0000);

/**
 * Starts the machine with `image` in place of firmware: after each reset the image is put into memory anew, and the boot
 * CPU enters it.
 */
export function bootDirectly(machine: Machine, image: BootImage): void {
  machine.onReset(() => {
    placeSegments(machine.memory, image.segments);
    const [bootCpu] = machine.vm.vcpus;
    if (bootCpu === undefined) throw new SouthbridgeError('ERR_MACHINE_STATE', 'the machine has no CPU to boot');
    const state = bootCpu.readState();
    image.enter(state);
    bootCpu.writeState(state);
  });
}

/**
 * Writes `segments` to guest memory.
 *
 * @throws SouthbridgeError ERR_IMAGE_NO_RAM where one does not lie in RAM
 */
export function placeSegments(memory: AddressSpace, segments: readonly Segment[]): void {
  for (const { address, bytes, size } of segments) {
    let complete = memory.writeBytes(address, bytes, 0, bytes.length);
    for (let done = bytes.length; done < size; ) {
      const step = Math.min(size - done, ZEROES.length);
      complete = memory.writeBytes(address + done, ZEROES, 0, step) && complete;
      done += step;
    }
    if (!complete)
      throw new SouthbridgeError('ERR_IMAGE_NO_RAM', `there is no RAM for all of the ${size} bytes at ${hex(address)}`);
  }
}
