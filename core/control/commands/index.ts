import { snapshotCommands } from '../migration/snapshot-jobs.ts';
import type { Program } from '../program.ts';
import { CommandTable } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';
import { blockCommands } from './block.ts';
import { blockExportCommands } from './block-export.ts';
import { blockJobCommands } from './block-jobs.ts';
import { charCommands } from './char.ts';
import { controlCommands } from './control.ts';
import { cpuCommands } from './cpu.ts';
import { dirtyRateCommands } from './dirty-rate.ts';
import { displayCommands } from './display.ts';
import { dumpCommands } from './dump.ts';
import { hostCommands } from './host.ts';
import { inputCommands } from './input.ts';
import { machineCommands } from './machine.ts';
import { memoryCommands } from './memory.ts';
import { migrationCommands } from './migration.ts';
import { miscCommands } from './misc.ts';
import { netCommands } from './net.ts';
import { objectCommands } from './objects.ts';
import { pciCommands } from './pci.ts';
import { pluginCommands } from './plugins.ts';
import { unsupportedCommands } from './unsupported.ts';
import { usbCommands } from './usb.ts';
import { virtioCommands } from './virtio.ts';

/** All commands, in the order in which a later group may replace what an earlier one only refuses. */
export function commandTable(program: Program): CommandTable<QmpSession> {
  return new CommandTable<QmpSession>()
    .add(unsupportedCommands)
    .add(controlCommands(program))
    .add(machineCommands(program))
    .add(cpuCommands(program))
    .add(memoryCommands(program))
    .add(miscCommands(program))
    .add(charCommands(program))
    .add(objectCommands(program))
    .widen('object-add', args => program.plugins.backends.has(String(args['qom-type'])))
    .add(pluginCommands(program))
    .add(blockCommands(program))
    .add(blockJobCommands(program))
    .add(blockExportCommands(program))
    .add(netCommands(program))
    .add(pciCommands(program))
    .add(hostCommands(program))
    .add(dumpCommands(program))
    .add(migrationCommands(program))
    .add(snapshotCommands(program))
    .add(dirtyRateCommands(program))
    .add(displayCommands(program))
    .add(inputCommands(program))
    .add(usbCommands(program))
    .add(virtioCommands(program));
}
