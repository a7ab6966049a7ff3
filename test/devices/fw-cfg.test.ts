import t from 'tap';
import { qtest } from '../../core/accel/qtest/accelerator.ts';
import { Machine } from '../../core/machine/machine.ts';
import { DEFAULT_CONFIG } from '../../core/machine/machine-config.ts';
import { machineType } from '../../core/machine/machine-type.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { type FwCfgIo, fwCfgIo } from '../../devices/fw-cfg.ts';

const RAM = 0x1_0000;

function lab(): { machine: Machine; device: FwCfgIo } {
  let device: FwCfgIo | undefined;
  const type = machineType({
    type: 'fw-cfg-lab',
    summary: 'RAM and fw_cfg',
    build(machine) {
      machine.memoryRoot.add(MemoryRegion.ram(machine.allocateRam('ram', RAM)), 0);
      device = machine.system.plug(fwCfgIo);
    },
  });
  const machine = new Machine({ type, config: DEFAULT_CONFIG, accelerator: qtest }).build();
  t.teardown(() => machine.dispose());
  if (device === undefined) throw new Error('the machine has no fw_cfg');
  return { machine, device };
}

t.test('ports: words select, bytes are data', async t => {
  const { machine, device } = lab();
  const { ports } = machine;
  device.content.setItem(0x07, Buffer.from('abc'));
  ports.write(0x510, 2, 0x07);
  t.equal(ports.read(0x511, 1), 0x61);
  t.equal(ports.read(0x510, 1), 0x62, 'data answers at the selector port too');
  t.equal(ports.read(0x510, 2), 0, 'the selector cannot be read');
  ports.write(0x511, 1, 0xff);
  t.equal(ports.read(0x511, 1), 0x63, 'nothing was written');
  t.equal(ports.read(0x511, 1), 0, 'the end');
});

t.test('the DMA register is big-endian and starts on its low half', async t => {
  const { machine, device } = lab();
  const { ports, memory } = machine;
  t.equal(ports.read(0x514, 4), 0x554d4551, 'QEMU');
  t.equal(ports.read(0x518, 4), 0x47464320, ' CFG');
  t.equal(ports.read(0x517, 1), 0x55);
  device.content.setItem(0x07, Buffer.from('hello'));
  const request = Buffer.alloc(16);
  request.writeUInt32BE((0x07 << 16) | 8 | 2, 0);
  request.writeUInt32BE(5, 4);
  request.writeBigUInt64BE(0x2000n, 8);
  memory.writeBytes(0x1000, request, 0, 16);
  ports.write(0x514, 4, 0);
  ports.write(0x518, 4, 0x0010_0000);
  const answer = Buffer.alloc(5);
  memory.readBytes(0x2000, answer, 0, 5);
  t.equal(answer.toString(), 'hello');
  t.equal(memory.read(0x1000, 4), 0, 'done without an error');
  ports.write(0x518, 4, 0xffff_ffff);
  t.pass('a request outside memory is harmless');
});

t.test('a reset selects the signature; a snapshot keeps the position', async t => {
  const { machine, device } = lab();
  const { ports } = machine;
  device.content.setItem(0x07, Buffer.from('abc'));
  ports.write(0x510, 2, 0x07);
  ports.read(0x511, 1);
  const saved = device.save();
  device.reset();
  t.equal(ports.read(0x511, 1), 0x51);
  device.restore(saved);
  t.equal(ports.read(0x511, 1), 0x62);
  ports.write(0x510, 2, 0x3000);
  const invalid = device.save();
  device.restore(invalid);
  t.equal(ports.read(0x511, 1), 0);
});
