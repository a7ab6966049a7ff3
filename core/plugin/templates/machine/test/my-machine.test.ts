import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { machineFromJson } from 'southbridge';
import { builtInTypes } from 'southbridge/built-in';
import { machineOnBench } from 'southbridge/testing';
import { myMachine } from '../src/index.ts';

test('the machine has its card', () => {
  const machine = machineOnBench(myMachine);
  assert.deepEqual(
    [...machine.devices()].filter(device => device.typeName === 'edu').map(device => device.property('addr')?.get()),
    [0x1e * 8],
  );
  machine.dispose();
});

test('the file says the same', async () => {
  const text = readFileSync(new URL('../../my-machine.json', import.meta.url), 'utf8');
  const machines = [myMachine, await machineFromJson(text, 'my-machine.json', builtInTypes())];
  const [code, data] = machines.map(type => {
    const machine = machineOnBench(type);
    const paths = [...machine.devices()].map(device => `${device.path} ${device.typeName}`);
    machine.dispose();
    return paths;
  });
  assert.deepEqual(data, code);
});
