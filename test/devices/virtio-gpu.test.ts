import t from 'tap';
import { bench } from '../../core/testing/bench.ts';
import { VirtioDriver } from '../../core/testing/virtio-driver.ts';
import type { DriverQueue } from '../../core/testing/virtio-driver-queue.ts';
import { COMMAND, RESPONSE } from '../../devices/virtio-gpu/protocol.ts';
import { virtioGpuPci } from '../../devices/virtio-gpu/virtio-gpu.ts';

const EDID = 1n << 1n;
const XRGB = 2;
const ROOM = 1100;

function lab(properties: Parameters<ReturnType<typeof bench>['pci']>[1] = {}) {
  const b = bench();
  const probe = b.pci(virtioGpuPci, properties);
  const driver = new VirtioDriver(b, probe);
  driver.negotiate(EDID);
  const [control, cursor] = [driver.queue(0), driver.queue(1)];
  driver.start();
  const request = driver.allocate(4096, 4096);
  const response = driver.allocate(ROOM);
  const send = (queue: DriverQueue, type: number, words: readonly number[], flags = 0): number => {
    const { view, bytes } = driver.ram;
    bytes.fill(0, request, request + 4096);
    view.setUint32(request, type, true);
    view.setUint32(request + 4, flags, true);
    view.setUint32(request + 8, 0x1234, true);
    for (const [index, word] of words.entries()) view.setUint32(request + 24 + 4 * index, word, true);
    driver.ram.bytes.fill(0xee, response, response + ROOM);
    queue.add([
      { address: request, length: 24 + 4 * words.length },
      ...(queue === control ? [{ address: response, length: ROOM, writable: true }] : []),
    ]);
    queue.kick();
    t.ok(queue.used(), 'the buffer comes back');
    return view.getUint32(response, true);
  };
  return {
    b,
    probe,
    driver,
    screens: b.machine.services.displays.screens,
    command: (type: number, ...words: number[]) => send(control, type, words),
    fenced: (type: number, ...words: number[]) => send(control, type, words, 1),
    cursor: (type: number, ...words: number[]) => send(cursor, type, words),
    answer: (offset: number): number => driver.ram.view.getUint32(response + offset, true),
  };
}

t.test('a picture goes from the guest to the screen, by rectangles and out of pieces of memory', async t => {
  const { driver, screens, command } = lab();
  const { view } = driver.ram;
  const [first, second] = [driver.allocate(64 * 16 * 4, 4096), driver.allocate(64 * 16 * 4, 4096)];
  for (let index = 0; index < 64 * 16; index++) {
    view.setUint32(first + index * 4, index, true);
    view.setUint32(second + index * 4, 0xaa_0000 + index, true);
  }
  t.equal(command(COMMAND.RESOURCE_CREATE_2D, 1, XRGB, 64, 32), RESPONSE.OK_NODATA);
  const backing = [first, 0, 64 * 16 * 4, 0, second, 0, 64 * 16 * 4, 0];
  t.equal(command(COMMAND.RESOURCE_ATTACH_BACKING, 1, 2, ...backing), RESPONSE.OK_NODATA);
  t.equal(command(COMMAND.SET_SCANOUT, 0, 0, 64, 32, 0, 1), RESPONSE.OK_NODATA);
  let changes = 0;
  screens[0]?.watch({ changed: () => void changes++ });
  t.equal(command(COMMAND.TRANSFER_TO_HOST_2D, 0, 0, 64, 32, 0, 0, 1, 0), RESPONSE.OK_NODATA);
  t.equal(changes, 0, 'not before it is flushed');
  t.equal(command(COMMAND.RESOURCE_FLUSH, 0, 0, 64, 32, 1, 0), RESPONSE.OK_NODATA);
  t.equal(changes, 1);
  const shown = screens[0]?.refresh();
  t.match(shown, { width: 64, height: 32 });
  t.same([shown?.pixels[5], shown?.pixels[64 * 16 + 7]], [5, 0xaa_0007]);
  // Four by two pixels at 8, 20: they cross from the first piece of memory to the second.
  view.setUint32(first + (64 * 15 + 60) * 4, 0x00ff00, true);
  t.equal(command(COMMAND.TRANSFER_TO_HOST_2D, 8, 20, 4, 2, (64 * 15 + 60) * 4, 0, 1, 0), RESPONSE.OK_NODATA);
  t.same([...(screens[0]?.refresh().pixels ?? [])][64 * 20 + 8], 0x00ff00);
  t.equal(screens[0]?.refresh().pixels[64 * 21 + 8], 0xaa_003c, 'the second row');
  t.equal(command(COMMAND.RESOURCE_UNREF, 1, 0), RESPONSE.OK_NODATA);
  t.equal(screens[0]?.refresh().width, 1280, 'nothing but the monitor');
});

t.test('monitors: their sizes, EDID, and a window that changes', async t => {
  const { driver, screens, command, answer, fenced } = lab({ max_outputs: 2, xres: 1024, yres: 768 });
  t.equal(driver.readConfig(8, 4), 2, 'two outputs');
  t.equal(fenced(COMMAND.GET_DISPLAY_INFO), RESPONSE.OK_DISPLAY_INFO);
  t.same([answer(4), answer(8)], [1, 0x1234], 'the fence');
  t.same([answer(32), answer(36), answer(40)], [1024, 768, 1], 'the first is on');
  t.equal(answer(64), 0, 'the second is not');
  t.equal(command(COMMAND.GET_EDID, 0, 0), RESPONSE.OK_EDID);
  t.same([answer(24), answer(32), answer(36)], [1024, 0xffff_ff00, 0x00ff_ffff]);
  screens[1]?.source.suggestSize?.(800, 600);
  t.equal(driver.readConfig(0, 4), 1, 'an event');
  t.equal(command(COMMAND.GET_DISPLAY_INFO), RESPONSE.OK_DISPLAY_INFO);
  t.same([answer(56), answer(60), answer(64)], [800, 600, 1]);
});

t.test('the cursor', async t => {
  const { driver, screens, command, cursor } = lab();
  const pixels = driver.allocate(64 * 64 * 4, 4096);
  driver.ram.view.setUint32(pixels, 0x8011_2233, true);
  command(COMMAND.RESOURCE_CREATE_2D, 9, 1, 64, 64);
  command(COMMAND.RESOURCE_ATTACH_BACKING, 9, 1, pixels, 0, 64 * 64 * 4, 0);
  command(COMMAND.TRANSFER_TO_HOST_2D, 0, 0, 64, 64, 0, 0, 9, 0);
  cursor(COMMAND.UPDATE_CURSOR, 0, 10, 10, 0, 9, 3, 4, 0);
  t.match(screens[0]?.cursor, { width: 64, height: 64, hotX: 3, hotY: 4 });
  t.equal(screens[0]?.cursor?.pixels[0], 0x8011_2233);
  cursor(COMMAND.UPDATE_CURSOR, 0, 10, 10, 0, 0, 0, 0, 0);
  t.equal(screens[0]?.cursor?.pixels[0], 0, 'hidden');
});

t.test('what the driver may not do', async t => {
  const { command } = lab({ max_hostmem: 1 << 20 });
  const {
    OK_NODATA,
    ERR_INVALID_PARAMETER,
    ERR_INVALID_RESOURCE_ID,
    ERR_INVALID_SCANOUT_ID,
    ERR_OUT_OF_MEMORY,
    ERR_UNSPEC,
  } = RESPONSE;
  t.equal(command(COMMAND.RESOURCE_CREATE_2D, 0, XRGB, 64, 64), ERR_INVALID_RESOURCE_ID);
  t.equal(command(COMMAND.RESOURCE_CREATE_2D, 1, 99, 64, 64), ERR_INVALID_PARAMETER);
  t.equal(command(COMMAND.RESOURCE_CREATE_2D, 1, XRGB, 0xffff_ffff, 0xffff_ffff), ERR_OUT_OF_MEMORY);
  t.equal(command(COMMAND.RESOURCE_CREATE_2D, 1, XRGB, 64, 64), OK_NODATA);
  t.equal(command(COMMAND.RESOURCE_CREATE_2D, 1, XRGB, 64, 64), ERR_INVALID_RESOURCE_ID, 'twice');
  t.equal(command(COMMAND.TRANSFER_TO_HOST_2D, 0, 0, 64, 64, 0, 0, 1, 0), ERR_UNSPEC, 'without memory');
  t.equal(command(COMMAND.RESOURCE_ATTACH_BACKING, 1, 1, 0xffff_f000, 0xff, 4096, 0), ERR_UNSPEC, 'no RAM there');
  t.equal(command(COMMAND.RESOURCE_ATTACH_BACKING, 1, 100_000), ERR_UNSPEC);
  t.equal(command(COMMAND.SET_SCANOUT, 0, 0, 64, 64, 5, 1), ERR_INVALID_SCANOUT_ID);
  t.equal(command(COMMAND.SET_SCANOUT, 0, 0, 65, 64, 0, 1), ERR_INVALID_PARAMETER);
  t.equal(command(COMMAND.SET_SCANOUT, 0xffff_ffff, 0, 64, 64, 0, 1), ERR_INVALID_PARAMETER);
  t.equal(command(COMMAND.RESOURCE_FLUSH, 0, 0, 64, 64, 7, 0), ERR_INVALID_RESOURCE_ID);
  t.equal(command(0x0108, 0), ERR_UNSPEC, 'no 3D');
  t.equal(command(COMMAND.RESOURCE_CREATE_2D, 5), OK_NODATA, 'too short: nothing happens');
  t.equal(command(COMMAND.RESOURCE_UNREF, 5, 0), ERR_INVALID_RESOURCE_ID);
});
